import { beforeEach, describe, expect, test } from "vitest";
import { conditionFor } from "../../src/api/conditions.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { KubeObject } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics, type Metrics } from "../../src/observe/metrics.ts";
import { gaugeConditions, gaugeEnvironment, UnservedEnvironments } from "../../src/reconcile/unserved.ts";
import { parsed, sessionsSpec, stored, workersSpec } from "../api/environments.ts";
import { metricValue } from "../support/metric-value.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { FakeKube, refusal } from "./fake-kube.ts";

const LABELS = { namespace: "agents", environment: "research" };

let kube: FakeKube;
let metrics: Metrics;
let announced: string[];
let unserved: UnservedEnvironments;

beforeEach(() => {
  kube = new FakeKube(() => ({ metadata: {} }));
  metrics = createMetrics();
  announced = [];
  unserved = new UnservedEnvironments({
    logger: silentLogger,
    kube: kube.client,
    points: () => NO_POINTS,
    ...{ timing: DEFAULT_TIMING, random: () => 0.5 },
    clock: new VirtualClock(),
    metrics,
    announcer: () => (reason) => void announced.push(reason),
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

describe("an unserved Environment", () => {
  test("reports the problem once in Ready, in an Event and in a metric", async () => {
    await unserved.report(raw(), "InvalidSpec", "spec.pausd: not known");
    await unserved.report(raw(), "InvalidSpec", "spec.pausd: not known");
    expect(statuses()).toMatchObject([
      {
        observedGeneration: 2,
        mode: "Sessions",
        max: 4,
        conditions: [
          { type: "Ready", status: "False", reason: "InvalidSpec", message: "spec.pausd: not known" },
          { type: "Stalled", status: "True", reason: "InvalidSpec", message: "spec.pausd: not known" },
        ],
      },
    ]);
    expect(announced).toEqual(["InvalidSpec"]);
    expect(await metricValue(metrics.environmentCondition, { ...LABELS, type: "Ready" })).toBe(0);
    expect(await metrics.registry.metrics()).toContain('environment="research",type="Ready"');
  });

  test("does not repeat a status that an earlier process wrote", async () => {
    await unserved.report(raw(), "InvalidSpec", "x");
    const [status] = statuses();
    const next = new UnservedEnvironments({
      logger: silentLogger,
      kube: kube.client,
      points: () => NO_POINTS,
      ...{ timing: DEFAULT_TIMING, random: () => 0.5 },
      clock: new VirtualClock(),
      metrics,
      announcer: () => (reason) => void announced.push(reason),
    });
    await next.report(raw({ status }), "InvalidSpec", "x");
    expect(kube.calls).toHaveLength(1);
    expect(announced).toEqual(["InvalidSpec"]);
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

  test("announces the problem, and that the status is refused, if the spec breaks a CRD rule", async () => {
    kube.answer(() => refusal(422, "Invalid", 'Environment.berth.dev "research" is invalid: spec.environmentId: ...'));
    for (let round = 0; round < 3; round += 1) await unserved.report(raw(), "InvalidSpec", "x");
    expect(announced).toEqual(["StatusOutdated", "InvalidSpec"]);
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
});

describe("the gauges", () => {
  test("gauges repeat the status: Pods by phase, the maximum, conditions as 1, 0 and -1", async () => {
    const sessions = { warm: 2, preparing: 1, running: 3, stopping: 0, ended: 4 };
    const environment = parsed(stored(sessionsSpec({ maxConcurrent: 9 })));
    const own = { namespace: environment.metadata.namespace, environment: environment.metadata.name };
    gaugeEnvironment(metrics, environment, { queue: null, sessions, verdicts: [], blocked: null }, [
      conditionFor("Ready", "", 1),
      conditionFor("StartsFailing", "", 1),
      conditionFor("KeyUnchecked", "", 1),
    ]);
    expect(await metricValue(metrics.sessions, { ...own, phase: "running" })).toBe(3);
    expect(await metricValue(metrics.sessionsMax, own)).toBe(9);
    expect(await metricValue(metrics.environmentCondition, { ...own, type: "Ready" })).toBe(1);
    expect(await metricValue(metrics.environmentCondition, { ...own, type: "SessionsStarting" })).toBe(0);
    expect(await metricValue(metrics.environmentCondition, { ...own, type: "Authenticated" })).toBe(-1);
    expect(await metricValue(metrics.startsFailing, own)).toBe(1);
  });

  test("the gauge of failing starts is reset when sessions start again", async () => {
    const report = {
      queue: null,
      sessions: { warm: 0, preparing: 0, running: 0, stopping: 0, ended: 0 },
      verdicts: [],
      blocked: null,
    };
    const environment = parsed(stored(sessionsSpec()));
    gaugeEnvironment(metrics, environment, report, [conditionFor("StartsFailing", "", 1)]);
    gaugeEnvironment(metrics, environment, report, [conditionFor("Starting", "", 1)]);
    expect(await metricValue(metrics.startsFailing, {})).toBe(0);
  });

  test("an unserved Environment has a Ready gauge for alerts", async () => {
    gaugeConditions(metrics, LABELS, [conditionFor("InvalidSpec", "", 1)]);
    expect(await metricValue(metrics.environmentCondition, { ...LABELS, type: "Ready" })).toBe(0);
  });

  test("workers have their own gauges and no session series", async () => {
    const environment = parsed(stored(workersSpec({ maxReplicas: 6 })));
    const workers = { desired: 4, replicas: 3, ready: 2, busy: 1 };
    gaugeEnvironment(metrics, environment, { queue: null, sessions: null, workers, verdicts: [], blocked: null }, []);
    const { workersMax, workersDesired, workersReplicas, workersReady, workersBusy } = metrics;
    const gauges = [workersMax, workersDesired, workersReplicas, workersReady, workersBusy];
    expect(await Promise.all(gauges.map((gauge) => metricValue(gauge, {})))).toEqual([6, 4, 3, 2, 1]);
    expect((await metrics.sessions.get()).values).toEqual([]);
    expect((await metrics.sessionsMax.get()).values).toEqual([]);
  });
});
