import { expect, test } from "vitest";
import { NO_POINTS } from "../../src/core/points.ts";
import type { Deployment } from "../../src/kube/resource.ts";
import type { PodPolicy } from "../../src/policy/pod-policy.ts";
import type { WorkersContext } from "../../src/workers/context.ts";
import { Fleet, needsOfDeployment } from "../../src/workers/fleet.ts";
import { workerTemplate } from "../../src/workers/template.ts";
import { readWorkerPod } from "../../src/workers/worker-pod.ts";
import { parsed, stored, workersSpec } from "../api/environments.ts";
import { FakeKube } from "../reconcile/fake-kube.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { podOf } from "./worker-pods.ts";

const environment = parsed(stored(workersSpec()));
const template = workerTemplate(environment);

type Template = Deployment["spec"]["template"];

/** A Deployment as the API server shows it: with defaults, and with `change` applied to the template. */
function shown(change: (template: Template) => Template = (same) => same): Deployment {
  const made = template.deployment(3);
  const { spec } = made.spec.template;
  const containers =
    spec?.containers.map((each) => ({ terminationMessagePath: "/dev/termination-log", ...each })) ?? [];
  const defaulted = { ...made.spec.template, spec: { dnsPolicy: "ClusterFirst", ...spec, containers } };
  return {
    ...made,
    metadata: { ...made.metadata, uid: "d", generation: 4 },
    spec: { ...made.spec, template: change(defaulted) },
  };
}

const IMAGE_CHANGED = shown((each) => ({
  ...each,
  spec: { ...each.spec, containers: (each.spec?.containers ?? []).map((one) => ({ ...one, image: "other:2" })) },
}));

/** The fleet of a new process. @param answer the Deployment that the API server answers patches with */
function fresh(
  patched: object[] = [],
  answer = { ...shown(), metadata: { ...shown().metadata, generation: 5 } },
): Fleet {
  const kube = {
    patch: async (_resource: unknown, _ref: unknown, patch: object) => {
      patched.push(patch);
      return answer;
    },
  };
  const context = { clock: new VirtualClock(), namespace: "agents", kube, points: NO_POINTS, template: () => template };
  return new Fleet(context as unknown as WorkersContext);
}

test("keeps a Deployment of an earlier process with additions made by admission at its creation", () => {
  expect(fresh().isForeign(shown())).toBe(false);
  const annotated = shown((each) => ({
    ...each,
    metadata: { ...each.metadata, annotations: { ...each.metadata?.annotations, "policy.example/checked": "yes" } },
    spec: {
      ...each.spec,
      containers: [{ name: "proxy", image: "proxy:1" }, ...(each.spec?.containers ?? [])],
      tolerations: [{ operator: "Exists" }],
    },
  }));
  expect(fresh().isForeign(annotated)).toBe(false);
});

test("detects in a new process that another client changed what a Deployment was created with", () => {
  expect(fresh().isForeign(IMAGE_CHANGED)).toBe(true);
  const emptied = shown((each) => ({ ...each, spec: { ...each.spec, containers: [] } }));
  expect(fresh().isForeign(emptied)).toBe(true);
});

test("treats every change after its own write as another client's", async () => {
  const patched: object[] = [];
  const fleet = fresh(patched);
  await fleet.scale(shown(), 2);
  expect(fleet.isForeign({ ...shown(), metadata: { ...shown().metadata, generation: 5 } })).toBe(false);
  expect(fleet.isForeign({ ...shown(), metadata: { ...shown().metadata, generation: 6 } })).toBe(true);
});

test("a scale shortly after another client's change does not make that change its own", async () => {
  const answer = { ...IMAGE_CHANGED, metadata: { ...IMAGE_CHANGED.metadata, generation: 6 } };
  const fleet = fresh([], answer);
  // The cache shows the Deployment as it was before the change.
  await fleet.scale(shown(), 2);
  expect(fleet.isForeign(answer)).toBe(true);
});

test("a scale of a Deployment that another client changed does not make that change its own", async () => {
  const answer = { ...IMAGE_CHANGED, metadata: { ...IMAGE_CHANGED.metadata, generation: 5 } };
  const fleet = fresh([], answer);
  await fleet.scale(IMAGE_CHANGED, 2);
  expect(fleet.isForeign(answer)).toBe(true);
});

test("neither creates nor restores a Deployment whose template the policy forbids, until it is allowed", async () => {
  const containers = [{ name: "worker", image: "worker:1", securityContext: { privileged: true } }];
  const privileged = workerTemplate(parsed(stored(workersSpec({ template: { spec: { containers } } }))));
  const asked: string[] = [];
  const kube = {
    create: async () => asked.push("create") && shown(),
    patch: async () => asked.push("patch") && shown(),
  };
  const common = {
    clock: new VirtualClock(),
    namespace: "agents",
    kube,
    points: NO_POINTS,
    template: () => privileged,
  };
  const under = (podPolicy: PodPolicy) => new Fleet({ ...common, podPolicy } as unknown as WorkersContext);
  await under({}).create(2);
  await under({}).putRight(shown());
  expect(asked).toEqual([]);
  await under({ privileged: ["*"] }).create(2);
  await under({ privileged: ["*"] }).putRight(shown());
  expect(asked).toEqual(["create", "patch"]);
});

test("does not count additions by the API server and admission as needs of the template", () => {
  const container = { name: "worker", image: "worker:1" };
  const podSpec = { hostNetwork: true, containers: [{ ...container, ports: [{ containerPort: 80 }] }] };
  const network = { policy: "None" };
  const made = workerTemplate(parsed(stored(workersSpec({ template: { spec: podSpec } }, { network })))).deployment(1);
  const given = structuredClone(made);
  Object.assign(given.spec.template.spec ?? {}, {
    tolerations: [{ operator: "Exists" }],
    containers: [{ ...container, ports: [{ containerPort: 80, hostPort: 80 }] }],
  });
  expect(needsOfDeployment(given)).toEqual(["hostNamespaces=hostNetwork"]);
  const { annotations: _gone, ...metadata } = given.metadata;
  expect(needsOfDeployment({ ...given, metadata })).toEqual([
    "hostNamespaces=hostNetwork",
    "hostPorts",
    "tolerations=*",
  ]);
});

const DEPLOYMENT = {
  metadata: { name: "berth-research-1", namespace: "agents", uid: "d1", generation: 1 },
  spec: { replicas: 3, selector: {}, template: { spec: { containers: [] } } },
} satisfies Deployment;

/** A fleet, and the requests that it sends. */
function recordingFleet() {
  const kube = new FakeKube(() => DEPLOYMENT);
  const common = { namespace: "agents", points: NO_POINTS, clock: new VirtualClock() };
  const context = { ...common, kube: kube.client, template: () => template };
  return { kube, fleet: new Fleet(context as unknown as WorkersContext) };
}

test("scales a Deployment only if it is the same one and still has the replicas that the decision was based on", async () => {
  const { kube, fleet: writes } = recordingFleet();
  await writes.scale(DEPLOYMENT, 1);
  expect(kube.calls).toMatchObject([
    {
      verb: "patch",
      query: { type: "json" },
      body: [
        { op: "test", path: "/metadata/uid", value: "d1" },
        { op: "test", path: "/spec/replicas", value: 3 },
        { op: "replace", path: "/spec/replicas", value: 1 },
      ],
    },
  ]);
});

test("shortens the grace period of a deleted worker by its uid", async () => {
  const { kube, fleet: writes } = recordingFleet();
  await writes.hurry(readWorkerPod(podOf("a", { ending: true })), 30);
  expect(kube.calls).toMatchObject([
    { verb: "delete", ref: { name: "a" }, query: { uid: "uid-a", gracePeriodSeconds: 30 } },
  ]);
});

test("deletes a Deployment by its uid, after its Pods", async () => {
  const { kube, fleet: writes } = recordingFleet();
  await writes.remove(DEPLOYMENT);
  expect(kube.calls).toMatchObject([{ verb: "delete", query: { uid: "d1", propagationPolicy: "Foreground" } }]);
});
