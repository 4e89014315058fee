import { describe, expect, test } from "vitest";
import { keptFromSleep, maxSleepingOf, sleepSecondsOf } from "../../src/api/sleep-needs.ts";
import { type Json, parsed, sessionsSpec, stored } from "./environments.ts";

const sessionsOf = (sessions: Json) => {
  const found = parsed(stored(sessionsSpec(sessions))).spec.sessions;
  if (!found) throw new Error("no sessions");
  return found;
};

const WORKER = { name: "worker", image: "worker:1", command: ["worker"] };
const SIDECAR = { name: "proxy", image: "proxy:1" };
const withSession = (container: Json, podSpec: Json = {}, sessions: Json = {}) =>
  sessionsOf({ template: { spec: { ...podSpec, containers: [{ ...WORKER, ...container }] } }, ...sessions });

const PER_SESSION = { type: "PerSession", claimTemplate: { resources: { requests: { storage: "1Gi" } } } };

describe("sleepSecondsOf", () => {
  test.each<[string, Json, number]>([
    ["is 1800 with workspace type Pod", { type: "Pod" }, 1_800],
    ["is 0 with workspace type PerSession", PER_SESSION, 0],
    ["is 0 with workspace type Ephemeral", {}, 0],
    ["is what the spec says, with type PerSession", { ...PER_SESSION, sleepSeconds: 60 }, 60],
    ["is 0 if the spec says so, with type Pod", { type: "Pod", sleepSeconds: 0 }, 0],
  ])("%s", (_, workspace, seconds) => {
    expect(sleepSecondsOf(sessionsOf({ workspace }))).toBe(seconds);
  });
});

test("maxSleepingOf is maxConcurrent if maxSleeping is left out", () => {
  expect(maxSleepingOf(sessionsOf({ maxConcurrent: 7 }))).toBe(7);
  expect(maxSleepingOf(sessionsOf({ maxConcurrent: 7, maxSleeping: 0 }))).toBe(0);
  expect(maxSleepingOf(sessionsOf({ maxConcurrent: 7, maxSleeping: 20 }))).toBe(20);
});

describe("sessions can't sleep", () => {
  test.each(["shareProcessNamespace", "hostPID"])("with %s, which shows them the keeper", (field) => {
    expect(keptFromSleep(withSession({}, { [field]: true }))).toMatch(
      new RegExp(`^spec\\.sessions\\.template\\.spec\\.${field} is true, .*; remove it$`),
    );
  });

  const CONTAINER = "spec.sessions.template.spec.containers[0]";
  const REFUSED = "is set, which Kubernetes does not allow in a container that is added to a running Pod";

  test.each<[string, Json]>([
    ["ports", { ports: [{ containerPort: 8080 }] }],
    ["readinessProbe", { readinessProbe: { tcpSocket: { port: 8080 } } }],
    ["lifecycle", { lifecycle: { preStop: { exec: { command: ["stop"] } } } }],
    ["resizePolicy", { resizePolicy: [{ resourceName: "cpu", restartPolicy: "NotRequired" }] }],
    ["restartPolicy", { restartPolicy: "Never" }],
    ["volumeMounts[1].subPath", { volumeMounts: [{ name: "a" }, { name: "b", subPath: "x" }] }],
    ["volumeMounts[0].subPathExpr", { volumeMounts: [{ name: "a", subPathExpr: "$(X)" }] }],
    ["resources.claims", { resources: { claims: [{ name: "gpu" }] } }],
    ['resources.limits["nvidia.com/gpu"]', { resources: { limits: { cpu: "1", "nvidia.com/gpu": 1 } } }],
    ['resources.requests["example.com/license"]', { resources: { requests: { "example.com/license": 1 } } }],
  ])("with %s in the session container", (field, container) => {
    expect(keptFromSleep(withSession(container))).toBe(`${CONTAINER}.${field} ${REFUSED}`);
  });

  test.each<[string, Json]>([
    ["command is not set", { command: undefined }],
    ["livenessProbe would run while the container waits for its session", { livenessProbe: {} }],
    ["lifecycle.postStart would run before the session is known", { lifecycle: { postStart: {} } }],
    ["tty is true, and the session arrives on standard input", { tty: true }],
  ])("where a Pod can't wait in a shell: %s", (why, container) => {
    expect(keptFromSleep(withSession(container))).toContain(`${CONTAINER}.${why}`);
  });

  test("with parking Key", () => {
    expect(keptFromSleep(withSession({}, {}, { parking: "Key" }))).toBe(
      "spec.sessions.parking: no session sleeps with Key; use Shell or Program, or remove the field",
    );
  });

  test.each<[string, Json]>([
    ["command is not set", { command: undefined }],
    ["livenessProbe ", { livenessProbe: {} }],
    ["ports is set", { ports: [{ containerPort: 8080 }] }],
  ])("with parking Program where a shell could not start the program of a later item: %s", (why, container) => {
    expect(keptFromSleep(withSession(container, {}, { parking: "Program" }))).toContain(`${CONTAINER}.${why}`);
  });

  test("beside another regular container, wherever it is in the list", () => {
    const annotations = { "kubectl.kubernetes.io/default-container": "worker" };
    const beside = (containers: Json[]) =>
      sessionsOf({ template: { metadata: { annotations }, spec: { containers } } });
    const refusal = (index: number) =>
      `spec.sessions.template.spec.containers[${index}] must be a native sidecar; move it to initContainers with restartPolicy: Always`;
    expect(keptFromSleep(beside([WORKER, SIDECAR]))).toBe(refusal(1));
    expect(keptFromSleep(beside([SIDECAR, WORKER]))).toBe(refusal(0));
  });
});

describe("sessions can sleep", () => {
  test.each<[string, Json, Json?]>([
    ["with a command alone", {}],
    ["with parking Shell", {}, { parking: "Shell" }],
    ["with parking Program", {}, { parking: "Program" }],
    ["with mounts of whole volumes", { volumeMounts: [{ name: "a", mountPath: "/a", subPath: "" }] }],
    [
      "with resources that bound the whole Pod",
      { resources: { limits: { cpu: "1", memory: "1Gi", "ephemeral-storage": "1Gi", "hugepages-2Mi": "4Mi" } } },
    ],
    ["with empty values", { ports: [], lifecycle: null, resizePolicy: null, volumeMounts: null, resources: null }],
    ["with empty resources", { resources: { claims: [], limits: null, requests: { "nvidia.com/gpu": null } } }],
  ])("%s", (_, container, sessions) => {
    expect(keptFromSleep(withSession(container, {}, sessions))).toBeNull();
  });

  test("with native sidecars, whose probes and ports stay", () => {
    const initContainers = [{ ...SIDECAR, restartPolicy: "Always", ports: [{ containerPort: 1 }], livenessProbe: {} }];
    expect(keptFromSleep(withSession({}, { initContainers }))).toBeNull();
  });
});
