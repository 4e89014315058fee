import { expect, test } from "vitest";
import { noteJournal } from "../../src/protocol/claim-record.ts";
import { ClaimTable } from "../../src/protocol/claim-table.ts";
import { claimOf, JOURNAL, OURS } from "./claims.ts";

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
