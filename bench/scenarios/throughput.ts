import type { AuditEntry } from "../../testbed/cluster/audit.ts";
import { OPERATOR } from "../../testbed/cluster/users.ts";
import { quantiles } from "../report/distribution.ts";
import type { Cell, Context, Findings, Scenario } from "../scenario.ts";
import { parkPods } from "../support/bare.ts";
import { acknowledgeMany, RawWriter } from "../support/raw.ts";
import { type Served, Stand } from "../support/stand.ts";
import { Touches } from "../support/touches.ts";
import { untilServed } from "../support/until-served.ts";

const SHARE_AT_LEAST = 0.8;
const WORK_MS = 1_000;
/** The duration of a session after the touch: its container starts and works, and its node reports the end. */
const SESSION_MS = 3_000;
const PATIENCE_MS = 240_000;
const RAW = "raw";
const WRITES = new Set(["create", "update", "patch", "delete"]);
const LEASES = "leases";
/** More than any organization allows, so that the cluster is the limit. */
const BUDGET = { initialRate: 2_000, maxRate: 2_000 };
const NODE_PODS = 5_000;
const SECOND_MS = 1_000;

export const throughput: Scenario = {
  name: "throughput",
  title: "Throughput",
  about:
    "Items per second in one Environment, with a queue that is never empty. Each item is claimed and served, its Pod " +
    "is replaced, and the finished Pod is deleted. The limit is the rate of the raw writes. A process only sends the " +
    "same writes for the same number of sessions, with Berth's average number of requests in flight. Both use the " +
    "same API server and node, whose workers hold and stop their items. Items of the raw writes are acknowledged " +
    "before. Each process serves some items before the measurement. Berth's request budget is raised, because the " +
    "platform's documented limit would be the limit otherwise. The best round of each is compared, because the speed " +
    "of a shared machine may change within a round.",
  run,
};

interface Load {
  readonly parked: number;
  /**
   * Items that each process serves before the measurement, because code is slow when it first runs and an operator runs
   * for weeks.
   */
  readonly warmUp: number;
  readonly items: number;
  readonly rounds: number;
}

/** Berth's part of a round. */
interface Measured {
  readonly perSecond: number;
  /** From the poll's answer to the touch, in milliseconds. */
  readonly claims: readonly number[];
  readonly entries: readonly AuditEntry[];
  readonly ownBusy: number;
}

async function run({ options, log }: Context): Promise<Findings> {
  const load: Load = options.quick
    ? { parked: 50, warmUp: 25, items: 100, rounds: 1 }
    : { parked: 500, warmUp: 500, items: 1_000, rounds: 3 };
  await using stand = await Stand.start();
  await stand.node({
    seed: options.seed,
    capacity: { pods: NODE_PODS },
    fates: () => ({ kind: "worker", workMs: WORK_MS }),
  });
  const rows: Cell[][] = [];
  const claims: number[] = [];
  const rates = { berth: [] as number[], raw: [] as number[] };
  for (let round = 1; round <= load.rounds; round += 1) {
    log(`round ${round} of ${load.rounds}: ${load.items} items, ${load.parked} Pods parked`);
    const berth = await measureBerth(stand, load, round);
    const writes = writesOf(berth.entries, load.items);
    const raw = await measureRaw(stand, load, round, writes);
    claims.push(...berth.claims);
    rates.berth.push(berth.perSecond);
    rates.raw.push(raw);
    rows.push([`Berth, round ${round}`, berth.perSecond], [`raw writes, round ${round}`, raw]);
    log(`Berth ${berth.perSecond.toFixed(1)}, raw ${raw.toFixed(1)} per second; ${JSON.stringify(writes)}`);
    rows.push([`requests in flight in round ${round}, on average`, writes.lanes]);
    rows.push([`share of round ${round} in which the process of the simulator and the node was busy`, berth.ownBusy]);
  }
  const { p50, p99 } = quantiles(claims);
  rows.push(["milliseconds from polled to touched, p50", p50], ["milliseconds from polled to touched, p99", p99]);
  rows.push(["agent-sandbox's own gate, on its own machine: claims per second, p99 at most 500 ms", 75]);
  const value = Math.max(...rates.berth) / Math.max(...rates.raw);
  return {
    tables: [{ title: "Sessions per second", columns: ["", "per second"], rows }],
    gates: [
      {
        name: "sessions per second, divided by the rate of the raw writes, the best round of each",
        value,
        atLeast: SHARE_AT_LEAST,
        unit: "x",
      },
    ],
  };
}

async function measureBerth(stand: Stand, { parked, warmUp, items }: Load, round: number): Promise<Measured> {
  const namespace = await stand.namespace(`throughput-${round}`);
  const simulator = await stand.simulator();
  const { id: environmentId } = simulator.createEnvironment();
  const served: Served = { namespace, name: "bench", simulator, environmentId };
  await using touches = new Touches(stand.kube, namespace);
  await stand.environment(served, specFor(parked));
  const flags = ["--leader-elect=false", "--namespace", namespace];
  const running = await stand.operator(simulator.url, flags, [], 1, BUDGET);
  const serve = async (size: number) => {
    await simulator.arrivals(environmentId, { kind: "burst", size }).done;
    await untilServed(simulator, environmentId, PATIENCE_MS);
  };
  await touches.untilParked(parked);
  await serve(warmUp);
  const warm = new Set(simulator.items(environmentId).map(({ id }) => id));
  await touches.untilParked(parked);
  const since = await stand.cluster.audit.mark();
  const before = performance.eventLoopUtilization();
  const startedAt = Date.now();
  await serve(items);
  const ownBusy = performance.eventLoopUtilization(before).utilization;
  const entries = await stand.cluster.audit.entries({ since, namespace, user: OPERATOR });
  await running.stop();
  simulator.assertNoViolations();
  const touchedAt = (id: string) => touches.at.get(id) ?? Number.NaN;
  const all = simulator.items(environmentId).filter(({ id }) => !warm.has(id));
  const claims = all.map(({ id, offeredAt }) => touchedAt(id) - (offeredAt ?? Number.NaN));
  const endedAt = Math.max(...all.map(({ id }) => touchedAt(id)));
  await stand.empty(namespace);
  await touches.untilGone();
  return { perSecond: (items * SECOND_MS) / (endedAt - startedAt), claims, entries, ownBusy };
}

/** Derives what the raw writer must send to do the same work, and how many requests at a time. */
function writesOf(entries: readonly AuditEntry[], items: number) {
  const main = entries.filter(({ resource }) => resource !== LEASES);
  const each = (verb: string, resource: string) =>
    main.filter((entry) => entry.verb === verb && entry.resource === resource).length / items;
  const busyMs = main
    .filter(({ verb }) => WRITES.has(verb) || verb === "get")
    .reduce((total, { receivedAt, completedAt }) => total + completedAt - receivedAt, 0);
  const from = Math.min(...main.map(({ receivedAt }) => receivedAt));
  const until = Math.max(...main.map(({ completedAt }) => completedAt));
  return {
    lanes: Math.max(1, Math.ceil(busyMs / (until - from))),
    podPatches: Math.max(1, each("patch", "pods")),
    events: each("create", "events") + each("patch", "events"),
  };
}

async function measureRaw(
  stand: Stand,
  { parked, warmUp, items }: Load,
  round: number,
  writes: ReturnType<typeof writesOf>,
): Promise<number> {
  const namespace = await stand.namespace(`${RAW}-${round}`);
  const simulator = await stand.simulator();
  const { id: environmentId } = simulator.createEnvironment();
  const served: Served = { namespace, name: "bench", simulator, environmentId };
  await using touches = new Touches(stand.kube, namespace);
  const pod = await parkPods(stand, served, specFor(parked), parked, touches);
  const { operatorKubeconfig: kubeconfig } = stand.cluster;
  const about = { kubeconfig, namespace, podNames: touches.parked, pod, sessionMs: SESSION_MS };
  using writer = new RawWriter({ ...about, ...writes });
  await writer.serve(await acknowledgeMany(simulator, environmentId, warmUp));
  await touches.untilParked(parked);
  const tookMs = await writer.serve(await acknowledgeMany(simulator, environmentId, items));
  await stand.empty(namespace);
  await touches.untilGone();
  return (items * SECOND_MS) / tookMs;
}

function specFor(warm: number) {
  const template = { spec: { containers: [{ name: "worker", image: "worker:1" }] } };
  return { sessions: { maxConcurrent: 2 * warm, warm, retainEndedSeconds: 0, template } };
}
