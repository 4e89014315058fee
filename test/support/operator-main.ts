import { flushCompileCache } from "node:module";
import { realClock } from "../../src/core/clock.ts";
import { DEFAULT_TIMING, scaleTiming, type Timing } from "../../src/core/timing.ts";
import { runOperator } from "../../src/operator.ts";
import { parseSettings, processEnvironment } from "../../src/settings/config.ts";
import { OTHER_TIMES, WALL_OFFSET } from "./operator-process.ts";
import { type Death, dieAt } from "./sudden-death.ts";

/**
 * Runs the operator as its own process with faster timers than users can set, and with a wall clock that is off by
 * OPERATOR_WALL_OFFSET_MS: `operator-main.ts TIME_SCALE [--death JSON] [flags of berth run]`. Tests kill it, or make it
 * die at a named point (sudden-death.ts); berth itself has no such flags.
 */
const [scale = "1", ...rest] = process.argv.slice(2);
const death = rest[0] === "--death" ? (JSON.parse(rest[1] ?? "") as Death) : undefined;
const flags = death ? rest.slice(2) : rest;
const wallOffsetMs = Number(process.env[WALL_OFFSET] ?? 0);
const otherTimes = JSON.parse(process.env[OTHER_TIMES] ?? "{}") as Partial<Timing>;
const ending = new AbortController();
process.once("SIGTERM", () => ending.abort());
// It must not outlive the tests: the pipe closes when the parent ends, however it ends.
process.stdin.resume().once("end", () => process.exit(1));
// A killed process can't write the cache at its end.
if (death) flushCompileCache();
await runOperator(parseSettings(flags, processEnvironment()), ending.signal, {
  clock: { ...realClock, now: () => realClock.now() + wallOffsetMs },
  timing: { ...scaleTiming(DEFAULT_TIMING, Number(scale)), ...otherTimes },
  ...(death ? { points: dieAt(death) } : {}),
  onListening: (addresses) => process.stdout.write(`${JSON.stringify(addresses)}\n`),
});
process.exit(0);
