import type { TestProject } from "vitest/node";
import { readSettings } from "./settings.ts";
import { type Run, startRun } from "./start-run.ts";

/** All projects of a run share one, whichever asks first. Each loads this file anew, so it hangs on the process. */
const shared = globalThis as { berthE2eRun?: { readonly run: Promise<Run>; users: number } };

/** Set-up of the end-to-end projects. @throws what is missing on this machine, with CI=true. */
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
