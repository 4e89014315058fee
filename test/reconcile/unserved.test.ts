import { beforeEach, expect, test } from "vitest";
import { NO_POINTS } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { KubeObject } from "../../src/kube/resource.ts";
import { createMetrics, type Metrics } from "../../src/observe/metrics.ts";
import { UnservedEnvironments } from "../../src/reconcile/unserved.ts";
import { metricValue } from "../support/metric-value.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { FakeKube, refusal } from "./fake-kube.ts";

const LABELS = { namespace: "agents", environment: "research" };

let kube: FakeKube;
let metrics: Metrics;
let told: string[];
let unserved: UnservedEnvironments;

beforeEach(() => {
  kube = new FakeKube(() => ({ metadata: {} }));
  metrics = createMetrics();
  told = [];
  unserved = new UnservedEnvironments({
    kube: kube.client,
    points: () => NO_POINTS,
    timing: DEFAULT_TIMING,
    clock: new VirtualClock(),
    metrics,
    announcer: () => (reason) => void told.push(reason),
  });
});

function raw(over: { uid?: string; spec?: unknown; status?: unknown; metadata?: object } = {}): KubeObject {
  const { uid = "u1", metadata, ...rest } = over;
  return {
    metadata: { namespace: "agents", name: "research", uid, generation: 2, ...metadata },
    spec: { sessions: { maxConcurrent: 4 } },
    ...rest,
  } as KubeObject;
}

const statuses = () => kube.calls.map(({ body }) => (body as { status: Record<string, unknown> }).status);

test("reports the problem once in Ready, in an Event and in a metric", async () => {
  await unserved.report(raw(), "InvalidSpec", "spec.pausd: not known");
  await unserved.report(raw(), "InvalidSpec", "spec.pausd: not known");
  expect(statuses()).toMatchObject([
    {
      observedGeneration: 2,
      mode: "Sessions",
      max: 4,
      conditions: [{ type: "Ready", status: "False", reason: "InvalidSpec", message: "spec.pausd: not known" }],
    },
  ]);
  expect(told).toEqual(["InvalidSpec"]);
  expect(await metricValue(metrics.environmentCondition, { ...LABELS, type: "Ready" })).toBe(0);
  expect(await metrics.registry.metrics()).toContain('environment="research",type="Ready"');
});

test("does not repeat a status that an earlier process wrote", async () => {
  await unserved.report(raw(), "InvalidSpec", "x");
  const [status] = statuses();
  const next = new UnservedEnvironments({
    kube: kube.client,
    points: () => NO_POINTS,
    timing: DEFAULT_TIMING,
    clock: new VirtualClock(),
    metrics,
    announcer: () => (reason) => void told.push(reason),
  });
  await next.report(raw({ status }), "InvalidSpec", "x");
  expect(kube.calls).toHaveLength(1);
  expect(told).toEqual(["InvalidSpec"]);
});

test("keeps the addresses that claims may name, because their sessions go on", async () => {
  const apiAddresses = ["https://now.example", "https://before.example"];
  await unserved.report(raw({ status: { conditions: [], apiAddresses } }), "InvalidSpec", "x");
  expect(statuses()).toMatchObject([{ apiAddresses }]);
});

test("writes a new status for another object of the same name", async () => {
  await unserved.report(raw(), "InvalidSpec", "x");
  await unserved.report(raw({ uid: "u2" }), "InvalidSpec", "x");
  expect(kube.calls.map(({ body }) => (body as KubeObject).metadata.uid)).toEqual(["u1", "u2"]);
});

test.each<[string, unknown, object]>([
  ["workers", { workers: { maxReplicas: 7 } }, { mode: "Workers", max: 7 }],
  ["nothing at all", undefined, { mode: "Sessions", max: 0 }],
  ["a count that is none", { sessions: { maxConcurrent: "many" } }, { mode: "Sessions", max: 0 }],
  ["a count that no status takes", { sessions: { maxConcurrent: 2 ** 40 } }, { mode: "Sessions", max: 0 }],
  ["sessions that are none", { sessions: 3 }, { mode: "Sessions", max: 0 }],
  ["a text for a spec", "sessions", { mode: "Sessions", max: 0 }],
])("reads mode and maximum from a spec with %s", async (_what, spec, expected) => {
  await unserved.report(raw({ spec }), "InvalidSpec", "x");
  expect(statuses()).toMatchObject([expected]);
});

test("announces one Event if the API server refuses the status because the spec breaks a CRD rule", async () => {
  kube.answer(() => refusal(422, "Invalid", 'Environment.berth.dev "research" is invalid: spec.environmentId: ...'));
  for (let round = 0; round < 3; round += 1) await unserved.report(raw(), "InvalidSpec", "x");
  expect(told).toEqual(["InvalidSpec"]);
  await unserved.report(raw({ metadata: { generation: 3 } }), "InvalidSpec", "y");
  expect(told).toEqual(["InvalidSpec", "InvalidSpec"]);
});

test("removes the metrics of a deleted Environment", async () => {
  await unserved.report(raw(), "InvalidSpec", "x");
  unserved.forget("agents/research", true);
  expect(await metrics.registry.metrics()).not.toContain('environment="research"');
});

test("removes an earlier process's finalizer, so that it does not block the deletion", async () => {
  const metadata = { deletionTimestamp: "2030-01-01T00:00:00Z", finalizers: ["other", "berth.dev/drain"] };
  const answers = {
    get: raw({ metadata }),
    listAll: { items: [] },
    create: undefined,
    delete: undefined,
    patch: { metadata: {} },
  };
  kube.answer(({ verb }) => answers[verb]);
  await unserved.report(raw({ metadata }), "InvalidSpec", "x");
  expect(kube.calls.at(-1)).toMatchObject({ verb: "patch", body: { metadata: { finalizers: ["other"] } } });
});
