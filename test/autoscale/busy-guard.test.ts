import { expect, test } from "vitest";
import { type BusyView, scaleDownFloor } from "../../src/autoscale/busy-guard.ts";

const NOTHING = { running: 0, pending: 0 };
const probed = (busy: number, unknown = 0, notReady = 0): BusyView => ({ kind: "probed", busy, unknown, notReady });

test("idle workers set no floor", () => {
  expect(scaleDownFloor(probed(0), 5, NOTHING)).toBeNull();
  expect(scaleDownFloor({ kind: "unprobed" }, 5, NOTHING)).toBeNull();
});

test("busy workers are the floor", () => {
  expect(scaleDownFloor(probed(3), 5, NOTHING)).toMatchObject({ replicas: 3, reason: "WorkersBusy" });
});

test("a worker that does not answer counts as busy", () => {
  const floor = scaleDownFloor(probed(1, 2), 5, NOTHING);
  expect(floor).toMatchObject({ replicas: 3, reason: "WorkersBusy" });
  expect(floor?.message).toContain("2 do not answer");
});

test("nothing is removed while a worker that is or may be busy is not Ready", () => {
  expect(scaleDownFloor(probed(1, 0, 1), 5, NOTHING)).toMatchObject({ replicas: 5, reason: "BusyWorkerNotReady" });
  expect(scaleDownFloor(probed(0, 1, 1), 5, NOTHING)).toMatchObject({ replicas: 5, reason: "BusyWorkerNotReady" });
});

test("the floor is never above the current count", () => {
  expect(scaleDownFloor(probed(9), 5, NOTHING)?.replicas).toBe(5);
});

test("with a probe, the number of listed sessions sets no floor, because they may run in another cluster", () => {
  expect(scaleDownFloor(probed(0), 5, { running: 7, pending: 1 })).toBeNull();
});

test.each([
  { running: 1, pending: 0 },
  { running: 0, pending: 1 },
])("without a probe, nothing is removed while %o", (work) => {
  expect(scaleDownFloor({ kind: "unprobed" }, 5, work)).toMatchObject({ replicas: 5, reason: "SessionsRunning" });
});
