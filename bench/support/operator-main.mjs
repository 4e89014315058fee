import { existsSync } from "node:fs";

/**
 * The operator as it is built, in a process of its own: `operator-main.mjs [flags of berth run]`, with times that pass faster
 * where OPERATOR_TIME_SCALE says so, and with the budget of requests to the Work API that BENCH_BUDGET says, as JSON. It
 * writes the addresses of its servers when they listen, as JSON, and ends on SIGTERM. Plain JavaScript: Node loads nothing to
 * strip types, as in the image.
 */
const dist = new URL("../../dist/", import.meta.url);
if (!existsSync(dist)) throw new Error("the operator is not built: `npm run build` does it, `npm run bench` by itself");
const { parseSettings, processEnvironment } = await import(new URL("settings/config.js", dist));
const { runOperator } = await import(new URL("operator.js", dist));
const { DEFAULT_TIMING, scaleTiming } = await import(new URL("core/timing.js", dist));
const ending = new AbortController();
process.once("SIGTERM", () => ending.abort());
// It must not outlive the bench: its parent's end of the pipe closes with the parent, however that dies.
process.stdin.resume().once("end", () => process.exit(1));
await runOperator(parseSettings(process.argv.slice(2), processEnvironment()), ending.signal, {
  timing: scaleTiming(DEFAULT_TIMING, Number(process.env.OPERATOR_TIME_SCALE ?? 1)),
  budget: JSON.parse(process.env.BENCH_BUDGET ?? "{}"),
  onListening: (addresses) => process.stdout.write(`${JSON.stringify(addresses)}\n`),
});
process.exit(0);
