import { describe, expect, test } from "vitest";
import { measuredOf, millisecondsOf, type Start } from "../../../bench/node/starts.ts";
import type { AuditEntry } from "../../../testbed/cluster/audit.ts";

const START: Start = {
  ...{ kind: "shell", namespace: "ns", pod: "pod-1", turn: 0 },
  ...{ queuedAt: 1_000, offeredAt: 1_001, acknowledgedAt: 1_010, startedAt: 1_030, beatAt: 1_100 },
};

function entry(verb: string, resource: string, receivedAt: number, completedAt: number, over = {}): AuditEntry {
  return {
    ...{ user: "operator", verb, resource, subresource: "", namespace: "ns", name: "pod-1", code: 200 },
    ...{ userAgent: "", receivedAt, completedAt, ...over },
  };
}

const REQUESTS = [
  entry("create", "secrets", 1_002, 1_005, { code: 201 }),
  entry("get", "pods", 1_006, 1_008),
  entry("patch", "secrets", 1_012, 1_016),
  entry("patch", "pods", 1_013, 1_018),
];

describe("measuredOf", () => {
  test("gives each step since the previous one", () => {
    expect(measuredOf(START, REQUESTS)?.steps).toEqual({
      offered: 1,
      journaled: 4,
      "Pod read": 3,
      acknowledged: 2,
      patched: 8,
      "program started": 12,
      "first heartbeat": 70,
    });
  });

  test("finds the Secret of a later turn", () => {
    const requests = REQUESTS.map((each) => (each.resource === "secrets" ? { ...each, name: "pod-1-t3" } : each));
    const woken = measuredOf({ ...START, turn: 3 }, requests);
    expect(woken?.steps).toMatchObject({ "Pod read": 3, acknowledged: 2, "first heartbeat": 70 });
    expect(measuredOf({ ...START, turn: 3 }, REQUESTS)).toBeUndefined();
  });

  test("leaves out the patch of a woken Pod, which comes after its line", () => {
    const requests = REQUESTS.map((each) => (each.resource === "secrets" ? { ...each, name: "pod-1-t3" } : each));
    const late = requests.with(3, entry("patch", "pods", 1_031, 1_040));
    expect(measuredOf({ ...START, turn: 3 }, late)?.steps).toMatchObject({ patched: 6, "program started": 14 });
  });

  test("leaves requests out of the own time, parallel ones once", () => {
    expect(measuredOf(START, REQUESTS)?.ownMs).toBe(17 - (3 + 2 + 6));
  });

  test("ignores requests about other Pods, failed ones, and those of the Pod's earlier life", () => {
    const others = [
      entry("create", "secrets", 1_000, 1_001, { name: "pod-2" }),
      entry("create", "secrets", 1_000, 1_001, { code: 409 }),
      entry("get", "pods", 900, 901),
      entry("patch", "pods", 902, 903),
      entry("patch", "pods", 1_012, 1_013, { subresource: "status" }),
    ];
    expect(measuredOf(START, [...others, ...REQUESTS])).toEqual(measuredOf(START, REQUESTS));
  });

  test.each([0, 1, 2, 3])("finds nothing if request %i is missing", (at) => {
    expect(measuredOf(START, REQUESTS.toSpliced(at, 1))).toBeUndefined();
  });
});

test.each([
  ["2026-01-01T00:00:00.123456789Z", 1_767_225_600_123.457],
  ["2026-01-01T00:00:00.123Z", 1_767_225_600_123],
  ["2026-01-01T00:00:00Z", 1_767_225_600_000],
])("millisecondsOf %s", (text, expected) => {
  expect(millisecondsOf(text)).toBeCloseTo(expected, 3);
});
