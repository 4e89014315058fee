import { beforeEach, inject } from "vitest";
import { isolationOf } from "./settings.ts";

/** Set-up file of the end-to-end projects: marks every test as skipped if the machine lacks a requirement. */
beforeEach(({ skip }) => {
  const why = inject("e2eSkipped");
  if (why !== "") skip(why);
  if (isolationOf() !== undefined && !inject("e2e")?.hasGvisor) skip("the cluster has no RuntimeClass gvisor");
});
