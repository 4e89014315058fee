import type { Random } from "../../../src/core/backoff.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { OWN_PACE } from "../../support/operator-lease-pace.ts";
import type { Replica } from "./replica.ts";
import { LATE_PACE, pause, type ReplicaWorld, type ReplicaWorldOptions } from "./replica-world.ts";
import type { Passing, Treatment } from "./request-proxy.ts";
import { between, oneOf, type Scenario, scenario, seedOf } from "./scenario.ts";

/**
 * What becomes of the request at which a process is stopped. `lands`: it takes effect, and its reply waits for the
 * process. `late`: it takes effect only after another process leads. `lost`: it never takes effect.
 */
type Effect = "lands" | "late" | "lost";

interface Moment {
  /** Whether this is the request, sent by the leader. */
  readonly at: string;
  readonly isIt: (passing: Passing) => boolean;
  readonly effects: readonly Effect[];
  readonly world?: ReplicaWorldOptions;
}

const call =
  (...calls: readonly string[]) =>
  (passing: Passing) =>
    calls.includes(passing.call);

/**
 * Workers that die silently, so that the operator fences and stops their items. The operator runs at almost the real
 * pace, because it must see an unchanged value, and leases outlast a pause before that.
 */
const SILENT_DEATHS: ReplicaWorldOptions = {
  ...OWN_PACE,
  simulator: { limits: { ttlSeconds: 300 } },
  fates: () => ({ kind: "worker", workMs: { min: 100, max: 500 }, end: "killed" }),
};

/** The Work API has no preconditions that would reject late requests, so its requests take effect at once or never. */
const AT_ONCE = ["lands", "lost"] as const;
const ANY = ["lands", "late", "lost"] as const;

const MOMENTS: readonly Moment[] = [
  { at: "a renewal of its Lease", isIt: call("update leases"), effects: ["lands", "late"] },
  { at: "preparing a Pod", isIt: call("create pods"), effects: ANY },
  { at: "the poll", isIt: call("poll"), effects: ["lands"] },
  { at: "the journal", isIt: call("create secrets"), effects: ANY },
  { at: "the acknowledgement", isIt: call("ack"), effects: AT_ONCE },
  { at: "the opening", isIt: call("patch secrets"), effects: ANY },
  { at: "the touch of the Pod", isIt: call("patch pods"), effects: ANY },
  { at: "the fencing heartbeat", isIt: call("heartbeat"), effects: AT_ONCE, world: SILENT_DEATHS },
  { at: "the stop", isIt: call("stop"), effects: AT_ONCE, world: SILENT_DEATHS },
  { at: "the deletion of the claim's Secret", isIt: call("delete secrets"), effects: ANY },
  { at: "the deletion of the Pod", isIt: call("delete pods"), effects: ANY },
  { at: "the status", isIt: call("patch environments/status", "update environments/status"), effects: ["late"] },
];

/** Under `lease: Operator` the leader's own heartbeats are moments too. */
const OPERATOR_MOMENTS: readonly Moment[] = [
  { at: "the journal", isIt: call("create secrets"), effects: ANY },
  { at: "the acknowledgement", isIt: call("ack"), effects: AT_ONCE },
  { at: "a heartbeat", isIt: call("heartbeat"), effects: AT_ONCE },
  { at: "the opening", isIt: call("patch secrets"), effects: ANY },
  { at: "the stop", isIt: call("stop"), effects: AT_ONCE },
];

/**
 * Stops the process when it sends such a request. Resolves once it is stopped; `release` lets a late request through.
 */
function stopAt(world: ReplicaWorld, leader: Replica, { isIt }: Pick<Moment, "isIt">, effect: Effect) {
  const stopped = Promise.withResolvers<void>();
  const landing = Promise.withResolvers<void>();
  let struck = false;
  const rule = (passing: Passing): Treatment | undefined => {
    if (struck || !leader.is(passing) || !isIt(passing)) return undefined;
    struck = true;
    leader.process.signal("SIGSTOP");
    stopped.resolve();
    if (effect === "lost") return { before: "reset" };
    return effect === "late" ? { before: landing.promise } : {};
  };
  world.kube.rule(rule);
  world.work.rule(rule);
  return { stopped: stopped.promise, release: landing.resolve };
}

async function pausedAt(world: ReplicaWorld, { isIt }: Moment, effect: Effect, ratePerSecond: number, random: Random) {
  const leader = await world.replica();
  await world.untilHeldBy(leader);
  const other = await world.replica();
  world.load({ ratePerSecond, durationSeconds: 30, seed: seedOf(random) });
  await world.untilServing(leader);
  // A random position in the stream of its requests, not always the first one.
  await pause(between(random, 0, 2_000));
  const { stopped, release } = stopAt(world, leader, { isIt }, effect);
  await world.until("it is stopped", () => Promise.race([stopped.then(() => true), pause(100).then(() => false)]));

  await world.untilHeldBy(other);
  await world.untilClaiming(other);
  const landsFirst = random() < 0.5;
  if (landsFirst) release();
  await pause(between(random, 0, 1_000));
  const silent = world.expectSilent(leader);
  leader.process.signal("SIGCONT");
  if (!landsFirst) release();
  await silent;
  // The replica works as before: it leads again when the other one ends.
  const end = oneOf(random, "kill", "stop", "stays" as const);
  if (end === "kill") await other.process.kill();
  if (end === "stop") await other.process.stop();
  if (end !== "stays") await world.untilHeldBy(leader);
}

/** These moments are part of every run; all others are part of the long one. */
const IN_CI = new Set(["a renewal of its Lease: late", "the journal: late", "the opening: late"]);

function pauseOf(moment: Moment, effect: Effect, options: ReplicaWorldOptions, inCi: boolean): Scenario {
  const ofOperator = options.lease === "Operator";
  return scenario({
    name: `${ofOperator ? "lease: Operator: " : ""}a leader is stopped at ${moment.at}, which ${SAID[effect]}, and wakes up while another one leads`,
    long: !inCi,
    world: { ...options, ...(effect === "late" && !ofOperator && LATE_PACE), ...moment.world },
    act: (world, random) => pausedAt(world, moment, effect, ofOperator ? 0.3 : 0.7, random),
  });
}

const SAID: Readonly<Record<Effect, string>> = {
  lands: "takes effect",
  late: "lands after the other one took over",
  lost: "is lost",
};

const idle = scenario({
  name: "a leader of an idle queue is stopped, and wakes up while another one leads",
  async act(world, random) {
    const leader = await world.replica();
    await world.untilHeldBy(leader);
    const other = await world.replica();
    await world.world.untilParked(2);
    leader.process.signal("SIGSTOP");
    await world.untilHeldBy(other);
    world.load({ ratePerSecond: 1, durationSeconds: 10, seed: seedOf(random) });
    await world.untilClaiming(other);
    const silent = world.expectSilent(leader);
    leader.process.signal("SIGCONT");
    await silent;
  },
});

const draining = scenario({
  name: "a leader is stopped while it drains a deleted Environment, and wakes up when another one has drained it",
  world: { fates: () => ({ kind: "worker", end: "hang" }), spec: { deletionGraceSeconds: 3 } },
  async act(world, random) {
    const leader = await world.replica();
    await world.untilHeldBy(leader);
    const other = await world.replica();
    const [name = "", id = ""] = [...world.many.ids][0] ?? [];
    for (let item = 0; item < 3; item += 1) world.world.simulator.enqueue(id);
    await world.until("all run", () => world.many.items.every(({ state }) => state === "active"));
    const isIt = call(oneOf(random, "delete pods", "delete secrets", "patch environments"));
    const { stopped, release } = stopAt(world, leader, { isIt }, oneOf(random, ...ANY));
    await world.world.kube.delete(ENVIRONMENTS, { namespace: world.world.namespace, name });
    await world.until("it is stopped", () => Promise.race([stopped.then(() => true), pause(100).then(() => false)]));
    await world.untilHeldBy(other);
    await world.until("the other one has drained it", async () => {
      const { items } = await world.world.kube.list(ENVIRONMENTS, { namespace: world.world.namespace });
      return items.length === 0;
    });
    release();
    const silent = world.expectSilent(leader);
    leader.process.signal("SIGCONT");
    await silent;
    world.expectServedOnce();
    world.many.ids.delete(name);
  },
});

const shards = scenario({
  name: "a holder of shards is stopped again and again, and wakes up to fewer of them",
  long: true,
  world: { shards: 4, environments: 4 },
  async act(world, random) {
    const replicas = [await world.replica(), await world.replica(), await world.replica()] as const;
    await world.untilHeldBy(...replicas);
    world.load({ ratePerSecond: 0.5, durationSeconds: 150, seed: seedOf(random) });
    for (let round = 0; round < 3; round += 1) {
      const stopped = oneOf(random, ...replicas);
      await pause(between(random, 0, 5_000));
      stopped.process.signal("SIGSTOP");
      await world.untilHeldBy(...replicas.filter((one) => one !== stopped));
      const silent = world.expectSilent(stopped);
      stopped.process.signal("SIGCONT");
      await silent;
      await world.untilHeldBy(...replicas);
    }
  },
});

export const PAUSES: readonly Scenario[] = [
  idle,
  draining,
  shards,
  ...MOMENTS.flatMap((moment) =>
    moment.effects.map((effect) => pauseOf(moment, effect, {}, IN_CI.has(`${moment.at}: ${effect}`))),
  ),
  ...OPERATOR_MOMENTS.flatMap((moment) =>
    moment.effects.map((effect) =>
      pauseOf(moment, effect, { lease: "Operator" }, moment.at === "a heartbeat" && effect === "lands"),
    ),
  ),
];
