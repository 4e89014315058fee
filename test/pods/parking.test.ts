import { describe, expect, test } from "vitest";
import { chooseParking, chooseSleep, whyAwakeOf, whyKeyOf } from "../../src/pods/parking.ts";
import { type Json, parsed, podTemplate, sessionsSpec, stored, workersSpec } from "../api/environments.ts";

const WITH_COMMAND = podTemplate({ containers: [{ name: "worker", image: "worker:1", command: ["worker"] }] });
const SLEEPING = { type: "Pod", mountPath: "/workspace", sleepSeconds: 600 };
const environmentOf = (sessions: Json = {}) =>
  parsed(stored(sessionsSpec({ template: WITH_COMMAND, workspace: SLEEPING, ...sessions })));
/** The choices for new Pods; `refused` is what a check found. */
function choose(sessions: Json = {}, refused: { shell?: string; turns?: string } = {}) {
  const environment = environmentOf(sessions);
  const parking = chooseParking(environment, refused.shell ?? null);
  return { parking, sleep: chooseSleep(environment, parking, refused.turns ?? null) };
}

describe("how new Pods wait", () => {
  test("is as the spec says", () => {
    expect(choose({ parking: "Key", workspace: { type: "Ephemeral" } }).parking.mode).toBe("Key");
    expect(choose({ parking: "Shell" }, { shell: "no right" }).parking.mode).toBe("Shell");
  });

  test("is in a shell where that is possible, and else for a key, with the reason", () => {
    expect(choose().parking.mode).toBe("Shell");
    const { parking } = choose({}, { shell: "the operator may not attach to Pods" });
    expect(parking.mode).toBe("Key");
    expect(whyKeyOf(parking)).toBe("the operator may not attach to Pods");
    expect(choose({ template: podTemplate() }).parking.mode).toBe("Key");
  });

  test("can't be chosen for workers", () => {
    expect(() => chooseParking(parsed(stored(workersSpec())), null)).toThrow(TypeError);
  });
});

describe("whether the sessions of new Pods sleep", () => {
  test("is not said where the spec doesn't ask for it", () => {
    expect(choose({ workspace: { type: "Ephemeral" } }).sleep).toBeNull();
    expect(choose({ workspace: { ...SLEEPING, sleepSeconds: 0 } }).sleep).toBeNull();
    const shell = { mode: "Shell", message: "" } as const;
    expect(chooseSleep(parsed(stored(workersSpec())), shell, null)).toBeNull();
  });

  test("is so where the spec asks for it, and by default with a workspace in the Pod", () => {
    const enabled = { enabled: true, message: "sessions sleep in their Pods between work items" };
    expect(choose().sleep).toEqual(enabled);
    expect(choose({ workspace: { type: "Pod", mountPath: "/workspace" } }).sleep).toEqual(enabled);
  });

  test("is not so if a check found that turns can't be added, with the reason for the next process", () => {
    const { sleep } = choose({}, { turns: "the operator may not add ephemeral containers to Pods: no" });
    expect(sleep).toMatchObject({ enabled: false, message: expect.stringMatching(/each work item gets a new Pod$/) });
    expect(whyAwakeOf(sleep ?? { enabled: true, message: "" })).toBe(
      "the operator may not add ephemeral containers to Pods: no",
    );
  });

  test("is not so where Pods wait for a key, whatever the reason", () => {
    const { sleep } = choose({}, { shell: "the operator may not attach to Pods" });
    expect(sleep).toMatchObject({
      enabled: false,
      message: expect.stringMatching(/^sessions sleep only if Pods wait in a shell: the operator may not attach/),
    });
  });

  test("says first what the spec itself prevents", () => {
    const template = podTemplate({
      shareProcessNamespace: true,
      containers: [{ name: "worker", image: "worker:1", command: ["worker"] }],
    });
    const { sleep } = choose({ template }, { turns: "no right", shell: "no right" });
    expect(sleep).toMatchObject({ enabled: false, message: expect.stringContaining("shareProcessNamespace") });
  });
});
