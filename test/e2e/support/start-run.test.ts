import { afterEach, expect, test, vi } from "vitest";
import { MissingToolError } from "../../../testbed/cluster/missing.ts";
import { readSettings } from "./settings.ts";
import { startRun } from "./start-run.ts";

afterEach(() => vi.restoreAllMocks());

/** Simulates a machine where the user is not root. Where there is no Linux, that is missing as well. */
function missRoot() {
  vi.spyOn(process, "getuid").mockReturnValue(1000);
  return vi.spyOn(console, "error").mockReturnValue();
}

test("reports why the tests are skipped if something is missing", async () => {
  const said = missRoot();
  const { cluster, skipped } = await startRun(readSettings({}));
  expect(cluster).toBeUndefined();
  expect(skipped).toMatch(/needs (root|Linux)/);
  expect(said).toHaveBeenCalledWith(expect.stringContaining(skipped));
});

test("fails in CI if something is missing", async () => {
  missRoot();
  await expect(startRun(readSettings({ CI: "true" }))).rejects.toThrow(MissingToolError);
});
