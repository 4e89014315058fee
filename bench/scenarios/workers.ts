import { setTimeout as pause } from "node:timers/promises";
import { seededRandom } from "../../simulator/ids.ts";
import type { ItemRecord } from "../../simulator/item.ts";
import { realClock } from "../../src/core/clock.ts";
import { DEPLOYMENTS, type Deployment, PODS, type Pod } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { Informer } from "../../src/watch/informer.ts";
import { quantiles } from "../report/distribution.ts";
import { linePlot, type Series } from "../report/plot.ts";
import type { Context, Findings, Scenario } from "../scenario.ts";
import { type Served, Stand } from "../support/stand.ts";

interface Load {
  readonly items: number;
  readonly overSeconds: number;
  readonly busySeconds: { readonly min: number; readonly max: number };
  /** Scale-down doesn't remember longer than this. */
  readonly windowSeconds: number;
  readonly periodSeconds: number;
}

const WHOLE: Load = {
  items: 200,
  overSeconds: 60,
  busySeconds: { min: 15, max: 120 },
  windowSeconds: 30,
  periodSeconds: 15,
};
const QUICK: Load = {
  items: 8,
  overSeconds: 4,
  busySeconds: { min: 1, max: 3 },
  windowSeconds: 2,
  periodSeconds: 1,
};

const SECOND_MS = 1_000;
const BUSY_PORT = 9000;
/** If an item stopped this shortly before its worker was seen to be told to end, the end may have caused the stop. */
const JUST_BEFORE_MS = 100;
/** Much longer than the whole scenario takes. */
const PATIENCE_MS = 30 * 60 * SECOND_MS;

export const workers: Scenario = {
  name: "workers",
  title: "Always-on workers",
  about:
    "Always-on workers scale up from zero and back to zero. Sessions arrive at random times, and each keeps its " +
    "worker busy for a random time. The workers are simulated and have a `busyProbe`. Scale-up has no pace, the " +
    "default. Scale-down has a shorter window, so that the plot shows it. The gates are two counts, not a time: no " +
    "busy worker is ended, and no session is served twice.",
  run,
};

async function run({ options, log }: Context): Promise<Findings> {
  const load = options.quick ? QUICK : WHOLE;
  await using stand = await Stand.start();
  const workMs = { min: load.busySeconds.min * SECOND_MS, max: load.busySeconds.max * SECOND_MS };
  await stand.node({ seed: options.seed, fates: () => ({ kind: "poller", workMs, busyPort: BUSY_PORT }) });
  const simulator = await stand.simulator();
  const { id: environmentId } = simulator.createEnvironment();
  const served: Served = { namespace: await stand.namespace("workers"), name: "bench", simulator, environmentId };
  await using fleet = new WatchedFleet(stand, served);
  await stand.environment(served, specOf(load));
  const flags = ["--leader-elect=false", "--namespace", served.namespace];
  const operator = await stand.operator(simulator.url, flags);

  const random = seededRandom(options.seed);
  const atSeconds = Array.from({ length: load.items }, () => random() * load.overSeconds).toSorted((a, b) => a - b);
  const arrivals = simulator.arrivals(environmentId, { kind: "replay", atSeconds });
  const samples = await follow(served, fleet, load, log);
  await arrivals.done;
  const counted = await endedWhileBusy(operator.addresses.metrics);
  await operator.stop();
  simulator.assertNoViolations();

  const items = simulator.items(environmentId);
  const twice = items.filter(({ acks }) => acks.length !== 1).length;
  const { p50, p90, max } = quantiles(items.map((item) => (item.acknowledgedAt ?? Number.NaN) - item.createdAt));
  const most = (value: (sample: Sample) => number) => Math.max(...samples.map(value));
  const line = (name: string, value: (sample: Sample) => number): Series => ({
    name,
    points: samples.map((sample) => ({ x: sample.seconds, y: value(sample) })),
  });
  const plot = await linePlot(
    {
      name: "scale",
      title: `${load.items} sessions, busy for ${load.busySeconds.min} to ${load.busySeconds.max} s each (seed ${options.seed})`,
      x: { title: "seconds" },
      y: { title: "count" },
      isStepped: true,
    },
    [
      line("sessions waiting or running", ({ unsettled }) => unsettled),
      line("workers requested", ({ replicas }) => replicas),
      line("workers busy", ({ busy }) => busy),
    ],
  );
  return {
    tables: [
      {
        title: "From zero and back to zero",
        columns: ["", ""],
        rows: [
          ["sessions served", items.length],
          ["until the last worker was deleted, seconds", samples.at(-1)?.seconds ?? 0],
          ["most workers", most(({ replicas }) => replicas)],
          ["most busy workers", most(({ busy }) => busy)],
          ["queued to acknowledged, p50, seconds", p50 / SECOND_MS],
          ["p90", p90 / SECOND_MS],
          ["max", max / SECOND_MS],
        ],
      },
    ],
    gates: [
      { name: "busy workers that were ended", value: fleet.endedBusy, atMost: 0, unit: "" },
      { name: "the same, by berth_worker_ended_while_busy_total", value: counted, atMost: 0, unit: "" },
      { name: "sessions not served exactly once", value: twice, atMost: 0, unit: "" },
    ],
    plots: [plot],
  };
}

function specOf({ items, windowSeconds, periodSeconds }: Load) {
  const policies = [{ type: "Percent", value: 50, periodSeconds }];
  return {
    workers: {
      maxReplicas: items,
      behavior: { scaleDown: { stabilizationWindowSeconds: windowSeconds, policies } },
      busyProbe: { httpGet: { path: "/busy", port: BUSY_PORT } },
      template: {
        spec: { terminationGracePeriodSeconds: 5, containers: [{ name: "worker", image: "worker:1" }] },
      },
    },
  };
}

interface Sample {
  readonly seconds: number;
  readonly unsettled: number;
  readonly replicas: number;
  readonly busy: number;
}

/** Takes one sample per second until everything is served and no worker is left. */
async function follow(
  { simulator, environmentId }: Served,
  fleet: WatchedFleet,
  { items: count }: Load,
  log: (line: string) => void,
): Promise<Sample[]> {
  const fromMs = performance.now();
  const samples: Sample[] = [];
  for (;;) {
    const seconds = (performance.now() - fromMs) / SECOND_MS;
    const items = simulator.items(environmentId);
    const isStopped = ({ state }: ItemRecord) => state === "stopped";
    const stopped = items.filter(isStopped).length;
    const { replicas, pods } = fleet;
    const busy = items.filter((item) => !isStopped(item) && item.acks.length > 0).length;
    samples.push({ seconds, unsettled: items.length - stopped, replicas, busy });
    if (stopped === count && replicas === 0 && pods === 0) return samples;
    if (samples.length % 60 === 0) log(`${stopped} of ${count} served, ${replicas} workers, ${busy} busy`);
    if (seconds * SECOND_MS > PATIENCE_MS) {
      throw new Error(`${stopped} of ${count} items served, ${replicas} replicas left`);
    }
    await pause(SECOND_MS);
  }
}

/** The Deployments and Pods of a namespace, and the number of workers that were ended while they were busy. */
class WatchedFleet implements AsyncDisposable {
  /** Workers that were told to end while they held an item. */
  endedBusy = 0;
  readonly #told = new Set<string>();
  readonly #pods: Informer<Pod>;
  readonly #deployments: Informer<Deployment>;
  readonly #watching = new AbortController();
  readonly #running: readonly Promise<void>[];

  constructor({ kube }: Stand, { namespace, simulator, environmentId }: Served) {
    const common = { client: kube, namespace, clock: realClock, logger: silentLogger };
    this.#pods = new Informer<Pod>({ ...common, resource: PODS });
    this.#deployments = new Informer<Deployment>({ ...common, resource: DEPLOYMENTS });
    this.#pods.subscribe(({ type, object: { metadata } }) => {
      const uid = metadata.uid ?? "";
      if (this.#told.has(uid) || (type !== "deleted" && metadata.deletionTimestamp === undefined)) return;
      this.#told.add(uid);
      // A worker that is told to end stops its item at once, so an item that stopped just before counts as held.
      const sinceMs = Date.now() - JUST_BEFORE_MS;
      const isOwn = ({ acks }: ItemRecord) => acks.at(-1)?.workerId === metadata.name;
      const isHeld = ({ stoppedAt }: ItemRecord) => stoppedAt === undefined || stoppedAt > sinceMs;
      if (simulator.items(environmentId).some((item) => isOwn(item) && isHeld(item))) this.endedBusy += 1;
    });
    this.#running = [this.#pods.run(this.#watching.signal), this.#deployments.run(this.#watching.signal)];
  }

  get replicas(): number {
    return this.#deployments.list().reduce((sum, { spec }) => sum + (spec.replicas ?? 1), 0);
  }

  get pods(): number {
    return this.#pods.list().length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#watching.abort();
    await Promise.all(this.#running);
  }
}

/** Reads `berth_worker_ended_while_busy_total`, summed over all Environments. */
async function endedWhileBusy(address: string | undefined): Promise<number> {
  const text = await (await fetch(`http://${address}/metrics`)).text();
  const lines = text.split("\n").filter((line) => line.startsWith("berth_worker_ended_while_busy_total"));
  return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}
