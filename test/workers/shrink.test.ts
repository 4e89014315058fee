import { describe, expect, test } from "vitest";
import { NO_POINTS } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { Deployment, Pod } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import type { BusyAnswer } from "../../src/workers/busy-probe.ts";
import { BusyWatch } from "../../src/workers/busy-watch.ts";
import type { WorkersContext } from "../../src/workers/context.ts";
import { DemandWatch } from "../../src/workers/demand-watch.ts";
import { Fleet } from "../../src/workers/fleet.ts";
import { type Shrunk, shrink } from "../../src/workers/shrink.ts";
import { workerTemplate } from "../../src/workers/template.ts";
import { type Json, parsed, stored, workersSpec } from "../api/environments.ts";
import { FakeKube, type KubeCall, refusal } from "../reconcile/fake-kube.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { type PodOptions, podOf } from "./worker-pods.ts";

const COST = "controller.kubernetes.io/pod-deletion-cost";
const PROBED: Json = { busyProbe: { httpGet: { path: "/busy", port: 9000 } } };

interface Setup {
  readonly replicas: number;
  /** Each worker's name, with its answer and the state of its Pod. */
  readonly pods: Readonly<Record<string, PodOptions & { readonly says?: BusyAnswer }>>;
  readonly workers?: Json;
  /** The refreshed readings of the Work API; null: refreshing fails. */
  readonly work?: { readonly depth?: number; readonly pending?: number; readonly running?: number } | null;
  readonly isLeaving?: boolean;
  /** Answers a patch instead of the API server. */
  readonly patched?: (call: KubeCall, pod: Pod | undefined) => unknown;
}

/** Shrinks a Deployment to `target`, and returns what was done. */
async function run(
  setup: Setup,
  target: number,
): Promise<{ result: Shrunk; calls: readonly string[]; asked: string[] }> {
  const { replicas, work = {}, isLeaving = false } = setup;
  const environment = parsed(stored(workersSpec(setup.workers ?? PROBED)));
  const template = workerTemplate(environment);
  const deployment: Deployment = template.deployment(replicas);
  deployment.metadata.uid = "deployment-uid";
  const pods = new Map(
    Object.entries(setup.pods).map(([name, o]) => [name, podOf(name, { ip: name, hash: template.hash, ...o })]),
  );
  const calls: string[] = [];
  const kube = new FakeKube((call) => {
    if (call.verb === "listAll") {
      calls.push("list Pods");
      return { items: [...pods.values()], metadata: {} };
    }
    const pod = pods.get(call.ref.name);
    const answer = setup.patched?.(call, pod);
    calls.push(describeCall(call));
    if (answer !== undefined) return answer;
    if (call.plural === "deployments") return { ...deployment, metadata: { ...deployment.metadata, generation: 2 } };
    const { annotations } = (call.body as { metadata: { annotations: Record<string, string | null> } }).metadata;
    const kept = Object.entries(annotations).filter(([, value]) => value !== null);
    return { ...pod, metadata: { ...pod?.metadata, annotations: Object.fromEntries(kept) } };
  });
  const clock = new VirtualClock();
  const asked: string[] = [];
  const context = {
    namespace: "agents",
    name: "research",
    uid: environment.metadata.uid,
    environment: () => environment,
    template: () => template,
    kube: kube.client,
    points: NO_POINTS,
    pods: { get: (name: string) => pods.get(name), list: () => [...pods.values()] },
    deployments: { get: () => deployment, list: () => [deployment] },
    clock,
    random: () => 0.5,
    timing: DEFAULT_TIMING,
    logger: silentLogger,
    metrics: createMetrics(),
    labels: { namespace: "agents", environment: "research" },
    announce: () => {},
  } as unknown as WorkersContext;
  const fleet = new Fleet(context);
  const busy = new BusyWatch({
    context,
    pods: () => fleet.pods,
    onChange: () => {},
    prober: async ({ ip }) => {
      asked.push(ip);
      return setup.pods[ip]?.says ?? "idle";
    },
  });
  const queue = {
    stats: { depth: work?.depth ?? 0, pending: work?.pending ?? 0 },
    readMs: 0,
    refresh: async () => work !== null,
  };
  const demand = new DemandWatch({
    context,
    queue,
    count: async () =>
      work === null ? { ok: false, waitMs: 1 } : { ok: true, count: work.running ?? 0, isComplete: true, pages: 1 },
    hasWorkers: () => true,
    mayAsk: () => true,
    onReading: () => {},
  });
  const signal = new AbortController().signal;
  const result = await shrink({ fleet, busy, demand }, deployment, { target, isLeaving }, signal);
  return { result, calls, asked };
}

function describeCall({ plural, ref, body }: KubeCall): string {
  if (plural === "deployments") {
    const operations = body as { op: string; path: string; value: unknown }[];
    return `scale: ${operations.map(({ op, path, value }) => `${op} ${path} ${value}`).join(", ")}`;
  }
  return `mark ${ref.name} ${(body as { metadata: { annotations: Record<string, string> } }).metadata.annotations[COST]}`;
}

const SCALE = (from: number, to: number) =>
  `scale: test /metadata/uid deployment-uid, test /spec/replicas ${from}, replace /spec/replicas ${to}`;

describe("shrinking with a probe", () => {
  test("reads Pods live, probes again, marks victims and busy workers, then scales", async () => {
    const pods = { a: { says: "busy" }, b: {}, c: {} } as const;
    const { result, calls, asked } = await run({ replicas: 3, pods }, 2);
    expect(asked.sort()).toEqual(["a", "b", "c"]);
    expect(calls).toEqual(["list Pods", "mark a 1000", "mark b -1000", SCALE(3, 2)]);
    expect(result).toEqual({ replicas: 2, held: null });
  });

  test("keeps all busy workers, and says so", async () => {
    const { result, calls } = await run({ replicas: 3, pods: { a: { says: "busy" }, b: { says: "busy" }, c: {} } }, 0);
    expect(calls.at(-1)).toBe(SCALE(3, 2));
    expect(result).toEqual({ replicas: 2, held: expect.stringContaining("2 workers are or may be busy") });
  });

  test("keeps all busy workers while the ReplicaSet has not acted on an earlier shrink yet", async () => {
    const pods = { a: { says: "busy" }, b: { says: "busy" }, c: { says: "busy" }, d: {}, e: {}, f: {} } as const;
    const { result, calls } = await run({ replicas: 5, pods }, 2);
    expect(calls.filter((call) => call.endsWith(" -1000"))).toEqual(["mark d -1000", "mark e -1000", "mark f -1000"]);
    expect(calls.at(-1)).toBe(SCALE(5, 3));
    expect(result).toEqual({ replicas: 3, held: expect.stringContaining("3 workers are or may be busy") });
  });

  test("treats a worker without an answer as busy", async () => {
    const { result, calls } = await run({ replicas: 2, pods: { a: { says: "unknown" }, b: { says: "unknown" } } }, 0);
    expect(calls).toEqual(["list Pods"]);
    expect(result).toMatchObject({ replicas: 2, held: expect.any(String) });
  });

  test("removes none while a busy worker is not Ready", async () => {
    const { result, calls } = await run({ replicas: 2, pods: { a: { says: "busy", ready: false }, b: {} } }, 1);
    expect(calls).toEqual(["list Pods"]);
    expect(result).toEqual({
      replicas: 2,
      held: expect.stringContaining("worker a is not Ready and may be busy"),
    });
  });

  test("removes workers that don't run first, then those that are not Ready", async () => {
    const waiting = { waiting: { reason: "ImagePullBackOff" } };
    const pods = { ready: {}, unready: { ready: false }, stuck: { ready: false, state: waiting } };
    expect((await run({ replicas: 3, pods }, 2)).calls).toContain("mark stuck -1000");
    expect((await run({ replicas: 3, pods }, 1)).calls).toEqual(
      expect.arrayContaining(["mark stuck -1000", "mark unready -1000"]),
    );
  });

  test("ends no workers instead of those that were never created", async () => {
    const { calls, result } = await run({ replicas: 5, pods: { a: {}, b: {} } }, 2);
    expect(calls).toEqual(["list Pods", SCALE(5, 2)]);
    expect(result).toEqual({ replicas: 2, held: null });
  });

  test("ignores workers that are being deleted or have failed", async () => {
    const pods = { a: { ending: true }, b: { phase: "Failed" }, c: {}, d: {} };
    const { calls } = await run({ replicas: 2, pods }, 1);
    expect(calls).toEqual(["list Pods", "mark c -1000", SCALE(2, 1)]);
  });

  test("does not repeat an existing mark", async () => {
    const { calls } = await run({ replicas: 2, pods: { a: { cost: "-1000" }, b: { says: "busy", cost: "1000" } } }, 1);
    expect(calls).toEqual(["list Pods", SCALE(2, 1)]);
  });

  test("unmarks a former victim that may be busy by now", async () => {
    const pods = { a: { says: "unknown", cost: "-1000" }, b: {} } as const;
    const { calls, result } = await run({ replicas: 2, pods }, 1);
    expect(calls).toEqual(["list Pods", "mark a null", "mark b -1000", SCALE(2, 1)]);
    expect(result).toEqual({ replicas: 1, held: null });
  });

  test("does not scale if the answer lacks a mark", async () => {
    const patched = ({ plural }: KubeCall, pod: Pod | undefined) => (plural === "pods" ? pod : undefined);
    const { calls, result } = await run({ replicas: 2, pods: { a: {}, b: {} }, patched }, 1);
    expect(calls).toEqual(["list Pods", "mark a -1000"]);
    expect(result).toMatchObject({ replicas: 2, held: expect.any(String) });
  });

  test("does not scale if a mark is refused", async () => {
    const calls: string[] = [];
    const patched = (call: KubeCall) => {
      calls.push(call.plural);
      return refusal(403, "Forbidden", "pods is forbidden");
    };
    await expect(run({ replicas: 2, pods: { a: {}, b: {} }, patched }, 1)).rejects.toThrow("forbidden");
    expect(calls).not.toContain("deployments");
  });

  test("reports a concurrent change that the API server refuses", async () => {
    const patched = ({ plural }: KubeCall) =>
      plural === "deployments" ? refusal(422, "Invalid", "the server rejected our request") : undefined;
    await expect(run({ replicas: 2, pods: { a: {}, b: {} }, patched }, 1)).rejects.toThrow("rejected");
  });
});

describe("shrinking without a probe", () => {
  const pods = { a: {}, b: {} };

  test("probes and marks no worker, and reads the Work API again", async () => {
    const { calls, asked, result } = await run({ replicas: 2, pods, workers: {} }, 0);
    expect({ calls, asked }).toEqual({ calls: ["list Pods", SCALE(2, 0)], asked: [] });
    expect(result).toEqual({ replicas: 0, held: null });
  });

  test.each<[string, NonNullable<Setup["work"]> | null, boolean, boolean]>([
    ["keeps workers while a session runs", { running: 1 }, false, true],
    ["keeps workers after an item was polled", { pending: 1 }, false, true],
    ["keeps workers while an item waits", { depth: 1 }, false, true],
    ["keeps workers if the Work API can't be read", null, false, true],
    ["keeps unwanted workers while a session runs", { running: 1 }, true, true],
    ["keeps unwanted workers after an item was polled", { pending: 1 }, true, true],
    ["keeps unwanted workers if the Work API can't be read", null, true, true],
    ["removes unwanted workers while an item waits", { depth: 1 }, true, false],
  ])("%s", async (_what, work, isLeaving, isHeld) => {
    const { calls, result } = await run({ replicas: 2, pods, workers: {}, work, isLeaving }, 0);
    expect(calls.length).toBe(isHeld ? 1 : 2);
    expect(result.held === null).toBe(!isHeld);
  });

  test("does not spare workers that don't run", async () => {
    const state = { waiting: { reason: "ImagePullBackOff" } };
    const { calls } = await run({ replicas: 1, pods: { a: { state, ready: false } }, workers: {}, work: null }, 0);
    expect(calls.at(-1)).toBe(SCALE(1, 0));
  });
});
