import {
  ANNOTATION_LAST_USED,
  ANNOTATION_SLEEPS_UNTIL,
  LABEL_ENVIRONMENT,
  LABEL_MANAGED_BY,
  LABEL_PHASE,
  LABEL_ROLE,
} from "../../../../src/api/names.ts";
import { PERSISTENT_VOLUME_CLAIMS, POD_DISRUPTION_BUDGETS, PODS, SECRETS } from "../../../../src/kube/resource.ts";
import { readPodState } from "../../../../src/pods/pod-state.ts";
import { endedTurn, isAsleep } from "../../../../src/pods/turns.ts";
import { readJournal } from "../../../../src/protocol/journal.ts";
import { ENVIRONMENTS } from "../../../../src/reconcile/finalizer.ts";
import type { FateInput } from "../../../../testbed/node/node.ts";
import { playWorker, SHORT_LEASE } from "../../../support/session-life.ts";
import { allowVolumes, perSession, provideVolumes, sessionVolumes } from "../../../support/session-volumes.ts";
import type { Unanswered } from "../../../support/sudden-death.ts";
import type { World, WorldOptions } from "../../../support/world.ts";
import { PATIENCE_MS } from "../../support/patience.ts";

/** The side that sends heartbeats. */
export type LeaseKind = "Worker" | "Operator";

/** What leads an operator to a point, and how it may end. */
export interface Scenario {
  readonly world: () => WorldOptions;
  /** Overrides fields of the world's default spec. */
  readonly spec?: (world: World) => Record<string, unknown>;
  /** Items that are enqueued at the start; one plain session by default. */
  readonly items?: readonly Parameters<World["simulator"]["enqueue"]>[1][];
  /** Runs before the first operator starts. */
  readonly before?: (world: World) => Promise<void>;
  /** Runs concurrently with the operators. */
  readonly meanwhile?: (world: World, died: Promise<unknown>) => Promise<void>;
  /** Runs after the first operator has died and before the next one starts. */
  readonly between?: (world: World) => Promise<void>;
  /** Answers that the dying operator does not receive. */
  readonly unanswered?: readonly Unanswered[];
  /**
   * How its items end. `served`: a container ran, and the item is stopped. `stopped`: the operator stopped it; a
   * container may have run. `returned`: it is back in the queue, because no client can stop it any more.
   */
  readonly ends: "served" | "stopped" | "returned";
  /** A further check at the end, before the Environment is deleted. */
  readonly atEnd?: (world: World) => Promise<unknown>;
}

const fate = (value: FateInput) => ({ node: { fates: () => value } });

/** A container that can wait in a shell. */
const WITH_COMMAND = { container: { command: ["worker"] } };

/** One Pod at a time; otherwise the first Pod created might not be the first one claimed. */
const ONE_POD = { maxConcurrent: 1, warm: 1 };

/** The first session container has this fate; later ones are stock workers. Needs ONE_POD. */
function firstHas(first: FateInput): Pick<WorldOptions, "node"> {
  let pod: string | undefined;
  const fates = ({ metadata }: { metadata: { uid?: string } }): FateInput => {
    pod ??= metadata.uid;
    return metadata.uid === pod ? first : { kind: "worker", workMs: 300 };
  };
  return { node: { fates } };
}

const stateIs = (world: World, state: string) => world.simulator.items().some((item) => item.state === state);

const untilActive = (world: World) => world.until("an item is active", () => stateIs(world, "active"), PATIENCE_MS);

const untilParked = (world: World) => world.until("a parked Pod", () => world.parked.length > 0, PATIENCE_MS);

const untilClaimed = (world: World, opened: boolean) =>
  world.until(
    opened ? "an opened claim" : "a claim",
    () => world.claims.find((secret) => readJournal(secret)?.opened === opened),
    PATIENCE_MS,
  );

async function budgets(world: World) {
  return (await world.kube.list(POD_DISRUPTION_BUDGETS, { namespace: world.namespace })).items;
}

/** Creates a Pod as a settled claim leaves it: marked as assigned, without a Secret. */
async function leaveBehind(world: World): Promise<void> {
  const labels = {
    [LABEL_MANAGED_BY]: "berth",
    [LABEL_ENVIRONMENT]: world.name,
    [LABEL_ROLE]: "session",
    [LABEL_PHASE]: "running",
  };
  await world.kube.create(PODS, {
    metadata: { name: "left-behind", namespace: world.namespace, labels },
    spec: {
      nodeSelector: world.nodeSelector,
      terminationGracePeriodSeconds: 1,
      containers: [{ name: "worker", image: "worker:1" }],
    },
  });
}

/**
 * Changes the claim's Secret, which no user should do, so that the operator's next request with its version is refused.
 */
async function changeRecord(world: World): Promise<void> {
  const { metadata } = await untilClaimed(world, true);
  const patch = { metadata: { annotations: { "changed-by": "somebody" } } };
  await world.kube.patch(SECRETS, { namespace: world.namespace, name: metadata.name ?? "" }, patch, { type: "merge" });
}

/** Makes the Work API fail every call that could settle a claim. */
function breakWorkApi(world: World): void {
  for (const call of ["list", "heartbeat", "stop"] as const) {
    world.simulator.inject({ kind: "status", status: 500, call });
  }
}

/**
 * For `lease: Operator`. The next operator waits until a value has been unchanged for 50 s of its own time. That must
 * be longer than a holder's heartbeat interval on the simulator's clock (half a lease). The lease must outlast that
 * wait, the interval before it, and the start of a process.
 */
const KEPT = { simulator: { limits: { ttlSeconds: 32, maxTtlSeconds: 32 } }, timeScale: 3 } as const;

/** A session with its own volume. */
const OWN_VOLUME = {
  world: () => ({}),
  before: async (world: World) => {
    await allowVolumes(world);
    // Two volumes, because only an administrator can release the volume of a deleted claim.
    await provideVolumes(world, 2);
  },
  spec: (world: World) => ({ sessions: { ...(world.spec()["sessions"] as object), ...perSession(world) } }),
  ends: "served",
} as const;

/** The session's volume once its item is stopped and it is unused. A released item leaves it unused in between. */
const untilLeft = (world: World) =>
  world.until(
    "a volume is left",
    async () => {
      if (!world.simulator.items().every(({ state }) => state === "stopped")) return undefined;
      return (await sessionVolumes(world)).find(({ metadata }) => metadata.annotations?.[ANNOTATION_LAST_USED]);
    },
    PATIENCE_MS,
  );

const sleeperThat = (sessions: Record<string, unknown> = {}): WorldOptions => ({
  ...WITH_COMMAND,
  sessions: { workspace: { type: "Pod", sleepSeconds: 600 }, ...sessions },
});

/** A session that sleeps in its Pod. */
const SLEEPER = { world: () => sleeperThat(), ends: "served" } as const;
const PROGRAM_SLEEPER = { world: () => sleeperThat({ parking: "Program" }), ends: "served" } as const;

/** One session sleeps, after this number of items in the same Pod, and can serve the next one. */
const untilAsleep = (world: World, items: number) =>
  world.until(
    `a session sleeps after ${items} items`,
    () => {
      const [pod, ...others] = world.pods.filter(isAsleep);
      const isReady = pod && endedTurn(pod) === items && readPodState(pod).is === "parked";
      return isReady && others.length === 0 ? pod : undefined;
    },
    PATIENCE_MS,
  );

/** Its next item comes while it sleeps. The operator must not die before, since the next one starts later. */
const COMES_BACK = {
  meanwhile: async (world: World) => {
    await untilAsleep(world, 1);
    const [first] = world.simulator.items();
    world.simulator.enqueue(world.environmentId, { sessionId: first?.sessionId ?? "" });
  },
  atEnd: (world: World) => untilAsleep(world, 2),
} as const;

const SESSION = {};
const ofOperator = (over: Record<string, unknown> = {}) => ({ sessions: { lease: "Operator", ...over } });

export const SCENARIOS = {
  /** lease: Worker, from the first Pod to the removal of the finalizer. */
  served: { world: () => ({}), ends: "served" },
  /** The same, and the Pod is retained for its logs long enough that the next operator finds it marked. */
  retained: { world: () => ({ sessions: { retainEndedSeconds: 5 } }), ends: "served" },
  /** parking: Shell, the default for a template with a command. */
  shell: { world: () => WITH_COMMAND, ends: "served" },
  /** parking: Program. */
  program: { world: () => ({ sessions: { parking: "Program" } }), ends: "served" },
  /** The line arrives without an answer. The program sends no heartbeat, so only its log shows that it has started. */
  "delivery-unanswered": {
    world: () => ({
      ...SHORT_LEASE,
      ...WITH_COMMAND,
      ...fate({ kind: "exit", code: 1, afterMs: 3_000 }),
    }),
    unanswered: [{ point: "session.deliver", api: "kube", phase: "after", times: 1 }],
    ends: "stopped",
  },
  /** workspace: PerSession: the operator creates a volume, then a Pod that uses it, and assigns it with its claim. */
  "own-volume": {
    ...OWN_VOLUME,
    atEnd: (world) => untilLeft(world),
  },
  /** The assignment of the volume arrives without an answer, so the volume is written again. */
  "own-volume-unanswered": {
    ...OWN_VOLUME,
    unanswered: [{ point: "workspace.assign", api: "kube", phase: "after", times: 1 }],
    atEnd: (world) => untilLeft(world),
  },
  /** The same session comes back and finds its volume. */
  "own-volume-again": {
    ...OWN_VOLUME,
    meanwhile: async (world, died) => {
      // An operator whose first acknowledgement is late claims the first item again, and finds its volume then.
      await Promise.race([untilLeft(world), died]);
      const [first] = world.simulator.items();
      world.simulator.enqueue(world.environmentId, { sessionId: first?.sessionId ?? "" });
    },
    atEnd: async (world) => {
      await untilLeft(world);
      const volumes = await sessionVolumes(world);
      if (volumes.length !== 1) throw new Error(`${volumes.length} volumes of one session`);
    },
  },
  /** The volume's retention time has passed. */
  "own-volume-expired": {
    ...OWN_VOLUME,
    meanwhile: async (world) => {
      const { metadata } = await untilLeft(world);
      const patch = { metadata: { annotations: { [ANNOTATION_LAST_USED]: "2020-01-01T00:00:00Z" } } };
      const ref = { namespace: world.namespace, name: metadata.name ?? "" };
      await world.kube.patch(PERSISTENT_VOLUME_CLAIMS, ref, patch, { type: "merge" });
    },
    atEnd: (world) => world.until("no volume", async () => (await sessionVolumes(world)).length === 0, PATIENCE_MS),
  },
  /** The session sleeps in its Pod, until the Environment is deleted. */
  slept: { ...SLEEPER, atEnd: (world) => untilAsleep(world, 1) },
  /** The same with parking: Program. */
  "program-slept": { ...PROGRAM_SLEEPER, atEnd: (world) => untilAsleep(world, 1) },
  /** The request that adds the first turn is lost without an error. */
  "turn-unanswered": {
    ...SLEEPER,
    unanswered: [{ point: "turn.add", api: "kube", phase: "before", times: 1 }],
    atEnd: (world) => untilAsleep(world, 1),
  },
  /** The sleeping session comes back, and sleeps again in the same Pod. */
  woken: { ...SLEEPER, ...COMES_BACK },
  /** The same with parking: Program: a shell starts the program of the next item. */
  "program-woken": { ...PROGRAM_SLEEPER, ...COMES_BACK },
  /** The sleep reaches its time limit. */
  "slept-out": {
    ...SLEEPER,
    meanwhile: async (world) => {
      const { metadata } = await untilAsleep(world, 1);
      const patch = { metadata: { annotations: { [ANNOTATION_SLEEPS_UNTIL]: "2020-01-01T00:00:00Z" } } };
      await world.kube.patch(PODS, { namespace: world.namespace, name: metadata.name ?? "" }, patch, { type: "merge" });
    },
    atEnd: (world) => world.until("no sleeping Pod", () => !world.pods.some(isAsleep), PATIENCE_MS),
  },
  /** The same while its next item waits, because the Environment is paused. */
  "slept-on": {
    ...SLEEPER,
    meanwhile: async (world, died) => {
      // The queue is never empty: within 10 s of an empty one, the operator would delete the Pod without reading the list.
      await untilActive(world);
      await world.patchSpec({ paused: true });
      const [first] = world.simulator.items();
      world.simulator.enqueue(world.environmentId, { sessionId: first?.sessionId ?? "" });
      const { metadata } = await untilAsleep(world, 1);
      const patch = { metadata: { annotations: { [ANNOTATION_SLEEPS_UNTIL]: new Date().toISOString() } } };
      await world.kube.patch(PODS, { namespace: world.namespace, name: metadata.name ?? "" }, patch, { type: "merge" });
      await died;
      await world.patchSpec({ paused: false });
    },
    atEnd: (world) => untilAsleep(world, 2),
  },
  /** lease: Operator; the program does not know about it. */
  kept: {
    world: () => ({ ...KEPT, ...fate({ kind: "exit", code: 0, afterMs: 5_000 }), ...ofOperator() }),
    ends: "served",
  },
  /** The same, but longer than the heartbeat interval, which is 10 s at most at this pace. */
  beaten: {
    world: () => ({ ...KEPT, ...fate({ kind: "exit", code: 0, afterMs: 20_000 }), ...ofOperator() }),
    ends: "served",
  },
  /** lease: Worker; the worker ends when its item is stopped. */
  overdue: {
    world: () => ({
      ...SHORT_LEASE,
      ...fate({ kind: "worker", end: "hang" }),
      podSpec: { terminationGracePeriodSeconds: 20 },
      sessions: { maxDurationSeconds: 6 },
    }),
    ends: "served",
  },
  /** lease: Worker; the program ignores the stop, and its Pod is deleted. */
  unheeding: {
    world: () => ({ ...SHORT_LEASE, ...fate({ kind: "run" }), sessions: { maxDurationSeconds: 6 } }),
    meanwhile: async (world) => {
      const [item] = world.simulator.items();
      if (item) await playWorker(world, item);
    },
    ends: "served",
  },
  /** lease: Operator; an overdue session is stopped, deleted and settled. */
  "overdue-kept": {
    world: () => ({ ...KEPT, ...fate({ kind: "run" }), ...ofOperator({ maxDurationSeconds: 2 }) }),
    ends: "served",
  },
  /** lease: Worker, onPodFailure: Stop; the worker dies silently while its lease is valid. */
  died: {
    world: () => ({ ...SHORT_LEASE, ...fate({ kind: "worker", workMs: 500, end: "oom" }) }),
    ends: "served",
  },
  /** The same, but before its first heartbeat. */
  unbeaten: {
    world: () => ({ ...SHORT_LEASE, ...fate({ kind: "exit", code: 1, afterMs: 300 }) }),
    ends: "stopped",
  },
  /** lease: Worker, onPodFailure: Release; it dies before a heartbeat, and its item is released and runs again. */
  released: {
    world: () => ({
      ...SHORT_LEASE,
      ...firstHas({ kind: "killed", afterMs: 300 }),
      sessions: { ...ONE_POD, onPodFailure: "Release" },
    }),
    ends: "served",
  },
  /** The same with lease: Operator. */
  "let-go": {
    world: () => ({
      ...KEPT,
      ...firstHas({ kind: "killed", afterMs: 2_000 }),
      ...ofOperator({ ...ONE_POD, onPodFailure: "Release" }),
    }),
    ends: "served",
  },
  /** The acknowledgement takes effect, and its answer is lost. */
  unanswered: {
    world: () => ({}),
    unanswered: [{ point: "claim.ack", api: "work", phase: "after", times: 1 }],
    ends: "served",
  },
  /** No acknowledgement reaches the Work API. */
  unacknowledged: {
    world: () => ({}),
    unanswered: [{ point: "claim.ack", api: "work", phase: "before" }],
    ends: "served",
  },
  /** The first acknowledgement is refused. */
  refused: {
    world: () => ({}),
    before: async (world) => {
      world.simulator.inject({ kind: "status", status: 409, call: "ack", times: 1 });
    },
    ends: "served",
  },
  "journal-unanswered": {
    world: () => ({}),
    unanswered: [{ point: "claim.journal", api: "kube", phase: "after", times: 1 }],
    ends: "served",
  },
  "opening-unanswered": {
    world: () => ({}),
    unanswered: [{ point: "session.open", api: "kube", phase: "after", times: 1 }],
    ends: "served",
  },
  /** Another client changes the claim's Secret. */
  changed: {
    world: () => fate({ kind: "worker", workMs: 3_000 }),
    meanwhile: changeRecord,
    ends: "served",
  },
  /** An item that is not a session. */
  healthcheck: { world: () => ({}), items: [{ type: "healthcheck" }], ends: "stopped" },
  /** The same, acknowledged but not stopped. */
  "half-refused": {
    world: () => ({}),
    items: [{ type: "healthcheck" }],
    unanswered: [{ point: "refuse.stop", api: "work", phase: "before", times: 1 }],
    ends: "stopped",
  },
  /** A session without a credential. */
  "no-credential": { world: () => SHORT_LEASE, items: [{ secret: false }], ends: "stopped" },
  /** Nothing to do. */
  idle: { world: () => ({}), items: [], ends: "served" },
  /** The request to create the first Pod is lost without an error. */
  uncreated: {
    world: () => ({}),
    items: [],
    unanswered: [{ point: "prepare.create-pod", api: "kube", phase: "before", times: 1 }],
    ends: "served",
  },
  /** A Pod that is not ready for a while and reports no reason. */
  slow: {
    world: () => fate({ kind: "sandbox", times: 2, message: "no network yet" }),
    items: [],
    ends: "served",
  },
  /** The template changes, and the parked Pod is replaced. */
  replaced: {
    world: () => ({}),
    items: [],
    meanwhile: async (world) => {
      await untilParked(world);
      await world.patchSpec({ sessions: { template: { metadata: { labels: { release: "next" } } } } });
    },
    atEnd: (world) =>
      world.until(
        "one free Pod of the next template",
        () => world.pods.length === 1 && world.pods[0]?.metadata.labels?.["release"] === "next",
        PATIENCE_MS,
      ),
    ends: "served",
  },
  "lock-unanswered": {
    world: () => ({}),
    items: [],
    unanswered: [{ point: "removal.lock", api: "kube", phase: "after", times: 1 }],
    meanwhile: async (world) => {
      await untilParked(world);
      await world.patchSpec({ sessions: { template: { metadata: { labels: { release: "next" } } } } });
    },
    ends: "served",
  },
  "left-behind": { world: () => fate({ kind: "run" }), items: [], before: leaveBehind, ends: "served" },
  /** disruption: Protect. */
  protected: {
    world: () => ({
      ...SHORT_LEASE,
      ...fate({ kind: "worker", workMs: 2_000 }),
      sessions: { disruption: "Protect" },
    }),
    ends: "served",
    atEnd: (world) =>
      world.until(
        "the budget asks for no Pod",
        async () => (await budgets(world)).every(({ spec }) => spec?.minAvailable === 0),
        PATIENCE_MS,
      ),
  },
  /** disruption: Protect is turned off again. */
  unprotected: {
    world: () => ({
      ...SHORT_LEASE,
      ...fate({ kind: "worker", workMs: 2_000 }),
      sessions: { disruption: "Protect" },
    }),
    meanwhile: async (world) => {
      await world.until("a budget", async () => (await budgets(world)).length > 0, PATIENCE_MS);
      await world.patchSpec({ sessions: { disruption: "Allow" } });
    },
    ends: "served",
    atEnd: (world) => world.until("no budget", async () => (await budgets(world)).length === 0, PATIENCE_MS),
  },
  /** The egress rules allow the Pods more destinations. */
  reached: {
    world: () => ({}),
    items: [],
    meanwhile: async (world) => {
      await untilParked(world);
      await world.patchSpec({ network: { egress: { cidrs: ["203.0.113.0/24"] } } });
    },
    ends: "served",
  },
  /** The network policy is removed. */
  "not-held": {
    world: () => ({}),
    items: [],
    meanwhile: async (world) => {
      await untilParked(world);
      await world.patchSpec({ network: { policy: "None" } });
    },
    ends: "served",
  },
  /** The Environment is deleted while a session runs. */
  drained: {
    world: () => ({
      ...SHORT_LEASE,
      ...fate({ kind: "worker", end: "hang" }),
      podSpec: { terminationGracePeriodSeconds: 20 },
    }),
    meanwhile: async (world) => {
      await untilActive(world);
      await world.deleteEnvironment();
    },
    ends: "served",
  },
  /** The same with lease: Operator, where only SIGTERM tells the container to stop. */
  "drained-kept": {
    world: () => ({ ...KEPT, ...fate({ kind: "run" }), ...ofOperator() }),
    meanwhile: async (world) => {
      // The operator makes the item active before the program starts.
      await world.until("the session starts", () => world.events("SessionStarted").length > 0, PATIENCE_MS);
      await world.deleteEnvironment();
    },
    ends: "served",
  },
  /** The same, and the Work API fails every call that could settle the claim. */
  "given-up": {
    world: () => ({
      ...SHORT_LEASE,
      ...fate({ kind: "worker", end: "hang" }),
      spec: { deletionGraceSeconds: 1 },
    }),
    meanwhile: async (world) => {
      await untilActive(world);
      breakWorkApi(world);
      await world.deleteEnvironment();
    },
    ends: "returned",
  },
  /** A user removes the finalizer by hand, and an Environment of the same name is created. */
  unheld: {
    world: () => ({ ...SHORT_LEASE, ...fate({ kind: "worker", end: "hang" }) }),
    meanwhile: async (world) => {
      await untilActive(world);
      const ref = { namespace: world.namespace, name: world.name };
      await world.deleteEnvironment();
      await world.kube.patch(ENVIRONMENTS, ref, { metadata: { finalizers: null } }, { type: "merge" });
    },
    between: async (world) => {
      await world.until("the Environment is gone", () => world.environment === undefined, PATIENCE_MS);
      await world.createEnvironment();
    },
    ends: "served",
  },
} as const satisfies Record<string, Scenario>;

export type ScenarioName = keyof typeof SCENARIOS;

/** The side that sends heartbeats in this scenario. */
export function leaseOf({ world }: Scenario): LeaseKind {
  return world().sessions?.["lease"] === "Operator" ? "Operator" : "Worker";
}

export function scenarioOf(name: ScenarioName, lease?: LeaseKind): Scenario {
  const scenario: Scenario = SCENARIOS[name];
  return lease === "Operator" ? keptByOperator(scenario) : scenario;
}

/** The same with `lease: Operator`. A scenario without heartbeats keeps its own pace. */
function keptByOperator(scenario: Scenario): Scenario {
  const world = (): WorldOptions => {
    const options = scenario.world();
    const { fates = () => ({ kind: "worker", workMs: 300 }) } = options.node ?? {};
    const unaware: typeof fates = (pod, container) => withoutBeats(fates(pod, container));
    return {
      ...options,
      ...(itemsOf(scenario).length > 0 && KEPT),
      node: { ...options.node, fates: unaware },
      sessions: { ...options.sessions, lease: "Operator" },
    };
  };
  return { ...scenario, world };
}

/** A program that runs as long as this worker and does not know about the work item. */
function withoutBeats(is: FateInput | undefined): FateInput | undefined {
  if (is?.kind !== "worker") return is;
  const { end, workMs: afterMs = 0 } = is;
  if (end === "hang") return { kind: "run" };
  return end === "oom" || end === "killed" ? { kind: end, afterMs } : { kind: "exit", code: 0, afterMs };
}

/** The items to enqueue before the first operator starts. */
export const itemsOf = ({ items }: Scenario): readonly Parameters<World["simulator"]["enqueue"]>[1][] =>
  items ?? [SESSION];
