/** `npm run test:e2e -- --keep`: starts what the tests share and keeps it for runs with `--attach`. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { readSettings } from "./support/settings.ts";
import { startRun } from "./support/start-run.ts";

const { cluster, stop } = await startRun({ ...readSettings(), attachTo: undefined, strict: true });
if (!cluster) throw new Error("nothing was started");
const file = join(cluster.dir, "run.json");
await writeFile(file, JSON.stringify(cluster), { mode: 0o600 });
console.log(
  `Berth runs. Ctrl-C ends it.\n\n  export KUBECONFIG=${cluster.kubeconfig}\n  npm run test:e2e -- --attach ${file}\n`,
);
await new Promise<void>((resolve) => {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => resolve());
});
await stop();
process.exit(0);
