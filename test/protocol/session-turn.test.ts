import { expect, test } from "vitest";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { ClaimTable, hasPodFor } from "../../src/protocol/claim-table.ts";
import { pod } from "../pods/pods.ts";
import { fakeContext } from "../sessions/contexts.ts";
import { opened, over } from "./claims.ts";

const NOW_MS = Date.UTC(2030, 0, 1);
const { podOverdueMs } = DEFAULT_TIMING;

function runs({ pods = [], claims = [] }: { pods?: Pod[]; claims?: ReturnType<typeof opened>[] }): boolean {
  const table = new ClaimTable();
  for (const claim of claims) table.add(claim);
  const context = fakeContext({ kube: { now: () => NOW_MS }, pods: { assignedTo: () => pods } });
  return hasPodFor(context, table, "sesn_1");
}

const deletedBefore = (ms: number) => pod({}, { metadata: { deletionTimestamp: new Date(NOW_MS - ms).toISOString() } });

test("a session runs in the Pod of a claim until its container has ended", () => {
  expect(runs({})).toBe(false);
  expect(runs({ claims: [opened()] })).toBe(true);
  expect(runs({ claims: [over(60_000)] })).toBe(false);
});

test("a session runs in a Pod without a claim until the Pod has ended or its node is given up", () => {
  expect(runs({ pods: [pod()] })).toBe(true);
  expect(runs({ pods: [pod({ phase: "Failed" })] })).toBe(false);
  expect(runs({ pods: [deletedBefore(podOverdueMs - 1_000)] })).toBe(true);
  expect(runs({ pods: [deletedBefore(podOverdueMs + 1_000)] })).toBe(false);
});
