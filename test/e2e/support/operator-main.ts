import { DEFAULT_TIMING, scaleTiming } from "../../../src/core/timing.ts";
import { runOperator } from "../../../src/operator.ts";
import { parseSettings, processEnvironment } from "../../../src/settings/config.ts";

/**
 * The operator as a process in the node's namespaces, which ends with the node: `operator-main.ts TIME_SCALE [flags of
 * berth run]`. A scale above 1 makes its own timers faster than a user can set them.
 */
const [scale = "1", ...flags] = process.argv.slice(2);
const ending = new AbortController();
process.once("SIGTERM", () => ending.abort());
await runOperator(parseSettings(flags, processEnvironment()), ending.signal, {
  timing: scaleTiming(DEFAULT_TIMING, Number(scale)),
});
process.exit(0);
