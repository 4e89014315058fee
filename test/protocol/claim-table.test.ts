import { expect, test } from "vitest";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { noteJournal } from "../../src/protocol/claim-record.ts";
import { ClaimTable } from "../../src/protocol/claim-table.ts";
import { hasPodFor } from "../../src/sleep/session-pods.ts";
import { pod } from "../pods/pods.ts";
import { fakeContext } from "../sessions/fake-context.ts";
import { claimOf, JOURNAL, OURS, opened, over } from "./claims.ts";

const NOW_MS = Date.UTC(2030, 0, 1);
const { podOverdueMs } = DEFAULT_TIMING;
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

/** Whether these Pods or claims run the session. */
function hasPod({ pods = [], claims = [] }: { pods?: Pod[]; claims?: ReturnType<typeof opened>[] }): boolean {
  const table = new ClaimTable();
  for (const claim of claims) table.add(claim);
  const context = fakeContext({ kube: { now: () => NOW_MS }, pods: { ofSession: () => pods } });
  return hasPodFor(context, table, "sesn_1");
}

/** A Pod whose deletion was requested this long ago. */
const deletedBefore = (ms: number) => pod({}, { metadata: { deletionTimestamp: new Date(NOW_MS - ms).toISOString() } });

test("a session runs in the Pod of a claim until its container has ended", () => {
  expect(hasPod({})).toBe(false);
  expect(hasPod({ claims: [opened()] })).toBe(true);
  expect(hasPod({ claims: [over(60_000)] })).toBe(false);
});

test("a session runs in a Pod without a claim until the Pod has ended or its node is given up", () => {
  expect(hasPod({ pods: [pod()] })).toBe(true);
  expect(hasPod({ pods: [pod({ phase: "Failed" })] })).toBe(false);
  expect(hasPod({ pods: [deletedBefore(podOverdueMs - 1_000)] })).toBe(true);
  expect(hasPod({ pods: [deletedBefore(podOverdueMs + 1_000)] })).toBe(false);
});
