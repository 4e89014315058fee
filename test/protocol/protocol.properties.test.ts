import { describe, expect, test } from "vitest";
import type { LeaseKind } from "../../src/protocol/journal.ts";
import { NO_HEARTBEAT } from "../../src/work/types.ts";
import { CI_SEED } from "../support/ci-seed.ts";
import { ItemApi, type Variant } from "./protocol-api.ts";
import { Cluster, type Program } from "./protocol-cluster.ts";
import { Operator } from "./protocol-operator.ts";
import { type Loss, NoAnswerError, Process, request, type Script, sleep, Timeline } from "./protocol-timeline.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
/** Not a whole millisecond: servers' clocks are finer than the times that they write. */
const EPOCH_MS = Date.UTC(2030, 0, 1) + 0.25;
/** Faults occur until then. Afterwards everything must settle without help. */
const FAULTS_MS = 10 * MINUTE;
/** The longest session, its grace period, a lost lease, some quiet intervals, and starting items that expire late. */
const HORIZON_MS = 90 * MINUTE;
/** The maximum of Work API requests for one claim, over all its processes: a sweep every 5 or 30 s, and some lists. */
const MOST_CALLS = 1_200;

interface Faults {
  readonly crashes: number;
  readonly rival: boolean;
  readonly lossy: boolean;
  readonly accidents: boolean;
}

/**
 * Another cluster on the same queue that follows the rules: it claims queued items, sends heartbeats, and stops or
 * dies.
 */
function* rival(timeline: Timeline, api: ItemApi): Script {
  for (;;) {
    yield* sleep(timeline.between(100, timeline.pick([1_000, 15_000])));
    if (api.state !== "queued" || api.isOffered || api.offeredToUsMs === null) continue;
    api.ack("rival");
    yield* sleep(timeline.between(300, 3_000));
    yield* rivalSession(timeline, api, api.generation);
  }
}

function* rivalSession(timeline: Timeline, api: ItemApi, generation: number): Script {
  const isMine = () => api.generation === generation;
  const servesUntilMs = timeline.nowMs + timeline.between(5_000, 300_000);
  const dies = timeline.chance(0.3);
  let expected: string = NO_HEARTBEAT;
  while (isMine()) {
    try {
      const answer = yield* request(() => (isMine() ? api.beat("rival", expected) : null), 1_500, 300);
      if (!answer || answer.kind === "refused") return;
      expected = answer.last ?? expected;
      if (timeline.nowMs >= servesUntilMs || answer.state !== "active") {
        if (!dies && isMine() && (api.holder === "rival" || answer.state === "stopping")) api.stop("rival", true);
        return;
      }
    } catch (error) {
      // A worker whose heartbeat was lost is refused at the next one, and exits.
      if (!(error instanceof NoAnswerError)) return;
    }
    yield* sleep(Math.min(api.variant.ttlMs / 2, 30_000, Math.max(100, servesUntilMs - timeline.nowMs)));
  }
}

type Stamp = Variant["stamp"];

function variantOf(timeline: Timeline, lease: LeaseKind, stamp: Stamp): Variant {
  return {
    // The operator requests a longer TTL than a worker, but the server decides.
    ttlMs: timeline.pick([(lease === "Operator" ? 180 : 90) * SECOND, 90 * SECOND, 30 * SECOND, 20 * SECOND]),
    lapse: timeline.pick(["queued", "stopped"]),
    startExpiryMs: timeline.pick([Number.POSITIVE_INFINITY, 30 * SECOND, 5 * MINUTE]),
    stopLapse: timeline.pick(["stays", "stopped"]),
    secondAck: timeline.pick(["refused", "ok"]),
    stamp,
    cameBack: stamp === "kept" || timeline.chance(0.2),
    queuedBeat: timeline.pick(["412", "other"]),
    wholeSeconds: timeline.chance(0.3),
  };
}

/** During faults, some requests are lost, and for some time all of them. */
function lossOf(timeline: Timeline, { lossy }: Faults): Loss {
  if (!lossy) return () => 0;
  const usual = timeline.pick([0.02, 0.06, 0.15]);
  const outageMs = timeline.between(0, timeline.pick([10_000, FAULTS_MS]));
  const backMs = outageMs + timeline.between(0, timeline.pick([3_000, 100_000]));
  return () => {
    if (timeline.nowMs >= FAULTS_MS) return 0;
    return timeline.nowMs >= outageMs && timeline.nowMs < backMs ? 1 : usual;
  };
}

interface World {
  readonly timeline: Timeline;
  readonly api: ItemApi;
  readonly cluster: Cluster;
  readonly operator: Operator;
}

const PROGRAMS: Record<LeaseKind, readonly Program[]> = {
  Worker: ["stock", "stock", "stock", "silent", "crashes", "hangs", "deaf"],
  Operator: ["plain", "plain", "plain", "silent", "crashes"],
};

function newWorld(seed: number, faults: Faults, stamp: Stamp = "renewed"): World {
  const timeline = new Timeline(seed);
  const lease = timeline.pick<LeaseKind>(["Worker", "Operator"]);
  const onPodFailure = timeline.pick(["Stop", "Stop", "Release"] as const);
  const variant = variantOf(timeline, lease, stamp);
  const program = timeline.pick(PROGRAMS[lease]);
  const api = new ItemApi(timeline, variant, EPOCH_MS);
  const loss = lossOf(timeline, faults);
  const cluster = new Cluster(timeline, api, loss, program, timeline.between(SECOND, 8 * MINUTE));
  const maxDurationMs = timeline.pick([100 * SECOND, 6 * MINUTE, 20 * MINUTE]);
  const workMs = timeline.pick([100, 300, 700]);
  const operator = new Operator(
    { timeline, api, cluster, loss, workMs },
    { firstBeatTimeoutMs: MINUTE, maxDurationMs, onPodFailure },
    lease,
  );
  timeline.say(
    `seed ${seed}: lease ${lease}, ${onPodFailure}, ${program}, at most ${maxDurationMs} ms, ${JSON.stringify(variant)}`,
  );
  return { timeline, api, cluster, operator };
}

function schedule({ timeline, api, cluster, operator }: World, faults: Faults): void {
  timeline.after(timeline.between(0, 3_000), () => operator.start(true));
  if (faults.rival) new Process(timeline, rival(timeline, api), () => 0);
  for (let n = 0; n < faults.crashes; n += 1) {
    // Most crashes come early, where most steps are.
    timeline.after(timeline.between(0, timeline.pick([4_000, 8_000, 120_000, FAULTS_MS])), () => {
      if (!operator.busy) return;
      operator.crash();
      timeline.after(timeline.between(100, timeline.pick([2_000, 90_000])), () => operator.start(false));
    });
  }
  if (!faults.accidents) return;
  const accidents = [
    () => cluster.end(137),
    () => cluster.delete(),
    () => cluster.loseNode(),
    () => api.stopByUser(),
    () => operator.drain(timeline.pick([0, 30_000, 600_000])),
  ];
  timeline.after(timeline.between(0, timeline.pick([5_000, 60_000, FAULTS_MS])), timeline.pick(accidents));
}

/** The errors at the end of a world. */
function run(world: World, faults: Faults): string[] {
  const { timeline, api, cluster, operator } = world;
  schedule(world, faults);
  timeline.run(() => timeline.nowMs > FAULTS_MS && !operator.busy && !cluster.secret, HORIZON_MS);
  const wrong = [...api.violations, ...operator.complaints];
  if (cluster.secret) wrong.push("L the Secret is left");
  else if (operator.busy) wrong.push("L the operator does not come to an end");
  const { state, generation, ours } = api;
  const lapses = state === "active" || (state === "stopping" && api.variant.stopLapse === "stopped");
  const live = state === "starting" || state === "active" || state === "stopping";
  // After a lost answer, our acknowledgement can't be told from another client's.
  const isLost = state !== "active" && api.variant.stamp === "kept" && (faults.lossy || faults.crashes > 0);
  if (live && !lapses && !isLost && ours !== 0 && ours === generation) wrong.push(`L the item is left ${state}`);
  if (cluster.keyPatches > 1) wrong.push("a claim is opened twice");
  if (!faults.lossy && faults.crashes === 0 && !faults.rival) {
    if (operator.losses > 0 && !faults.accidents) wrong.push(`${operator.losses} leases lost although all went well`);
    const intervalMs = Math.min(api.variant.ttlMs / 2, 30 * SECOND);
    if (api.longestGapMs > intervalMs + 2 * SECOND) wrong.push(`a heartbeat came after ${api.longestGapMs} ms`);
  }
  if (api.calls > MOST_CALLS) wrong.push(`${api.calls} requests`);
  return wrong;
}

/** Set PROTOCOL_SCHEDULES for a longer search, or PROTOCOL_SEED to replay a failure. */
const SCHEDULES = Number(process.env["PROTOCOL_SCHEDULES"] ?? 400);
const SEED = process.env["PROTOCOL_SEED"];

function seeds(): number[] {
  if (SEED !== undefined) return [Number(SEED)];
  const base = CI_SEED.seed ?? Math.floor(Math.random() * 2 ** 31);
  return Array.from({ length: SCHEDULES }, (_, n) => base + n);
}

describe("in random worlds: no stop without the lease, no second opening, and every claim and item ends", () => {
  test.each<[string, Faults]>([
    ["nothing goes wrong", { crashes: 0, rival: false, lossy: false, accidents: false }],
    ["requests and answers get lost", { crashes: 0, rival: false, lossy: true, accidents: false }],
    ["the operator restarts", { crashes: 3, rival: false, lossy: false, accidents: false }],
    ["Pods, nodes, items and the Environment are deleted", { crashes: 0, rival: false, lossy: false, accidents: true }],
    ["another cluster serves the queue", { crashes: 0, rival: true, lossy: false, accidents: true }],
    ["all of these", { crashes: 3, rival: true, lossy: true, accidents: true }],
  ])("%s", (_, faults) => {
    for (const seed of seeds()) {
      const world = newWorld(seed, faults);
      const wrong = run(world, faults);
      if (wrong.length > 0) expect.fail(`${wrong.join("; ")}\n${world.timeline.log.slice(0, 150).join("\n")}`);
    }
  });
});

describe("in random worlds on a server that keeps the first acknowledged_at, where some guarantees are weaker", () => {
  test.each<[string, Faults]>([
    ["nothing goes wrong", { crashes: 0, rival: false, lossy: false, accidents: false }],
    ["requests and answers get lost", { crashes: 0, rival: false, lossy: true, accidents: false }],
    ["the operator restarts", { crashes: 3, rival: false, lossy: false, accidents: false }],
    ["another cluster serves the queue", { crashes: 0, rival: true, lossy: false, accidents: true }],
    ["all of these", { crashes: 3, rival: true, lossy: true, accidents: true }],
  ])("%s", (_, faults) => {
    for (const seed of seeds()) {
      const world = newWorld(seed, faults, "kept");
      const wrong = run(world, faults);
      if (wrong.length > 0) expect.fail(`${wrong.join("; ")}\n${world.timeline.log.slice(0, 150).join("\n")}`);
    }
  });
});
