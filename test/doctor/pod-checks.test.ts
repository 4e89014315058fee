import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { parseEnvironment } from "../../src/api/environment.ts";
import { asStored } from "../../src/commands/preview.ts";
import { checkPods } from "../../src/doctor/pod-checks.ts";
import type { Pod, PodStatus } from "../../src/kube/resource.ts";
import { sessionTemplate } from "../../src/pods/pod-render.ts";
import { ROOT } from "../project/lint-gate.ts";
import { keeperPod } from "../support/keeper-pods.ts";

const SECOND_MS = 1_000;
const MADE = "2026-01-02T03:04:05Z";
const MADE_MS = Date.parse(MADE);

const parsed = parseEnvironment(
  asStored(parse(await readFile(join(ROOT, "examples/environments/minimal.yaml"), "utf8")), "agents"),
);
if (!parsed.ok) throw new Error(parsed.problems.join("\n"));
const { environment } = parsed;
/** The example does not set this field, so this is the default. */
const PREPARE_SECONDS = environment.spec.sessions?.prepareTimeoutSeconds ?? 0;

function pod(status: PodStatus, metadata: Partial<Pod["metadata"]> = {}): Pod {
  const made = sessionTemplate(environment).render("berth-research-x");
  return {
    ...made,
    metadata: { ...made.metadata, creationTimestamp: MADE, ...metadata },
    spec: { ...made.spec, nodeName: "node-1" },
    status,
  };
}

const check = (one: Pod, afterSeconds: number) =>
  checkPods(environment, { is: "seen", value: [one] }, MADE_MS + afterSeconds * SECOND_MS);

const waiting = (reason: string, message = "") => ({
  phase: "Pending",
  containerStatuses: [{ name: "worker", state: { waiting: { reason, message } } }],
});

const READY = ["Initialized", "PodReadyToStartContainers"].map((type) => ({ type, status: "True" }));

test("a Pod that does not get ready in time is stuck, for the kubelet's reason", () => {
  const stuck = pod(waiting("ImagePullBackOff", "Back-off pulling image"));
  expect(check(stuck, PREPARE_SECONDS)).toMatchObject({ status: "pass", message: "1 Pod, none is stuck" });
  expect(check(stuck, PREPARE_SECONDS + 1)).toEqual({
    check: "pods",
    about: "environment agents/research",
    status: "fail",
    message:
      "Pod berth-research-x did not get ready within prepareTimeoutSeconds: ImagePullBackOff: Back-off pulling image",
    fix: "kubectl -n agents describe pod berth-research-x",
    reason: "ImagePullFailing",
  });
});

test("a Pod whose shell waits for a session may wait forever", () => {
  const keeper = { name: "worker", state: { running: {} } };
  const made = pod({ phase: "Running", conditions: READY, containerStatuses: [keeper] });
  expect(made.metadata.annotations).toMatchObject({ "berth.dev/parking": "Shell", "berth.dev/ended-turn": "0" });
  expect(check(made, 100 * PREPARE_SECONDS)).toMatchObject({ status: "fail" });
  const turn = { name: "berth-turn-1", state: { running: {} } };
  const waits = {
    ...made,
    spec: { ...made.spec, ephemeralContainers: [{ name: turn.name }] },
    status: { ...made.status, ephemeralContainerStatuses: [turn] },
  };
  expect(check(waits, 100 * PREPARE_SECONDS).status).toBe("pass");
});

test("a Pod that waits for a key may wait forever", () => {
  const status = {
    ...waiting("CreateContainerConfigError", 'secret "berth-research-x" not found'),
    conditions: ["Initialized", "PodReadyToStartContainers"].map((type) => ({ type, status: "True" })),
  };
  const parked = pod(status, { annotations: { "berth.dev/session-container": "worker" } });
  expect(check(parked, 100 * PREPARE_SECONDS).status).toBe("pass");
});

test("a Pod without a node is stuck, for the scheduler's reason", () => {
  const conditions = [
    { type: "PodScheduled", status: "False", reason: "Unschedulable", message: "0/3 nodes are available" },
  ];
  const unscheduled = pod({ phase: "Pending", conditions });
  delete unscheduled.spec.nodeName;
  expect(check(unscheduled, PREPARE_SECONDS + 1).message).toContain("Unschedulable: 0/3 nodes are available");
});

test("a Pod that was not admitted in time is stuck, for its scheduling gates", () => {
  const gated = pod({ phase: "Pending" });
  gated.spec = { ...gated.spec, nodeName: "", schedulingGates: [{ name: "kueue.x-k8s.io/admission" }] };
  expect(check(gated, PREPARE_SECONDS + 1).message).toContain("scheduling gates (kueue.x-k8s.io/admission)");
});

test("a Pod that should be gone long ago fails", () => {
  const going = pod({ phase: "Running" }, { deletionTimestamp: MADE });
  expect(check(going, 300).status).toBe("pass");
  const result = check(going, 301);
  expect(result.status).toBe("fail");
  expect(result.message).toMatch(/^Pod berth-research-x should be gone/);
});

test("Pods that must not be listed are skipped", () => {
  expect(checkPods(environment, { is: "forbidden" }, MADE_MS)).toMatchObject({
    status: "skip",
    message: "not checked: needs list pods in agents",
  });
});

test("a Pod whose session sleeps is well, also before its next turn waits", () => {
  const { metadata, spec } = keeperPod({ name: "berth-research-x", namespace: "agents" });
  const sleeps = {
    metadata: { ...metadata, creationTimestamp: MADE, labels: { "berth.dev/phase": "sleeping" } },
    spec: { ...spec, nodeName: "node-1" },
    status: { phase: "Running", containerStatuses: [{ name: "worker", state: { running: {} } }] },
  };
  expect(check(sleeps, 100 * PREPARE_SECONDS)).toMatchObject({ status: "pass" });
});
