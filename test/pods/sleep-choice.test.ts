import { describe, expect, test } from "vitest";
import { chooseSleep, whyAwakeOf } from "../../src/pods/sleep-choice.ts";
import { type Json, parsed, podTemplate, sessionsSpec, stored, workersSpec } from "../api/environments.ts";

const SLEEPING = { type: "Pod", mountPath: "/workspace", sleepSeconds: 600 };
const environmentOf = (sessions: Json = {}) => parsed(stored(sessionsSpec({ workspace: SLEEPING, ...sessions })));
/** The choice for new Pods; `refused` is what a check found. */
const choose = (sessions: Json = {}, refused: string | null = null) => chooseSleep(environmentOf(sessions), refused);

describe("whether the sessions of new Pods sleep", () => {
  test("is not said where the spec doesn't ask for it", () => {
    expect(choose({ workspace: { type: "Ephemeral" } })).toBeNull();
    expect(choose({ workspace: { ...SLEEPING, sleepSeconds: 0 } })).toBeNull();
    expect(chooseSleep(parsed(stored(workersSpec())), null)).toBeNull();
  });

  test("is so where the spec asks for it, and by default with a workspace in the Pod", () => {
    const enabled = { enabled: true, message: "sessions sleep in their Pods between work items" };
    expect(choose()).toEqual(enabled);
    expect(choose({ workspace: { type: "Pod", mountPath: "/workspace" } })).toEqual(enabled);
  });

  test("is not so if a check found that turns can't be added, with the reason for the next process", () => {
    const sleep = choose({}, "the operator may not add ephemeral containers to Pods: no");
    expect(sleep).toMatchObject({ enabled: false, message: expect.stringMatching(/each work item gets a new Pod$/) });
    expect(whyAwakeOf(sleep ?? { enabled: true, message: "" })).toBe(
      "the operator may not add ephemeral containers to Pods: no",
    );
  });

  test("says first what the spec itself prevents", () => {
    const template = podTemplate({
      shareProcessNamespace: true,
      containers: [{ name: "worker", image: "worker:1", command: ["worker"] }],
    });
    const sleep = choose({ template }, "no right");
    expect(sleep).toMatchObject({ enabled: false, message: expect.stringContaining("shareProcessNamespace") });
  });
});
