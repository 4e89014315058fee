import { describe, expect, test } from "vitest";
import type { Environment } from "../../src/api/environment.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import type { BusyAnswer } from "../../src/workers/busy-probe.ts";
import { BUSY_COST, BusyWatch, forEachAtMost } from "../../src/workers/busy-watch.ts";
import type { WorkersContext } from "../../src/workers/context.ts";
import { readWorkerPod } from "../../src/workers/worker-pod.ts";
import { type Json, parsed, podTemplate, stored, workersSpec } from "../api/environments.ts";
import { FakeKube, notFound } from "../reconcile/fake-kube.ts";
import { metricValue } from "../support/metric-value.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { type PodOptions, podOf } from "./worker-pods.ts";

const PROBE = { httpGet: { path: "/busy", port: 9000 } };
const ROUND_MS = DEFAULT_TIMING.busyProbeMs;

/** A watch over Pods and answers that the test sets. */
class Bench {
  readonly clock = new VirtualClock();
  readonly metrics = createMetrics();
  readonly kube = new FakeKube(({ ref, body }) => {
    const pod = this.pods.get(ref.name);
    if (!pod) return notFound("pods", ref.name);
    const { annotations } = (body as { metadata: { annotations: Record<string, string | null> } }).metadata;
    const merged = { ...pod.metadata.annotations, ...annotations };
    const kept = Object.entries(merged).filter((entry): entry is [string, string] => entry[1] !== null);
    const next = { ...pod, metadata: { ...pod.metadata, annotations: Object.fromEntries(kept) } };
    this.pods.set(ref.name, next);
    return next;
  });
  readonly pods = new Map<string, Pod>();
  readonly answers = new Map<string, BusyAnswer>();
  readonly events: string[] = [];
  asked = 0;
  readonly watch: BusyWatch;
  readonly #ending = new AbortController();

  constructor(workers: Json = { busyProbe: PROBE }) {
    const environment: Environment = parsed(stored(workersSpec(workers)));
    const context = {
      namespace: "agents",
      environment: () => environment,
      kube: this.kube.client,
      points: NO_POINTS,
      clock: this.clock,
      random: () => 0.5,
      timing: DEFAULT_TIMING,
      logger: silentLogger,
      metrics: this.metrics,
      labels: { namespace: "agents", environment: "research" },
      announce: (reason: string, message: string) => void this.events.push(`${reason}: ${message}`),
    } as unknown as WorkersContext;
    this.watch = new BusyWatch({
      context,
      pods: () => this.read(),
      onChange: () => {},
      prober: async ({ ip }) => {
        this.asked += 1;
        return this.answers.get(ip) ?? "unknown";
      },
    });
  }

  /** A Pod whose address is its name, so that answers can be set by name. */
  put(name: string, options: PodOptions = {}, answer?: BusyAnswer): void {
    this.pods.set(name, podOf(name, { ip: name, ...options }));
    if (answer) this.answers.set(name, answer);
  }

  read() {
    return [...this.pods.values()].map(readWorkerPod);
  }

  state(name: string): BusyAnswer {
    const pod = this.read().find((each) => each.name === name);
    if (!pod) throw new Error(`no Pod ${name}`);
    return this.watch.stateOf(pod);
  }

  ask(): Promise<void> {
    return this.watch.ask(this.read(), new AbortController().signal);
  }

  observe(): void {
    this.watch.observe(this.read(), () => "for a test");
  }

  ended(): Promise<number | undefined> {
    return metricValue(this.metrics.workersEndedWhileBusy, {});
  }

  cost(name: string): string | undefined {
    return this.pods.get(name)?.metadata.annotations?.["controller.kubernetes.io/pod-deletion-cost"];
  }

  [Symbol.dispose](): void {
    this.#ending.abort();
  }

  start(): void {
    void this.watch.run(this.#ending.signal);
  }
}

describe("the known state of a worker", () => {
  test("is unknown before the first probe", () => {
    using bench = new Bench();
    bench.put("a");
    expect(bench.state("a")).toBe("unknown");
  });

  test("is its last answer, until that is three rounds old", async () => {
    using bench = new Bench();
    bench.put("a", {}, "idle");
    bench.put("b", {}, "busy");
    await bench.ask();
    expect([bench.state("a"), bench.state("b")]).toEqual(["idle", "busy"]);
    await bench.clock.advance(3 * ROUND_MS);
    expect([bench.state("a"), bench.state("b")]).toEqual(["idle", "busy"]);
    await bench.clock.advance(1);
    expect([bench.state("a"), bench.state("b")]).toEqual(["unknown", "unknown"]);
  });

  test("becomes unknown at once if an idle worker gives no clear answer", async () => {
    using bench = new Bench();
    bench.put("a", {}, "idle");
    await bench.ask();
    bench.answers.set("a", "unknown");
    await bench.ask();
    expect(bench.state("a")).toBe("unknown");
  });

  test.each<[string, PodOptions]>([
    ["is still starting", { state: { waiting: { reason: "ContainerCreating" } }, ready: false }],
    ["cannot pull its image", { state: { waiting: { reason: "ImagePullBackOff" } }, ready: false }],
    ["is in a crash loop", { state: { waiting: { reason: "CrashLoopBackOff" } }, restarts: 3, ready: false }],
  ])("is idle, without a probe, for a worker that %s", async (_what, options) => {
    using bench = new Bench();
    bench.put("a", options, "busy");
    await bench.ask();
    expect({ state: bench.state("a"), asked: bench.asked }).toEqual({ state: "idle", asked: 0 });
  });

  test("is unknown after a restart", async () => {
    using bench = new Bench();
    bench.put("a", {}, "idle");
    await bench.ask();
    bench.put("a", { restarts: 1 });
    expect(bench.state("a")).toBe("unknown");
  });

  test("is unknown without an address", async () => {
    using bench = new Bench();
    bench.put("a", { ip: null });
    await bench.ask();
    expect({ state: bench.state("a"), asked: bench.asked }).toEqual({ state: "unknown", asked: 0 });
  });

  test("needs no probes if the spec has none", async () => {
    using bench = new Bench({});
    bench.put("a", {}, "idle");
    bench.start();
    await bench.clock.advance(10 * ROUND_MS);
    expect({ asked: bench.asked, isProbed: bench.watch.isProbed }).toEqual({ asked: 0, isProbed: false });
  });
});

describe("marks", () => {
  test("marks a busy worker once, and removes the mark when it is idle", async () => {
    using bench = new Bench();
    bench.put("a", {}, "busy");
    bench.put("b", {}, "idle");
    bench.start();
    await bench.clock.advance(5 * ROUND_MS);
    expect([bench.cost("a"), bench.cost("b")]).toEqual([BUSY_COST, undefined]);
    expect(bench.pods.get("a")?.metadata.annotations).toMatchObject({
      "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
      "karpenter.sh/do-not-disrupt": "true",
    });
    expect(bench.kube.calls).toHaveLength(1);
    bench.answers.set("a", "idle");
    await bench.clock.advance(3 * ROUND_MS);
    expect(Object.keys(bench.pods.get("a")?.metadata.annotations ?? {})).toEqual(["berth.dev/session-container"]);
    expect(bench.kube.calls).toHaveLength(2);
  });

  test("keeps the mark of a worker that no longer answers", async () => {
    using bench = new Bench();
    bench.put("a", {}, "busy");
    bench.start();
    await bench.clock.advance(2 * ROUND_MS);
    bench.answers.set("a", "unknown");
    await bench.clock.advance(20 * ROUND_MS);
    expect([bench.state("a"), bench.cost("a")]).toEqual(["unknown", BUSY_COST]);
  });

  test("a worker that turns out to be busy while its Pod is deleted keeps its node until it has finished", async () => {
    using bench = new Bench();
    bench.put("a", { cost: "-1000", ending: true }, "busy");
    bench.start();
    await bench.clock.advance(2 * ROUND_MS);
    expect(bench.pods.get("a")?.metadata.annotations).toMatchObject({
      "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
      "karpenter.sh/do-not-disrupt": "true",
    });
  });

  test("keeps the template's eviction annotations", async () => {
    const annotations = { "cluster-autoscaler.kubernetes.io/safe-to-evict": "true" };
    using bench = new Bench({ busyProbe: PROBE, template: podTemplate(), ...templateWith(annotations) });
    bench.put("a", {}, "busy");
    bench.start();
    await bench.clock.advance(2 * ROUND_MS);
    expect(Object.keys(bench.pods.get("a")?.metadata.annotations ?? {})).not.toContain(
      "cluster-autoscaler.kubernetes.io/safe-to-evict",
    );
  });

  test("continues if a Pod is deleted meanwhile", async () => {
    using bench = new Bench();
    bench.put("a", {}, "busy");
    bench.put("b", {}, "busy");
    bench.kube.answer(({ ref }) => (ref.name === "a" ? notFound("pods", "a") : podOf("b", { cost: BUSY_COST })));
    bench.start();
    await bench.clock.advance(ROUND_MS);
    expect(bench.kube.calls.map(({ ref }) => ref.name)).toContain("b");
  });
});

const templateWith = (annotations: Json): Json => ({ template: { ...podTemplate(), metadata: { annotations } } });

describe("workers that end", () => {
  const KILLED = { terminated: { exitCode: 137 } };
  const BUSY_END: [string, (bench: Bench) => void][] = [
    ["exits at SIGTERM", (bench) => bench.put("a", { ending: true, state: { terminated: { exitCode: 0 } } })],
    ["is killed at the end of its grace period", (bench) => bench.put("a", { ending: true, state: KILLED })],
    ["is gone", (bench) => void bench.pods.delete("a")],
    ["has failed", (bench) => bench.put("a", { phase: "Failed", state: { terminated: { exitCode: 137 } } })],
    ["has ended on its own", (bench) => bench.put("a", { state: { terminated: { exitCode: 0 } }, ready: false })],
    ["was restarted", (bench) => bench.put("a", { restarts: 1 })],
    ["is another Pod of the same name", (bench) => bench.put("a", { uid: "another" })],
  ];

  test.each(BUSY_END)("counts a busy one once that %s", async (_how, end) => {
    using bench = new Bench();
    bench.put("a", {}, "busy");
    await bench.ask();
    bench.observe();
    expect(await bench.ended()).toBe(0);
    end(bench);
    bench.observe();
    bench.observe();
    bench.pods.delete("a");
    bench.observe();
    expect(await bench.ended()).toBe(1);
    expect(bench.events).toEqual(["WorkerEndedWhileBusy: worker a was busy when it ended: for a test"]);
  });

  test.each(BUSY_END)("does not count an idle one that %s", async (_how, end) => {
    using bench = new Bench();
    bench.put("a", {}, "idle");
    await bench.ask();
    end(bench);
    bench.observe();
    expect(await bench.ended()).toBe(0);
  });

  test("does not count one that was idle again before its end", async () => {
    using bench = new Bench();
    bench.put("a", {}, "busy");
    await bench.ask();
    bench.answers.set("a", "idle");
    await bench.ask();
    bench.pods.delete("a");
    bench.observe();
    expect(await bench.ended()).toBe(0);
  });

  test.each([
    ["finishes its session after SIGTERM", 0, 0],
    ["does so with an error", 1, 1],
    ["is killed before", 137, 1],
  ])("counts one that goes on after its Pod was deleted by how it ends: it %s", async (_how, exitCode, count) => {
    using bench = new Bench();
    bench.put("a", {}, "busy");
    await bench.ask();
    bench.put("a", { ending: true });
    bench.observe();
    await bench.ask();
    expect(await bench.ended()).toBe(0);
    bench.put("a", { ending: true, state: { terminated: { exitCode } } });
    for (const pod of bench.read()) bench.watch.noteFinished(pod);
    bench.pods.delete("a");
    bench.observe();
    expect(await bench.ended()).toBe(count);
  });

  test("counts one whose last answer was busy long ago", async () => {
    using bench = new Bench();
    bench.put("a", {}, "busy");
    await bench.ask();
    bench.observe();
    bench.answers.set("a", "unknown");
    await bench.clock.advance(10 * ROUND_MS);
    await bench.ask();
    bench.pods.delete("a");
    bench.observe();
    expect(await bench.ended()).toBe(1);
  });

  test("does not count one that the cache does not show yet", async () => {
    using bench = new Bench();
    bench.put("a", {}, "busy");
    const live = bench.read();
    const pod = bench.pods.get("a");
    bench.pods.clear();
    await bench.watch.ask(live, new AbortController().signal);
    bench.observe();
    expect(await bench.ended()).toBe(0);
    if (pod) bench.pods.set("a", pod);
    bench.observe();
    bench.pods.clear();
    bench.observe();
    expect(await bench.ended()).toBe(1);
  });

  test("counts a second busy end of the same Pod", async () => {
    using bench = new Bench();
    bench.put("a", {}, "busy");
    await bench.ask();
    bench.put("a", { restarts: 1 });
    bench.observe();
    await bench.ask();
    bench.put("a", { restarts: 2 });
    bench.observe();
    expect(await bench.ended()).toBe(2);
  });
});

test("limits the probes in flight", async () => {
  let running = 0;
  let most = 0;
  const done: number[] = [];
  await forEachAtMost(3, [1, 2, 3, 4, 5, 6, 7], async (item) => {
    running += 1;
    most = Math.max(most, running);
    await Promise.resolve();
    running -= 1;
    done.push(item);
  });
  expect({ most, done }).toEqual({ most: 3, done: [1, 2, 3, 4, 5, 6, 7] });
});

test("marks a worker by its uid", async () => {
  const kube = new FakeKube(() => podOf("a", { cost: BUSY_COST }));
  const environment = () => ({ spec: { workers: { template: {} } } });
  const context = { namespace: "agents", kube: kube.client, points: NO_POINTS, environment };
  const watch = new BusyWatch({
    context: context as unknown as WorkersContext,
    prober: async () => "unknown",
    pods: () => [],
    onChange: () => {},
  });
  expect(await watch.mark(readWorkerPod(podOf("a")), BUSY_COST)).toBe(BUSY_COST);
  expect(kube.calls).toMatchObject([{ verb: "patch", body: { metadata: { uid: "uid-a" } } }]);
});
