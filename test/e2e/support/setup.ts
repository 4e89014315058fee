import type { TestProject } from "vitest/node";
import { readSettings } from "./settings.ts";
import { type Run, startRun } from "./start-run.ts";

/**
 * All projects of a run share one cluster, started by the first. Each project loads this file separately, so the run is
 * stored in globalThis.
 */
const shared = globalThis as { berthE2eRun?: { readonly run: Promise<Run>; users: number } };

/** Sets up the end-to-end projects. With CI=true, @throws what is missing on this machine */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  shared.berthE2eRun ??= { run: startRun(readSettings()), users: 0 };
  const own = shared.berthE2eRun;
  own.users += 1;
  const run = await own.run;
  project.provide("e2e", run.cluster);
  project.provide("e2eSkipped", run.skipped);
  return async () => {
    own.users -= 1;
    if (own.users > 0) return;
    delete shared.berthE2eRun;
    await run.stop();
  };
}
