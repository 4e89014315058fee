import { beforeAll, describe, expect, test } from "vitest";
import { CODE, type Rules } from "../../../model/rules.ts";
import { BODY, KNOWN, Layout, OBJECT, POD, type State, VOLUME } from "../../../model/state.ts";
import { ANNOTATION_LAST_USED, ANNOTATION_SESSION_ID } from "../../../src/api/names.ts";
import type { PointEvent, PointOutcome } from "../../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../../src/core/timing.ts";
import { PERSISTENT_VOLUME_CLAIMS } from "../../../src/kube/resource.ts";
import { readPodState } from "../../../src/pods/pod-state.ts";
import { newestTurn } from "../../../src/pods/turns.ts";
import { Candidates } from "../../faults/traces/candidates.ts";
import { checkSession } from "../../faults/traces/check-session.ts";
import { Knowledge } from "../../faults/traces/knowledge.ts";
import { effectsOf, OUR_SESSION, READINGS } from "../../faults/traces/mapping.ts";
import { project } from "../../faults/traces/projection.ts";
import { type Entry, TraceRecorder } from "../../faults/traces/trace.ts";
import { LoopWorld, type LoopWorldOptions, NAME, NAMESPACE, type Operator } from "./loop-world.ts";
import { TEMPLATE } from "./sleepy-world.ts";

// Proves that the checker rejects something: each trace is real except for one change, and must be refused.

const MINUTE = 60_000;
/** Long enough for a busy machine. */
const PATIENCE_MS = 120_000;
const ENVIRONMENT = `${NAMESPACE}/${NAME}`;

/** A world that serves a session, and the recorded acts of its operators. */
interface Recorded {
  readonly workIds: readonly string[];
  readonly sessionId: string;
  readonly entries: readonly Entry[];
  readonly rules: Partial<Rules>;
}

async function record(
  options: LoopWorldOptions,
  rules: Partial<Rules>,
  act: (world: LoopWorld, recorder: TraceRecorder, operator?: Operator) => Promise<void> = async () => {},
): Promise<Recorded> {
  const recorder = new TraceRecorder();
  const world = new LoopWorld({ ...options, points: recorder.observer });
  recorder.allow("fault.kill-container");
  world.createEnvironment();
  await act(world, recorder, rules.lease ? undefined : world.startOperator());
  if (world.items.length === 0) world.enqueue();
  await world.until("everything is settled", () => world.isSettled, 20 * MINUTE);
  const workIds = [...world.api.world.items.keys()];
  const sessionId = world.api.world.item(workIds[0] ?? "").data.id;
  return { workIds, sessionId, entries: recorder.entries, rules };
}

/** lease: Worker: the container is killed, so that the operator must fence and stop. */
const killed = () => record({ fate: () => ({ startError: false, program: "dies", servesMs: 5_000 }) }, {});

/** lease: Worker: the acknowledgement takes effect after its sender gave up. */
const unanswered = () =>
  record({}, {}, async (world) => {
    await world.until("a parked Pod", () => world.parked.length > 0);
    world.api.delay = (call) => (call === "ack" ? 1_000 : 0);
    world.weather.work = { lost: 0, slow: 1, refused: 0 };
    world.enqueue();
    await world.until("an acknowledgement", () => world.items[0]?.state === "starting");
    world.api.delay = () => 0;
    world.weather.work = { lost: 0, slow: 0, refused: 0 };
  });

/** lease: Operator: another process adopts the lease. */
const takenUp = () =>
  record(
    {
      sessions: { lease: "Operator" },
      fate: () => ({ startError: false, program: "plain", servesMs: 3 * MINUTE }),
    },
    { lease: "Operator" },
    async (world, recorder) => {
      const operator = world.startOperator();
      const id = world.enqueue();
      await world.until("the session runs", () => world.item(id).state === "active");
      await world.pass(10_000);
      await operator.stop();
      recorder.ended(ENVIRONMENT);
      recorder.began(ENVIRONMENT);
      world.startOperator();
    },
  );

const SLEEPS = { template: TEMPLATE, parking: "Shell", workspace: { type: "Pod", sleepSeconds: 60 } };
const SHELL = { parking: "Shell" } as const;

/** A session sleeps, wakes in its Pod, sleeps again, and its Pod is deleted. */
const slept = () =>
  record({ sessions: SLEEPS }, SHELL, async (world) => {
    const first = world.enqueue();
    await untilAsleep(world, 1);
    world.enqueue({ sessionId: world.api.world.item(first).data.id });
    await untilAsleep(world, 2);
    await world.until("the Pod is deleted", () => world.podsOf("sleeping").length === 0);
  });

const RETAIN_SECONDS = 120;
const VOLUMES = {
  ...{ warm: 1, maxConcurrent: 2 },
  workspace: {
    type: "PerSession",
    claimTemplate: { resources: { requests: { storage: "1Gi" } } },
    retainSeconds: RETAIN_SECONDS,
  },
};

const volumesOf = (world: LoopWorld) =>
  world.server
    .list(PERSISTENT_VOLUME_CLAIMS)
    .filter(({ metadata }) => metadata.annotations?.[ANNOTATION_SESSION_ID] !== undefined);

/** A session with a volume: its second item gets another Pod, another process begins, and the volume is deleted. */
const withVolume = () =>
  record({ sessions: VOLUMES }, {}, async (world, recorder, operator) => {
    await world.until("a Pod is parked", () => world.parked.length === 1);
    const isUnused = () =>
      volumesOf(world).some(({ metadata }) => metadata.annotations?.[ANNOTATION_LAST_USED] !== undefined);
    const first = world.enqueue();
    await world.until("its volume is unused", () => world.item(first).state === "stopped" && isUnused());
    if (operator) await world.stop(operator);
    recorder.ended(ENVIRONMENT);
    recorder.began(ENVIRONMENT);
    world.startOperator();
    const second = world.enqueue({ sessionId: world.api.world.item(first).data.id });
    await world.until("it is unused again", () => world.item(second).state === "stopped" && isUnused());
    await world.until("the volume is deleted", () => volumesOf(world).length === 0, 5 * MINUTE);
  });

/** The assignment of a session's volume takes effect, and gets no answer. */
const inDoubt = () =>
  record({ sessions: VOLUMES }, {}, async (world, _recorder, operator) => {
    await world.until("a Pod is parked", () => world.parked.length === 1);
    let left = 1;
    if (operator) {
      operator.kube.answerDelay = ({ verb, plural }) =>
        verb === "patch" && plural === PERSISTENT_VOLUME_CLAIMS.plural && left-- > 0 ? 8_000 : 0;
    }
    world.enqueue();
    await world.until("the volume is assigned", () => volumesOf(world).length === 1);
  });

async function untilAsleep(world: LoopWorld, turn: number): Promise<void> {
  const isAsleep = () =>
    world.podsOf("sleeping").some((pod) => newestTurn(pod) > turn && readPodState(pod).is === "parked");
  await world.until(`it sleeps after turn ${turn}`, isAsleep);
}

type Tamper = (entries: readonly Entry[]) => Entry[];

const isOf = (entry: Entry, point: string, nth?: { readonly call: number }) =>
  entry.is === "point" && entry.event.point === point && (nth === undefined || entry.event.call === nth.call);

/** The request of a point with this index; -1: the last one. */
function requestOf(entries: readonly Entry[], point: string, index: number): PointEvent {
  const found = eventsOf(entries, point)
    .filter(({ phase }) => phase === "before")
    .at(index);
  if (!found) throw new Error(`no request ${index} of ${point}`);
  return found;
}

/** Moves a request of one point behind one of another. */
const after =
  (point: string, index: number, other: string, otherIndex: number): Tamper =>
  (entries) => {
    const moved = requestOf(entries, point, index);
    const last = requestOf(entries, other, otherIndex);
    const rest = entries.filter((entry) => !isOf(entry, point, moved));
    const at = rest.findLastIndex((entry) => isOf(entry, other, last));
    return rest.toSpliced(at + 1, 0, ...entries.filter((entry) => isOf(entry, point, moved)));
  };

/** Changes a request of a point. */
const as =
  (point: string, index: number, change: Partial<PointEvent>): Tamper =>
  (entries) => {
    const changed = requestOf(entries, point, index);
    return entries.map((entry) =>
      isOf(entry, point, changed) && entry.is === "point" ? { ...entry, event: { ...entry.event, ...change } } : entry,
    );
  };

/** Repeats a request of one point behind one of another, with a change. */
const again =
  (point: string, index: number, other: string, otherIndex: number, change: Partial<PointEvent> = {}): Tamper =>
  (entries) => {
    const call = requestOf(entries, point, index);
    const copies = entries.flatMap((entry): Entry[] =>
      isOf(entry, point, call) && entry.is === "point"
        ? [{ ...entry, event: { ...entry.event, call: call.call + 10_000, ...change } }]
        : [],
    );
    const last = requestOf(entries, other, otherIndex);
    return entries.toSpliced(entries.findLastIndex((entry) => isOf(entry, other, last)) + 1, 0, ...copies);
  };

/** Changes the answer to a request of a point. */
const answered =
  (point: string, index: number, outcome: PointOutcome): Tamper =>
  (entries) => {
    const changed = requestOf(entries, point, index);
    return entries.map((entry) =>
      isOf(entry, point, changed) && entry.is === "point" && entry.event.phase === "after"
        ? { ...entry, event: { ...entry.event, outcome } }
        : entry,
    );
  };

/** The events of a point, in order. */
const eventsOf = (entries: readonly Entry[], point: string): PointEvent[] =>
  entries.flatMap((entry) => (entry.is === "point" && entry.event.point === point ? entry.event : []));

const without =
  (point: string): Tamper =>
  (entries) =>
    entries.filter((entry) => !isOf(entry, point));

/** Moves the events of one point before the first event of another. */
const before =
  (point: string, other: string): Tamper =>
  (entries) => {
    const rest = entries.filter((entry) => !isOf(entry, point));
    const at = rest.findIndex((entry) => isOf(entry, other));
    return rest.toSpliced(at, 0, ...entries.filter((entry) => isOf(entry, point)));
  };

/** Moves the last request of a point to `ms` after the preceding event of another point. */
const lastAfter =
  (point: string, other: string, ms: number): Tamper =>
  (entries) => {
    const last = eventsOf(entries, point).at(-1);
    const asked = entries.findIndex((entry) => isOf(entry, point, last));
    const from = eventsOf(entries.slice(0, asked), other).at(-1);
    if (!from || !last) throw new Error(`no ${point}, or no ${other}`);
    const at = { atMs: from.atMs + ms, monotonicMs: from.monotonicMs + ms };
    return entries.map((entry) =>
      isOf(entry, point, last) && entry.is === "point" ? { ...entry, event: { ...entry.event, ...at } } : entry,
    );
  };

/** Replaces everything after the last event of a point by other events of the claim. */
const then =
  (
    point: string,
    ...next: readonly (Pick<PointEvent, "point" | "phase"> & Partial<PointEvent> & { afterMs: number })[]
  ) =>
  (entries: readonly Entry[]): Entry[] => {
    const at = entries.findLastIndex((entry) => isOf(entry, point));
    const last = entries[at];
    if (last?.is !== "point") throw new Error(`no ${point}`);
    const { outcome: _, ...from } = last.event;
    const added = next.map(({ afterMs, ...event }): Entry => {
      const time = { atMs: from.atMs + afterMs, monotonicMs: from.monotonicMs + afterMs };
      return { is: "point", event: { ...from, details: {}, call: from.call + 10_000, ...time, ...event } };
    });
    return [...entries.slice(0, at + 1), ...added];
  };

const request = (point: string, afterMs: number, more: Partial<PointEvent> = {}) =>
  [
    { point, phase: "before", afterMs, ...more },
    { point, phase: "after", outcome: "ok", afterMs, ...more },
  ] as const;

const MODEL = /the model does not allow this step/;

const TAMPERED: readonly (readonly [what: string, of: keyof typeof RECORDED, how: Tamper, says: RegExp])[] = [
  ["journaled without a poll", "killed", without("claim.poll"), /no poll brought/],
  ["acknowledged before it was journaled", "killed", before("claim.ack", "claim.journal"), /Pod parked|not allow/],
  ["acknowledged without a read of the Pod", "killed", without("claim.read-pod"), /read the Pod parked/],
  ["acknowledged after the window", "killed", lastAfter("claim.ack", "claim.poll", 4_000), /inside the window/],
  [
    "journaled for a second Pod",
    "killed",
    then("claim.journal", ...request("claim.journal", 1, { pod: "other" })),
    MODEL,
  ],
  ["opened without an acknowledgement", "killed", without("claim.ack"), MODEL],
  ["opened before the acknowledgement", "killed", before("session.open", "claim.ack"), MODEL],
  ["dropped despite an acknowledgement", "killed", then("claim.ack", ...request("claim.drop", 5)), MODEL],
  [
    "settled while its container runs",
    "killed",
    then("session.open", ...request("session.settled", 5, { asks: { because: "stopped" } })),
    /last seen live/,
  ],
  ["fenced with an unknown value", "killed", without("session.snapshot"), /had not remembered/],
  [
    "fenced with a value that changed",
    "killed",
    lastAfter("session.fence", "session.snapshot", 5_000),
    /was unchanged for/,
  ],
  ["stopped without a fence", "killed", without("session.fence"), /without a lease and without a fence/],
  ["stopped after the fence's lease", "killed", lastAfter("session.stop", "session.fence", 89_500), /inside the lease/],
  ["settled without a stop", "killed", without("session.stop"), /last seen live/],
  ["dropped with an acknowledgement under way", "unanswered", then("claim.ack", ...request("claim.drop", 5)), MODEL],
  [
    "dropped without a list",
    "unanswered",
    then("claim.ack", ...request("session.drop", 5)),
    /the operator had not read/,
  ],
  [
    "dropped after a list that was too early",
    "unanswered",
    then("claim.ack", ...request("session.look", 5, { details: { state: "queued" } }), ...request("session.drop", 9)),
    /could no more be under way/,
  ],
  ["treated as ours without a list", "unanswered", without("session.look"), /the operator had not read/],
  ["opened without the lease", "takenUp", (entries) => withoutCall(entries, "session.take", 0), MODEL],
  [
    "adopted immediately after a restart",
    "takenUp",
    lastAfter("session.take", "session.snapshot", 5_000),
    /was unchanged for/,
  ],
  ["adopted with an unknown value", "takenUp", without("session.snapshot"), /had not remembered/],
  [
    "sent a heartbeat after a restart without adopting it",
    "takenUp",
    (entries) => withoutCall(entries, "session.take", 1),
    MODEL,
  ],
];

/** Removes one request of a point. */
function withoutCall(entries: readonly Entry[], point: string, index: number): Entry[] {
  const one = requestOf(entries, point, index);
  return entries.filter(
    (entry) => !(isOf(entry, point, one) && entry.is === "point" && entry.event.operator === one.operator),
  );
}

const RECORDED = { killed, unanswered, takenUp, slept, withVolume, inDoubt } as const;

const SLEPT: readonly (readonly [what: string, of: keyof typeof RECORDED, how: Tamper, says: RegExp])[] = [
  ["marked as sleeping after its Secret was deleted", "slept", after("session.sleep", 0, "session.settled", 0), MODEL],
  ["never marked as sleeping", "slept", (entries) => withoutCall(entries, "session.sleep", 1), MODEL],
  ["marked as sleeping while it runs", "slept", after("session.sleep", 1, "session.open", 1), MODEL],
  ["given its next turn before it sleeps", "slept", after("turn.add", -1, "session.touch", 1), MODEL],
  ["woken before its next turn was added", "slept", (entries) => withoutCall(entries, "turn.add", -2), MODEL],
  ["woken in a turn that has ended", "slept", as("claim.journal", 1, { asks: { use: "session", turn: 1 } }), MODEL],
  ["woken without a live read", "slept", (entries) => withoutCall(entries, "claim.read-pod", 1), /read the Pod parked/],
  ["woken in another Pod", "slept", as("claim.journal", 1, { pod: "other", asks: { turn: 1 } }), MODEL],
  ["given a line before it was assigned", "slept", (entries) => withoutCall(entries, "session.touch", 0), MODEL],
  ["given a line without a claim", "slept", again("session.deliver", 0, "session.settled", 0), MODEL],
  ["deleted without a lock", "slept", (entries) => withoutCall(entries, "removal.lock", -1), MODEL],
  ["deleted under the lock of another turn", "slept", as("removal.lock", -1, { asks: { turn: 2 } }), MODEL],
  ["kept although it was locked", "slept", (entries) => withoutCall(entries, "removal.delete-pod", -1), MODEL],
  ["given a turn after it was deleted", "slept", again("turn.add", -1, "removal.delete-pod", -1), MODEL],
  ["deleted because nothing claims it", "slept", again("removal.delete-pod", -1, "session.settled", 1), MODEL],
];

const OF_VOLUMES: readonly (readonly [what: string, of: keyof typeof RECORDED, how: Tamper, says: RegExp])[] = [
  ["acknowledged before its volume was assigned", "withVolume", before("claim.ack", "workspace.assign"), MODEL],
  ["acknowledged without a volume", "withVolume", without("workspace.assign"), MODEL],
  ["acknowledged after a refused assignment", "withVolume", answered("workspace.assign", 0, "refused"), MODEL],
  [
    "acknowledged without a write to its own volume",
    "withVolume",
    (entries) => withoutCall(entries, "workspace.take", -1),
    /without having written/,
  ],
  ["given a volume before its journal", "withVolume", before("workspace.assign", "claim.journal"), MODEL],
  ["given a volume before a list of all volumes", "withVolume", without("workspace.list"), /before it listed them/],
  [
    "given the volume of another session",
    "withVolume",
    again("workspace.assign", 0, "claim.journal", 0, { asks: { sessionId: "another" } }),
    MODEL,
  ],
  [
    "its volume is given to another session",
    "withVolume",
    again("workspace.assign", 0, "session.settled", 0, { asks: { sessionId: "another" } }),
    MODEL,
  ],
  [
    "given a Pod with its volume while that is marked as unused",
    "withVolume",
    (entries) => withoutCall(entries, "workspace.take", 0),
    MODEL,
  ],
  [
    "given a second Pod with its volume",
    "withVolume",
    again("prepare.create-pod", -1, "prepare.create-pod", -1, { pod: "other" }),
    MODEL,
  ],
  ["its volume is marked as unused by then", "withVolume", after("workspace.leave", 0, "claim.ack", 0), MODEL],
  [
    "its volume is deleted without a mark as unused",
    "withVolume",
    (entries) => withoutCall(entries, "workspace.leave", -1),
    MODEL,
  ],
  ["its volume is deleted while it runs", "withVolume", after("workspace.delete", 0, "session.open", -1), MODEL],
  [
    "its volume is deleted too early",
    "withVolume",
    lastAfter("workspace.delete", "workspace.leave", (RETAIN_SECONDS - 10) * 1_000),
    /before the end of the time that it is kept/,
  ],
  ["served although its assignment is in doubt", "inDoubt", without("workspace.adopt"), MODEL],
];

describe("the checker refuses a trace with one error", () => {
  const recorded = new Map<string, Recorded>();

  beforeAll(async () => {
    for (const [name, of] of Object.entries(RECORDED)) recorded.set(name, await of());
  }, PATIENCE_MS);

  const check = (of: string, tamper: Tamper = (entries) => [...entries]) => {
    const { workIds, sessionId, entries, rules } = recorded.get(of) ?? expect.fail(`${of} was not recorded`);
    const circumstances = { rules, timing: DEFAULT_TIMING, retainMs: RETAIN_SECONDS * 1_000 };
    return checkSession(project(tamper(entries), workIds, sessionId), circumstances);
  };

  test.each(Object.keys(RECORDED))("%s: accepts the unchanged trace", (of) => {
    expect(check(of).steps).toBeGreaterThan(10);
  });

  test.each([...TAMPERED, ...SLEPT, ...OF_VOLUMES])("%s (%s)", (_what, of, how, says) => {
    expect(() => check(of, how)).toThrow(says);
  });
});

test("the checker distinguishes requests of different operators with the same number", () => {
  const knowledge = new Knowledge(DEFAULT_TIMING, { lease: "Worker", waitsForEnds: false });
  const take = (operator: string, point: string, atMs: number, more: Partial<PointEvent> = {}) =>
    knowledge.take({
      point,
      phase: "before",
      call: point.length,
      details: {},
      asks: {},
      pod: "pod",
      environment: `${operator}/${NAME}`,
      operator,
      atMs,
      monotonicMs: atMs,
      ...more,
    });
  take("one", "claim.poll", 0);
  take("other", "claim.poll", 900);
  take("one", "claim.poll", 950, { phase: "after", outcome: "ok" });
  take("one", "claim.journal", 960);
  take("one", "claim.read-pod", 970);
  take("one", "claim.read-pod", 980, { phase: "after", outcome: "ok", details: { parked: true } });
  expect(take("one", "claim.ack", 4_000)).toMatch(/500 ms after it could land inside the window/);
});

test("a list shows that a session's volume is gone, although a Pod still names it", () => {
  const layout = new Layout({ ...CODE, pods: 2, volumes: 2, newVolumes: true, isTrace: true });
  const state = layout.initial();
  const [lost, other] = [0, 1].map((volume) => layout.volume(volume)) as [number, number];
  state[lost + VOLUME.object] = OBJECT.none;
  state[lost + VOLUME.session] = OUR_SESSION;
  state[lost + VOLUME.known] = KNOWN.settled;
  state[layout.pod(0) + POD.body] = BODY.ended;
  const candidates = new Candidates(layout, () => false);
  const journals = (at: State) =>
    candidates.successors(at).filter(({ step }) => step.name === "claim.journal" && step.pod === 1).length;
  const actor = { layout, operator: 0, pod: -1, item: -1, volume: -1, session: 0 };
  const list = READINGS["workspace.list"] ?? expect.fail("no list");
  const effects = effectsOf(list, actor, {}, state, candidates.successors(state));
  expect(journals(state)).toBe(0);
  expect(
    effects.map(([next]) => [next[lost + VOLUME.session], next[other + VOLUME.known], journals(next) > 0]),
  ).toEqual([[0, KNOWN.unassigned, true]]);
});
