import { describe, expect, test } from "vitest";
import { sleepMsOf, sleepPatch } from "../../src/pods/sleep-mark.ts";
import { type Json, parsed, podTemplate, sessionsSpec, stored, workersSpec } from "../api/environments.ts";
import { turnsPod } from "./turn-pods.ts";

const NOW_MS = Date.parse("2030-01-01T00:00:00.250Z");
const environmentOf = (sessions: Json = {}) =>
  parsed(stored(sessionsSpec({ workspace: { type: "Pod", mountPath: "/workspace", sleepSeconds: 600 }, ...sessions })));
const patchOf = (sessionId = "sesn_1", environment = environmentOf()) => {
  const pod = turnsPod({ metadata: { uid: "pod-uid", resourceVersion: "7" } });
  return sleepPatch(pod, { sessionId, endedTurn: 3 }, environment, NOW_MS).metadata;
};

describe("the mark of a sleeping session", () => {
  test("says whose Pod it is, which turn ended, and from when until when it sleeps", () => {
    expect(patchOf()).toMatchObject({
      labels: { "berth.dev/phase": "sleeping", "berth.dev/session-id": "sesn_1" },
      annotations: {
        "berth.dev/session-id": "sesn_1",
        "berth.dev/ended-turn": "3",
        "berth.dev/sleeps-since": "2030-01-01T00:00:00.250Z",
        "berth.dev/sleeps-until": "2030-01-01T00:10:00.250Z",
      },
    });
  });

  test("names the Pod by its uid and resourceVersion", () => {
    expect(patchOf()).toMatchObject({ uid: "pod-uid", resourceVersion: "7" });
  });

  test("gives the keeper ten minutes more than the operator, which may wait as long again, in whole seconds", () => {
    const untilSeconds = Date.parse("2030-01-01T00:30:01Z") / 1_000;
    expect(patchOf().annotations["berth.dev/deadline"]).toBe(String(untilSeconds));
  });

  test("keeps a session id that is no label value in the annotation", () => {
    const id = "-".repeat(100);
    const { labels, annotations } = patchOf(id);
    expect(annotations["berth.dev/session-id"]).toBe(id);
    expect(labels["berth.dev/session-id"]).not.toBe(id);
  });

  test("lets autoscalers move the Pod again, unless the template says otherwise", () => {
    const [safe, disrupt] = ["cluster-autoscaler.kubernetes.io/safe-to-evict", "karpenter.sh/do-not-disrupt"];
    expect(patchOf().annotations).toMatchObject({ [safe]: "true", [disrupt]: null });
    const template = { ...podTemplate(), metadata: { annotations: { [safe]: "false", [disrupt]: "true" } } };
    const { annotations } = patchOf("sesn_1", environmentOf({ template }));
    expect(annotations).not.toHaveProperty([safe]);
    expect(annotations).not.toHaveProperty([disrupt]);
  });
});

test("sessions sleep as long as the spec says, and workers don't", () => {
  expect(sleepMsOf(environmentOf())).toBe(600_000);
  expect(sleepMsOf(parsed(stored(sessionsSpec())))).toBe(0);
  expect(sleepMsOf(parsed(stored(workersSpec())))).toBe(0);
});
