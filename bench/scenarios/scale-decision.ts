import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { seededRandom } from "../../simulator/ids.ts";
import type { Simulator } from "../../simulator/simulator.ts";
import { LABEL_ENVIRONMENT } from "../../src/api/names.ts";
import { realClock } from "../../src/core/clock.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { DEPLOYMENTS, type Deployment } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { Informer } from "../../src/watch/informer.ts";
import { quantiles } from "../report/distribution.ts";
import { linePlot, shares } from "../report/plot.ts";
import type { Cell, Context, Findings, Scenario } from "../scenario.ts";
import type { BareScalerInput } from "../support/bare-scaler.ts";
import { OwnRequests } from "../support/requests.ts";
import { type Served, Stand } from "../support/stand.ts";

/** A queue that went from empty to ITEMS items at once. Times are in milliseconds. */
interface Decision {
  /** From the step to a Deployment that requests all workers. */
  readonly scaledMs: number;
  /** The part of that time after the operator requested the first reading that could show the step. */
  readonly decidedMs: number;
  /** The number of times the queue was read between the step and the Deployment. */
  readonly readings: number;
}

const ITEMS = 100;
/** Few Pods, because otherwise creating them would dominate the measurement. The scaler doesn't influence that. */
const SESSIONS_PER_REPLICA = 10;
const REPLICAS = ITEMS / SESSIONS_PER_REPLICA;
/** Spread the steps over two pauses between readings, so that they cover every moment of a pause. */
const SPREAD_S = (2 * DEFAULT_TIMING.statsIdleMs) / 1_000;
const PATIENCE_MS = 120_000;
const DECIDED_AT_MOST = 3;
const READINGS_AT_MOST = 2;
/** The finalizer (a read and a patch), the Deployment, and the status updates as the queue fills. */
const REQUESTS_AT_MOST = 6;

const SPEC = {
  workers: {
    maxReplicas: REPLICAS,
    sessionsPerReplica: SESSIONS_PER_REPLICA,
    template: { spec: { containers: [{ name: "worker", image: "worker:1" }] } },
  },
};

export const scaleDecision: Scenario = {
  name: "scale-decision",
  title: "Scale decision",
  about:
    `Always-on workers: ${ITEMS} items arrive at once in an empty queue. The time ends when the Deployment requests all ` +
    "workers that they need. Each of many idle Environments has one such step. The limit is a bare loop, in a " +
    "separate process over the same libraries. It reads statistics at the same pace, and sends the same calls in the " +
    "same order once they show work. Most of the time is the wait for the next reading, which the request budget " +
    "sets. The rest is the decision.",
  run,
};

async function run({ options, log }: Context): Promise<Findings> {
  const queues = options.quick ? 4 : 30;
  await using stand = await Stand.start();
  const bare = await measure(stand, queues, options.seed, "bare");
  log(`bare loop: ${bare.decisions.length} steps`);
  const berth = await measure(stand, queues, options.seed, "berth");
  log(`Berth: ${berth.decisions.length} steps`);
  const row = (name: string, { decisions }: Measured, value: (decision: Decision) => number): Cell[] => {
    const { p50, p90, max } = quantiles(decisions.map(value));
    return [name, decisions.length, p50, p90, max];
  };
  const scaled = ({ scaledMs }: Decision) => scaledMs;
  const decided = ({ decidedMs }: Decision) => decidedMs;
  const middle = ({ decisions }: Measured, value: (decision: Decision) => number) =>
    quantiles(decisions.map(value)).p50;
  const perStep = berth.requests.total / queues;
  const axes = { x: { title: "milliseconds from the step to the Deployment" }, y: { title: "share of the steps" } };
  const series = [shares("bare loop", bare.decisions.map(scaled)), shares("Berth", berth.decisions.map(scaled))];
  return {
    tables: [
      {
        title: "Scale decision",
        columns: ["milliseconds", "steps", "p50", "p90", "max"],
        rows: [
          row("bare loop: step to Deployment", bare, scaled),
          row("Berth: step to Deployment", berth, scaled),
          row("bare loop: reading to Deployment", bare, decided),
          row("Berth: reading to Deployment", berth, decided),
          ["KEDA, reads every second", "", 594, "", ""],
          ["KEDA, reads every second, burst of 100", "", 13_000, "", ""],
          ["KEDA, reads every 30 s (its default)", "", 12_000, "", ""],
        ],
      },
      berth.requests.table("The operator's requests to the API server", queues),
    ],
    gates: [
      {
        name: "p50 of reading to Deployment, divided by the bare loop's",
        value: middle(berth, decided) / middle(bare, decided),
        atMost: DECIDED_AT_MOST,
        unit: "x",
      },
      {
        name: "readings from a step to its Deployment",
        value: Math.max(...berth.decisions.map(({ readings }) => readings)),
        atMost: READINGS_AT_MOST,
        unit: "",
      },
      { name: "requests to the API server per step", value: perStep, atMost: REQUESTS_AT_MOST, unit: "" },
    ],
    plots: [await linePlot({ name: "steps", title: "Step to Deployment", ...axes }, series)],
    notes: ["KEDA's figures are from another run, on a similar machine."],
  };
}

interface Measured {
  readonly decisions: readonly Decision[];
  readonly requests: OwnRequests;
}

async function measure(stand: Stand, count: number, seed: number, who: "bare" | "berth"): Promise<Measured> {
  const namespace = await stand.namespace(`scale-${who}`);
  const simulator = await stand.simulator();
  const all = Array.from({ length: count }, (_, at): Served => {
    const { id: environmentId } = simulator.createEnvironment();
    return { namespace, name: `queue-${at}`, simulator, environmentId };
  });
  for (const served of all) await stand.environment(served, SPEC);
  await using scaled = new ScaledDeployments(stand, namespace);
  const stop = await (who === "bare" ? startBare : startBerth)(stand, all);
  const readingsOf = ({ environmentId }: Served) =>
    simulator.requests(environmentId).filter(({ call }) => call === "stats");
  // The second reading shows that the queue is read at the pace of an idle queue.
  await simulator.waitFor(() => all.every((served) => readingsOf(served).length > 1), {
    what: "every queue to be read",
    timeoutMs: PATIENCE_MS,
  });
  const since = await stand.cluster.audit.mark();
  const random = seededRandom(seed);
  const arrivals = all.map(({ environmentId }) =>
    simulator.arrivals(environmentId, { kind: "replay", atSeconds: Array(ITEMS).fill(random() * SPREAD_S) }),
  );
  await Promise.all(arrivals.map(({ done }) => done));
  await scaled.until(count);
  const requests = await OwnRequests.since(stand.cluster.audit, since);
  await stop();
  simulator.assertNoViolations();
  const decisions = all.map((served) =>
    decisionOf(simulator, served, scaled.at.get(served.name) ?? 0, readingsOf(served)),
  );
  return { decisions, requests };
}

function decisionOf(
  simulator: Simulator,
  { environmentId }: Served,
  scaledAt: number,
  all: readonly { readonly at: number }[],
): Decision {
  const stepAt = Math.max(...simulator.items(environmentId).map(({ createdAt }) => createdAt));
  const readings = all.filter(({ at }) => at >= stepAt && at <= scaledAt);
  const [first] = readings;
  if (first === undefined) throw new Error(`${environmentId} was scaled without a reading`);
  return { scaledMs: scaledAt - stepAt, decidedMs: scaledAt - first.at, readings: readings.length };
}

async function startBerth(stand: Stand, all: readonly Served[]): Promise<() => Promise<void>> {
  const [first] = all;
  if (first === undefined) throw new RangeError("no queue");
  const flags = ["--leader-elect=false", "--namespace", first.namespace];
  const operator = await stand.operator(first.simulator.url, flags);
  return async () => {
    await operator.stop();
  };
}

async function startBare(stand: Stand, all: readonly Served[]): Promise<() => Promise<void>> {
  const [first] = all;
  if (first === undefined) throw new RangeError("no queue");
  const { simulator, namespace } = first;
  const input: BareScalerInput = {
    kubeconfig: stand.cluster.operatorKubeconfig,
    baseUrl: simulator.url,
    namespace,
    pauseMs: DEFAULT_TIMING.statsIdleMs,
    sessionsPerReplica: SESSIONS_PER_REPLICA,
    queues: all.map(({ name, environmentId }) => ({
      name,
      environmentId,
      key: simulator.environmentKey(environmentId),
    })),
  };
  const main = new URL("../support/bare-scaler.ts", import.meta.url).pathname;
  const child = spawn(process.execPath, [main, JSON.stringify(input)], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(child, "exit") as Promise<[number | null]>;
  await once(createInterface({ input: child.stdout }), "line");
  return async () => {
    const [code] = await ended;
    if (code !== 0) throw new Error(`the bare loop ended with ${code}`);
  };
}

/** Records through a watch when Deployments requested all workers, in the same way for every scaler. */
class ScaledDeployments implements AsyncDisposable {
  /** Milliseconds since the epoch, by Environment name. */
  readonly at = new Map<string, number>();
  readonly #watching = new AbortController();
  readonly #informer: Informer<Deployment>;
  readonly #running: Promise<void>;

  constructor({ kube }: Stand, namespace: string) {
    const common = { client: kube, namespace, clock: realClock, logger: silentLogger };
    this.#informer = new Informer<Deployment>({ ...common, resource: DEPLOYMENTS });
    this.#informer.subscribe(({ object: { metadata, spec } }) => {
      const name = metadata.labels?.[LABEL_ENVIRONMENT] ?? "";
      if (spec.replicas === REPLICAS && !this.at.has(name)) this.at.set(name, Date.now());
    });
    this.#running = this.#informer.run(this.#watching.signal);
  }

  async until(count: number): Promise<void> {
    const done = Promise.withResolvers<void>();
    const look = () => this.at.size >= count && done.resolve();
    const stop = this.#informer.subscribe(look);
    look();
    await done.promise.finally(stop);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#watching.abort();
    await this.#running;
  }
}
