import { expect, test } from "vitest";
import { noteJournal } from "../../src/protocol/claim-record.ts";
import { ClaimTable } from "../../src/protocol/claim-table.ts";
import { claimOf, JOURNAL, OURS, opened, over } from "./claims.ts";

const OPENED = { ...JOURNAL, acknowledgedAt: OURS, opened: true };

test("dates the opening of another process from when it was first found", () => {
  const claim = claimOf();
  noteJournal(claim, JOURNAL, 1_000);
  expect(claim.record.openedMs).toBeNull();
  noteJournal(claim, OPENED, 2_000);
  noteJournal(claim, OPENED, 3_000);
  expect(claim.record.openedMs).toBe(2_000);
});

test("removing an old claim leaves its slot to a later claim of the same name", () => {
  const table = new ClaimTable();
  const [earlier, later] = [claimOf(), claimOf({ journal: { ...JOURNAL, workId: "work_2" } })];
  table.add(earlier);
  table.add(later);
  table.remove(earlier);
  expect(table.get(later.name)).toBe(later);
  expect(table.ofWork("work_1")).toBeUndefined();
});

test("a session runs in the Pod of a claim until its container has ended", () => {
  const runs = (claim: ReturnType<typeof opened>) => {
    const table = new ClaimTable();
    table.add(claim);
    return table.runs("sesn_1");
  };
  expect(runs(opened())).toBe(true);
  expect(runs(over(60_000))).toBe(false);
  expect(runs(claimOf({ journal: { ...JOURNAL, sessionId: "another" } }))).toBe(false);
  expect(runs(claimOf({ journal: { ...JOURNAL, use: "refusal" } }))).toBe(false);
});
