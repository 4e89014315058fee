import { expect, test } from "vitest";
import { NO_FILES, type Wake } from "../../../bench/node/wakes.ts";
import { groupsOf, wakeGates } from "../../../bench/scenarios/wakes.ts";

function wake(kind: Wake["kind"], gap: number | null, startedAt: number): Wake {
  return {
    ...{ kind, gap, namespace: kind, pod: "pod-1", turn: 1, workId: "work-1", sessionId: "session-1", uid: "uid-1" },
    ...{ queuedAt: 0, offeredAt: 0, acknowledgedAt: 0, startedAt, beatAt: startedAt, outputs: [] },
  };
}

const WAKES = [
  wake("volume", 300, 60),
  wake("volume", null, 3_000),
  wake("pod", 300, 25),
  wake("pod", null, 20),
  wake("pod", 10, 30),
  wake("pod", 300, 25),
];

test("groups first starts and wakes by kind and gap, the shortest first", () => {
  const groups = groupsOf({ wakes: WAKES });
  expect(groups.map(({ kind, gap, starts }) => [kind, gap, starts.length])).toEqual([
    ["pod", null, 1],
    ["pod", 10, 1],
    ["pod", 300, 2],
    ["volume", null, 1],
    ["volume", 300, 1],
  ]);
});

test("compares wakes of both kinds with first starts without volumes", () => {
  const found = { files: { ...NO_FILES, changed: 2 }, returnedFiles: { ...NO_FILES, changed: 1, elsewhere: 3 } };
  const gates = wakeGates(groupsOf({ wakes: WAKES }), found);
  expect(gates.map(({ value }) => value)).toEqual([1.5, 1.25, 3, 3, 0, 0]);
});
