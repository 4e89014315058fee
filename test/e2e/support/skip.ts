import { beforeEach, inject } from "vitest";

/** Set-up file of the end-to-end projects: where the machine lacks something, every test counts as skipped. */
beforeEach(({ skip }) => {
  const why = inject("e2eSkipped");
  if (why !== "") skip(why);
});
