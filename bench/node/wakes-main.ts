import { seededRandom } from "../../simulator/ids.ts";
import { errorText } from "../../src/core/errors.ts";
import { OPERATOR_NAMESPACE } from "../support/stand.ts";
import { measureBeside } from "./beside.ts";
import { measureInside, startNodeSimulator } from "./inside.ts";
import { measureSleeping } from "./sleep-costs.ts";
import { measureTurns } from "./turn-costs.ts";
import { measureWakes } from "./wake-times.ts";
import type { WakesOptions, WakesPart, WakesResult } from "./wakes.ts";

/** Lines of the operator's log that are printed if something fails. */
const LOG_LINES = 50;
/** A failure can quote the statuses of all Pods. */
const MAX_FAILURE = 500;

/** Measures sessions that sleep on the node: see the scenario in scenarios/wakes.ts. */
await measureInside<WakesOptions>(async (inside): Promise<WakesResult> => {
  const simulator = await startNodeSimulator(inside);
  const random = seededRandom(inside.seed);
  const flags = ["--leader-elect-namespace", OPERATOR_NAMESPACE];
  const { log } = await inside.stand.operator(simulator.url, flags);
  const failures: string[] = [];
  const fail = (what: string, error: unknown) => {
    for (const line of log.slice(-LOG_LINES)) console.log(JSON.stringify(line));
    failures.push(`${what}: ${errorText(error).slice(0, MAX_FAILURE)}`);
    console.log(failures.at(-1));
  };
  const part = async <T>(name: WakesPart, what: string, measure: () => Promise<T>): Promise<T | undefined> => {
    if (inside.isEnding() || !inside.options.parts.includes(name)) return undefined;
    console.log(what);
    try {
      return await measure();
    } catch (error) {
      fail(what, error);
      return undefined;
    }
  };
  return {
    sleeping: await part("sleeping", "sleeping Pods", () => measureSleeping(inside, simulator, random)),
    beside: await part("beside", "sessions beside those of the reference", () =>
      measureBeside(inside, simulator, random),
    ),
    turns: await part("turns", "turns of a Pod", () => measureTurns(inside, simulator, random)),
    wakes: await part("wakes", "wakes", () => measureWakes(inside, simulator, random, fail)),
    failures,
  };
});
