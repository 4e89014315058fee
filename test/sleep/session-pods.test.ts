import { expect, test } from "vitest";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { ClaimTable } from "../../src/protocol/claim-table.ts";
import { hasEnded, hasPodFor } from "../../src/sleep/session-pods.ts";
import { pod } from "../pods/pods.ts";
import { turnsPod } from "../pods/turn-pods.ts";
import { opened, over } from "../protocol/claims.ts";
import { fakeContext } from "../sessions/fake-context.ts";

const NOW_MS = Date.UTC(2030, 0, 1);
const { podOverdueMs } = DEFAULT_TIMING;
const RUNNING = { running: { startedAt: "2030-01-01T00:00:00Z" } };
const ENDED = { terminated: { exitCode: 0 } };
const ASSIGNED = { phase: "running", annotations: { "berth.dev/assigned-at": "2030-01-01T00:00:00Z" } } as const;

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

test("a session runs in a turn without a claim until that ends, and does not run while it sleeps", () => {
  expect(hasPod({ pods: [turnsPod({ ...ASSIGNED, turns: { 1: RUNNING } })] })).toBe(true);
  expect(hasPod({ pods: [turnsPod({ ...ASSIGNED, turns: { 1: ENDED } })] })).toBe(false);
  expect(hasPod({ pods: [turnsPod({ phase: "sleeping", ended: 1, turns: { 1: ENDED, 2: RUNNING } })] })).toBe(false);
});

test("a Pod has ended once it keeps no files for a next work item", () => {
  const between = turnsPod({ ...ASSIGNED, turns: { 1: ENDED } });
  expect(hasEnded(between)).toBe(false);
  expect(hasEnded(turnsPod({ ...ASSIGNED, turns: { 1: ENDED }, keeper: ENDED }))).toBe(true);
  expect(hasEnded(turnsPod({ ...ASSIGNED, turns: { 1: RUNNING }, status: { reason: "NodeLost" } }))).toBe(true);
  expect(hasEnded(turnsPod({ ...ASSIGNED, turns: { 1: RUNNING } }))).toBe(false);
  // It is deleted as a sleeping Pod, with an Event.
  expect(hasEnded(turnsPod({ phase: "sleeping", ended: 1, turns: { 1: ENDED }, keeper: ENDED }))).toBe(false);
});
