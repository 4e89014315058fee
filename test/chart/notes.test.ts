import { expect, test } from "vitest";
import { CHART, helm } from "../../tools/helm.ts";

/** What helm says after an install with these values; a dry run of the client's asks no cluster. */
async function notes(...values: readonly string[]): Promise<string> {
  const set = values.flatMap((value) => ["--set", value]);
  const { stdout, stderr } = await helm(["install", "berth", CHART, "--dry-run=client", ...set]);
  const [, text] = stdout.split("\nNOTES:\n");
  if (text === undefined) throw new Error(`helm shows no notes: ${stderr}`);
  return text;
}

test("the notes warn of an uninstall that nothing precedes, whichever value takes its Job away", async () => {
  const [usual, off, rightless, both] = await Promise.all([
    notes(),
    notes("uninstall.enabled=false"),
    notes("rbac.create=false"),
    notes("uninstall.enabled=false", "rbac.create=false"),
  ]);
  const warning =
    "=false: no Job stops the operator before an uninstall. Delete all Environments, and wait until they are gone";
  expect(usual).not.toContain("before an uninstall");
  expect(off).toContain(`\nuninstall.enabled${warning}`);
  expect(rightless).toContain(`\nrbac.create${warning}`);
  expect(both.split("before an uninstall")).toHaveLength(2);
});
