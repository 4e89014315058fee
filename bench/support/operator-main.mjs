import { existsSync } from "node:fs";

/**
 * Runs the built operator in its own process: `operator-main.mjs [flags of berth run]`. OPERATOR_TIME_SCALE makes its
 * times run faster, and BENCH_BUDGET sets the budget of requests to the Work API as JSON. It prints the addresses of
 * its servers as JSON when they listen, and ends on SIGTERM. It's plain JavaScript, so that Node loads no type
 * stripping, as in the image.
 */
const dist = new URL("../../dist/", import.meta.url);
if (!existsSync(dist))
  throw new Error("the operator is not built: run `npm run build`, or `npm run bench`, which builds it");
const { parseSettings, processEnvironment } = await import(new URL("settings/config.js", dist));
const { runOperator } = await import(new URL("operator.js", dist));
const { DEFAULT_TIMING, scaleTiming } = await import(new URL("core/timing.js", dist));
const ending = new AbortController();
process.once("SIGTERM", () => ending.abort());
// It must not outlive the bench. The parent's end of the pipe closes whenever the parent dies.
process.stdin.resume().once("end", () => process.exit(1));
await runOperator(parseSettings(process.argv.slice(2), processEnvironment()), ending.signal, {
  timing: scaleTiming(DEFAULT_TIMING, Number(process.env.OPERATOR_TIME_SCALE ?? 1)),
  budget: JSON.parse(process.env.BENCH_BUDGET ?? "{}"),
  onListening: (addresses) => process.stdout.write(`${JSON.stringify(addresses)}\n`),
});
process.exit(0);
