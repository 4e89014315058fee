import { expect, test } from "vitest";
import type { EnvironmentStatus } from "../../src/api/environment.ts";
import { checkDryRun, checkParking, checkSleep, checkSpec } from "../../src/doctor/environment-checks.ts";
import type { KubeClient } from "../../src/kube/client.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { type Json, parsed, sessionsSpec, stored } from "../api/environments.ts";

const WORKER = { name: "worker", image: "worker:1", command: ["worker"], imagePullPolicy: "Always" };

function environment(parking: EnvironmentStatus["parking"], sleep?: EnvironmentStatus["sleep"]) {
  const template = { spec: { containers: [WORKER] } };
  return { ...parsed(stored(sessionsSpec({ template }))), status: { conditions: [], parking, sleep } };
}

const raw = (spec: Json) => stored(spec) as Json & { metadata: { name: string } };

test("an environmentId without the platform's prefix is worth a warning", () => {
  expect(checkSpec(raw(sessionsSpec())).result).toMatchObject({ status: "pass" });
  expect(checkSpec(raw({ ...sessionsSpec(), environmentId: "research-prod" }))).toMatchObject({
    environment: { spec: { environmentId: "research-prod" } },
    result: {
      check: "spec",
      status: "warn",
      message: "spec.environmentId: research-prod does not begin with env_; copy the id from the console",
    },
  });
});

test("how warm Pods wait is well, unless waiting in a shell failed", () => {
  expect(checkParking(environment(undefined))).toBeNull();
  const shell = environment({ mode: "Shell", message: "warm Pods wait in a shell" });
  expect(checkParking(shell)).toMatchObject({
    check: "parking",
    status: "pass",
    message: "Shell: warm Pods wait in a shell",
  });
  const failure = "the image has no /bin/sh";
  expect(
    checkParking(environment({ mode: "Key", message: `${failure}; sessions start slower with a key`, failure })),
  ).toMatchObject({
    status: "warn",
    message: "Key: the image has no /bin/sh; sessions start slower with a key",
    fix: expect.stringContaining("parking: Key"),
  });
});

test("how sessions sleep is well, unless they were to sleep and can't", () => {
  expect(checkSleep(environment(undefined))).toBeNull();
  const well = environment(undefined, { enabled: true, message: "sessions sleep in their Pods" });
  expect(checkSleep(well)).toMatchObject({ check: "sleep", status: "pass", message: "sessions sleep in their Pods" });
  const message = "the operator may not add ephemeral containers to Pods; each work item gets a new Pod";
  expect(checkSleep(environment(undefined, { enabled: false, message }))).toMatchObject({
    status: "warn",
    message,
    fix: "Fix the cause. Or set spec.sessions.workspace.sleepSeconds: 0.",
  });
  const failed = environment(undefined, { enabled: false, message, failure: "a policy denies the request" });
  expect(checkSleep(failed)?.fix).toMatch(/^Fix the cause, then change the spec: /);
});

test("the dry run creates a Pod that waits as the operator's Pods do", async () => {
  const made: Pod[] = [];
  const create = async (_: unknown, pod: Pod) => {
    made.push(pod);
    return pod;
  };
  const kube = { create } as unknown as KubeClient;
  const asShell = await checkDryRun(kube, environment(undefined), {});
  const refused = environment({ mode: "Key", message: "the operator may not attach to Pods" });
  const asKey = await checkDryRun(kube, refused, {});
  expect(made.map(({ spec }) => spec.containers[0]?.["stdin"])).toEqual([true, undefined]);
  // Only while a container waits for a key does the kubelet contact the registry again and again.
  expect([asShell, asKey].map(({ status }) => status)).toEqual(["pass", "warn"]);
});
