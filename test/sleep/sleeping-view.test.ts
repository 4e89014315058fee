import { describe, expect, test } from "vitest";
import { sleepingView } from "../../src/sleep/sleep-plan.ts";
import { keeperPod } from "../support/keeper-pods.ts";

const SINCE = "2030-01-01T00:00:00.000Z";
const UNTIL = "2030-01-01T00:30:00.000Z";

function sleeping(annotations: Record<string, string>) {
  const ids = { "berth.dev/work-id": "work_1", "berth.dev/session-id": "session_1" };
  return keeperPod({ name: "berth-research-x", namespace: "agents", annotations: { ...ids, ...annotations } });
}

describe("the view of a sleeping session", () => {
  test("has its last work item, since when it sleeps, and until when", () => {
    const pod = sleeping({ "berth.dev/sleeps-since": SINCE, "berth.dev/sleeps-until": UNTIL });
    expect(sleepingView(pod, "Operator")).toMatchObject({
      ...{ workId: "work_1", sessionId: "session_1", pod: "berth-research-x", lease: "Operator", phase: "sleeping" },
      ...{ queuedAtMs: null, stoppedAtMs: Date.parse(SINCE), sleepsUntilMs: Date.parse(UNTIL), reason: null },
    });
  });

  test("has no times that its Pod doesn't say", () => {
    const pod = sleeping({ "berth.dev/sleeps-since": "?" });
    expect(sleepingView(pod, "Worker")).toMatchObject({ stoppedAtMs: null, sleepsUntilMs: null });
  });
});
