import { beforeEach, inject } from "vitest";

/** Set-up file of the end-to-end projects: marks every test as skipped if the machine lacks a requirement. */
beforeEach(({ skip }) => {
  const why = inject("e2eSkipped");
  if (why !== "") skip(why);
});
