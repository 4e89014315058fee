import { setTimeout as pause } from "node:timers/promises";
import type { ItemRecord } from "../../simulator/item.ts";
import type { Simulator } from "../../simulator/simulator.ts";
import { PODS, type Pod } from "../../src/kube/resource.ts";
import { OPERATOR } from "../../testbed/cluster/users.ts";
import type { ServedPod } from "../../testbed/node/kubelet-server.ts";
import { sayTo } from "../node/lane.ts";
import { PodView } from "../node/pod-view.ts";
import { quantile } from "../report/distribution.ts";
import type { Cell, Context, Findings, Gate, Scenario, Table } from "../scenario.ts";
import { HEAP_OF_CHART, registerNode } from "../support/live-sessions.ts";
import { readMetrics, sumOf } from "../support/metrics-text.ts";
import { measureLoad, type ProcessLoad } from "../support/process-load.ts";
import { cpuSeconds, peakBytes } from "../support/process-status.ts";
import { createSleepyEnvironments, sleepySessions, writeSleepingPods } from "../support/sleeping-sessions.ts";
import { Stand } from "../support/stand.ts";

const MIB = 1_024 ** 2;
const KIB = 1_024;
const MEGABYTE = 1_000_000;
const SECOND_MS = 1_000;
const LOOK_MS = 100;
const PATIENCE_MS = 300_000;

const ABOUT = `Sessions that sleep in their Pods. The bench writes the Pods as an operator leaves them after a first work item, with
the status that a kubelet reports. Nothing runs in them, but their node accepts connections to them. Then the built operator
starts, and its process is measured while it is idle. Sessions of another Environment, on a simulated node, are woken before
and after that.`;

interface Load {
  readonly environments: number;
  readonly sleepingInEach: number;
  readonly idleMs: number;
  readonly asleepMs: number;
  /** The measurement begins once the operator has written nothing for this long. */
  readonly quietMs: number;
  /** Sessions that are woken without the sleeping Pods, and as many with them. */
  readonly wakes: number;
}

const FULL: Load = {
  environments: 20,
  sleepingInEach: 500,
  idleMs: 30_000,
  asleepMs: 120_000,
  quietMs: 15_000,
  wakes: 40,
};
const QUICK: Load = { environments: 2, sleepingInEach: 50, idleMs: 2_000, asleepMs: 5_000, quietMs: 6_000, wakes: 3 };

export const manySleeping: Scenario = {
  name: "many-sleeping",
  title: "Many sleeping sessions: memory, CPU and requests of the operator",
  about: ABOUT,
  run: ({ options, log }) => run(options.quick ? QUICK : FULL, log),
};

/** Sessions that come back, one at a time. */
interface Wakes {
  /** From the item's creation to its first heartbeat, in milliseconds. */
  readonly ms: readonly number[];
  /** What the API server sent to all watchers of Pods meanwhile. */
  readonly events: number;
  readonly eventBytes: number;
}

interface Measured {
  readonly idle: ProcessLoad;
  readonly asleep: ProcessLoad;
  /** Kept open to sleeping and free Pods. */
  readonly connections: number;
  readonly peakBytes: number;
  /** From the start of the process until it counts all sleeping sessions. */
  readonly startMs: number;
  readonly startCpuMs: number;
  /** Requests of the operator to the API server while nothing happened, by verb and resource. */
  readonly requests: ReadonlyMap<string, number>;
  /** The number of them that write. */
  readonly written: number;
  readonly objectBytes: number;
  readonly before: Wakes;
  readonly after: Wakes;
}

async function run(load: Load, log: Context["log"]): Promise<Findings> {
  await using things = new AsyncDisposableStack();
  const stand = things.use(await Stand.start());
  const simulator = await stand.simulator();
  let served: ServedPod | undefined;
  await registerNode(stand, things, () => served);
  const environments = Array.from({ length: load.environments }, (_, at) => `asleep-${at}`);
  const stage = { namespace: await stand.namespace("asleep"), environments, sleepingInEach: load.sleepingInEach };
  await createSleepyEnvironments(stand, simulator, stage);
  const waking = things.use(await Waking.create(stand, simulator, 2 * load.wakes));
  const start = () => stand.operator(simulator.url, ["--leader-elect=false"], HEAP_OF_CHART);

  const first = await start();
  const before = await waking.wake(load.wakes);
  const idle = await measureLoad(first.pid, pause(load.idleMs));
  await first.stop();

  const total = load.environments * load.sleepingInEach;
  const writingAt = performance.now();
  await writeSleepingPods(stand, stage);
  // The containers of all have the same names.
  const pod = await anyPod(stand, stage.namespace);
  served = { pod, container: () => ({ isRunning: true, ended: new Promise(() => {}), streams: undefined }) };
  log(`${total} sleeping Pods written in ${((performance.now() - writingAt) / SECOND_MS).toFixed(0)} s`);
  const startedAt = performance.now();
  const operator = await start();
  await untilCounted(operator.addresses.metrics, total);
  const startMs = performance.now() - startedAt;
  const startCpuMs = (await cpuSeconds(operator.pid)) * SECOND_MS;
  log(`the operator counted them ${(startMs / SECOND_MS).toFixed(1)} s after its start`);

  const { audit } = stand.cluster;
  await untilQuiet(audit, load.quietMs);
  const connections = sumOf(await readMetrics(operator.addresses.metrics), "berth_attach_streams");
  const since = await audit.mark();
  const asleep = await measureLoad(operator.pid, pause(load.asleepMs));
  const entries = await audit.entries({ since, user: OPERATOR });
  const requests = Map.groupBy(entries, ({ verb, resource, subresource }) =>
    [verb, resource, subresource].filter((part) => part !== "").join(" "),
  );
  const after = await waking.wake(load.wakes);
  const peak = await peakBytes(operator.pid);
  const objectBytes = JSON.stringify(pod).length;
  await operator.stop();
  return findings(load, {
    ...{ idle, asleep, connections, peakBytes: peak, startMs, startCpuMs, objectBytes, before, after },
    requests: new Map([...requests].map(([request, all]) => [request, all.length])),
    written: entries.filter(isWrite).length,
  });
}

async function untilCounted(address: string | undefined, total: number): Promise<void> {
  const endsAt = performance.now() + PATIENCE_MS;
  for (;;) {
    const counted = sumOf(await readMetrics(address), "berth_sessions", 'phase="sleeping"');
    if (counted >= total) return;
    if (performance.now() > endsAt) throw new Error(`the operator counted ${counted} of ${total} sleeping sessions`);
    await pause(LOOK_MS);
  }
}

/** Waits until the operator has written the statuses that follow its start. */
async function untilQuiet(audit: Stand["cluster"]["audit"], quietMs: number): Promise<void> {
  const endsAt = performance.now() + PATIENCE_MS;
  for (;;) {
    const since = await audit.mark();
    await pause(quietMs);
    const written = (await audit.entries({ since, user: OPERATOR })).filter(isWrite);
    if (written.length === 0) return;
    if (performance.now() > endsAt) throw new Error(`the operator wrote ${written.length} times in ${quietMs} ms`);
  }
}

const isWrite = ({ verb }: { readonly verb: string }) => !["get", "list", "watch"].includes(verb);

async function anyPod(stand: Stand, namespace: string): Promise<Pod> {
  const { items } = await stand.kube.list(PODS, { namespace, limit: 1 });
  const [pod] = items;
  if (!pod) throw new Error(`there is no Pod in ${namespace}`);
  return pod;
}

/** An Environment on a simulated node, whose sessions have a first item, sleep, and come back. */
class Waking implements AsyncDisposable {
  readonly #stand: Stand;
  readonly #simulator: Simulator;
  readonly #environmentId: string;
  readonly #pods: PodView;

  private constructor(stand: Stand, simulator: Simulator, environmentId: string, namespace: string) {
    this.#stand = stand;
    this.#simulator = simulator;
    this.#environmentId = environmentId;
    this.#pods = new PodView(stand.kube, namespace);
  }

  static async create(stand: Stand, simulator: Simulator, sessions: number): Promise<Waking> {
    const name = "awake";
    const namespace = await stand.namespace(name);
    const { id: environmentId } = simulator.createEnvironment();
    const { name: nodeName } = await stand.node({ name, fates: () => ({ kind: "worker", workMs: 100 }) });
    const { template, ...rest } = sleepySessions(sessions, { warm: 1 });
    const spec = { ...template.spec, nodeSelector: { "kubernetes.io/hostname": nodeName } };
    const served = { namespace, name, simulator, environmentId };
    await stand.environment(served, { sessions: { ...rest, template: { spec } } });
    return new Waking(stand, simulator, environmentId, namespace);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pods[Symbol.asyncDispose]();
  }

  /** Serves a first item to new sessions, waits until they sleep, and wakes one after the other. */
  async wake(count: number): Promise<Wakes> {
    const firsts: ItemRecord[] = [];
    while (firsts.length < count) {
      const item = this.#simulator.enqueue(this.#environmentId);
      firsts.push(item);
      await this.#pods.untilAsleep(item.id);
    }
    const from = await this.#watchEvents();
    const ms: number[] = [];
    for (const { sessionId = "" } of firsts) ms.push(await this.#wakeOne(sessionId));
    const to = await this.#watchEvents();
    return { ms, events: to.count - from.count, eventBytes: to.bytes - from.bytes };
  }

  async #wakeOne(sessionId: string): Promise<number> {
    const { id } = sayTo(this.#simulator, sessionId);
    await this.#pods.untilAsleep(id);
    const { createdAt, firstBeatAt = Number.NaN } = this.#simulator.item(id);
    return firstBeatAt - createdAt;
  }

  async #watchEvents(): Promise<{ count: number; bytes: number }> {
    const metrics = String(await this.#stand.kube.raw("GET", "/metrics")).split("\n");
    const sum = (name: string) => sumOf(metrics, name, 'resource="pods"');
    return { count: sum("apiserver_watch_events_sizes_count"), bytes: sum("apiserver_watch_events_sizes_sum") };
  }
}

function findings({ environments, sleepingInEach, wakes }: Load, measured: Measured): Findings {
  const { idle, asleep, requests, before, after } = measured;
  const total = environments * sleepingInEach;
  const perSession = (asleep.rssBytes.mean - idle.rssBytes.mean) / total;
  const [p50Before, p50After] = [quantile(before.ms, 0.5), quantile(after.ms, 0.5)];
  const wakeRow = (title: string, { ms }: Wakes): Cell[] => {
    return [title, ms.length, quantile(ms, 0.5), quantile(ms, 0.95), quantile(ms, 1)];
  };
  const tables: Table[] = [
    {
      title: "Memory of the operator's process (resident set)",
      columns: ["", "MiB"],
      rows: [
        [`${environments} Environments, ${wakes} sessions asleep`, idle.rssBytes.mean / MIB],
        [`with ${total} more asleep, mean`, asleep.rssBytes.mean / MIB],
        ["with them, maximum", asleep.rssBytes.max / MIB],
        ["maximum since its start", measured.peakBytes / MIB],
        ["per sleeping session, KiB", perSession / KIB],
        ["the object of a sleeping Pod as JSON, KiB", measured.objectBytes / KIB],
      ],
    },
    {
      title: "The operator's process",
      columns: ["", ""],
      rows: [
        ["from its start until it has counted all sleeping sessions, s", measured.startMs / SECOND_MS],
        ["CPU during that time, s", measured.startCpuMs / SECOND_MS],
        [`cores with ${wakes} sessions asleep`, idle.cores],
        [`cores with ${total} more`, asleep.cores],
        ["connections kept open then", measured.connections],
      ],
    },
    {
      title: `Requests to the API server in ${asleep.seconds.toFixed(0)} s asleep`,
      columns: ["", "requests"],
      rows: [...requests].toSorted(([, one], [, other]) => other - one).map(([request, count]) => [request, count]),
    },
    {
      title: "Wakes on a simulated node, from queued to the first heartbeat",
      columns: ["milliseconds", "wakes", "p50", "p95", "max"],
      rows: [wakeRow("without other sleeping sessions", before), wakeRow(`while ${total} others sleep`, after)],
    },
    {
      title: "Watch events of Pods per wake and the sleep after it",
      columns: ["", "events to all watchers", "KiB"],
      rows: [["per wake", after.events / after.ms.length, after.eventBytes / after.ms.length / KIB]],
    },
  ];
  const gates: Gate[] = [
    { name: "resident memory, maximum", value: asleep.rssBytes.max / MEGABYTE, atMost: 250, unit: "MB" },
    { name: "CPU while all sleep", value: asleep.cores, atMost: 0.1, unit: "cores" },
    { name: "writes to the API server while all sleep", value: measured.written, atMost: 0, unit: "requests" },
    { name: "p50 of a wake, divided by p50 without the others", value: p50After / p50Before, atMost: 1.25, unit: "x" },
  ];
  return { tables, gates };
}
