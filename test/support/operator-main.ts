import { parseSettings, processEnvironment } from "../../src/config.ts";
import { runOperator } from "../../src/operator.ts";
import { DEFAULT_TIMING, scaleTiming } from "../../src/sessions/timing.ts";

/**
 * The operator as a process of its own, with faster timers than a user can have: `operator-main.ts TIME_SCALE [flags of
 * berth run]`. Tests kill it; berth itself has no such flag.
 */
const [scale = "1", ...flags] = process.argv.slice(2);
const ending = new AbortController();
process.once("SIGTERM", () => ending.abort());
// It must not outlive the tests: its parent's end of the pipe closes with the parent, however that dies.
process.stdin.resume().once("end", () => process.exit(1));
await runOperator(parseSettings(flags, processEnvironment()), ending.signal, {
  timing: scaleTiming(DEFAULT_TIMING, Number(scale)),
  onListening: (addresses) => process.stdout.write(`${JSON.stringify(addresses)}\n`),
});
process.exit(0);
