import { beforeAll, describe, expect, test } from "vitest";
import type { Rules } from "../../../model/rules.ts";
import type { PointEvent } from "../../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../../src/core/timing.ts";
import { checkItem } from "../../faults/traces/check-item.ts";
import { Knowledge } from "../../faults/traces/knowledge.ts";
import { project } from "../../faults/traces/projection.ts";
import { type Entry, TraceRecorder } from "../../faults/traces/trace.ts";
import { LoopWorld, type LoopWorldOptions, NAME, NAMESPACE } from "./loop-world.ts";

// Proves that the checker rejects something: each trace is real except for one change, and must be refused.

const MINUTE = 60_000;
const ENVIRONMENT = `${NAMESPACE}/${NAME}`;

/** A world that serves one item, and the recorded acts of its operators. */
interface Recorded {
  readonly workId: string;
  readonly entries: readonly Entry[];
  readonly rules: Partial<Rules>;
}

async function record(
  options: LoopWorldOptions,
  rules: Partial<Rules>,
  act: (world: LoopWorld, recorder: TraceRecorder) => Promise<void> = async () => {},
): Promise<Recorded> {
  const recorder = new TraceRecorder();
  const world = new LoopWorld({ ...options, points: recorder.observer });
  recorder.allow("fault.kill-container");
  world.createEnvironment();
  if (!rules.lease) world.startOperator();
  await act(world, recorder);
  const workId = [...world.api.world.items.keys()][0] ?? world.enqueue();
  await world.until("everything is settled", () => world.isSettled, 20 * MINUTE);
  return { workId, entries: recorder.entries, rules };
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

type Tamper = (entries: readonly Entry[]) => Entry[];

const isOf = (entry: Entry, point: string, nth?: { readonly call: number }) =>
  entry.is === "point" && entry.event.point === point && (nth === undefined || entry.event.call === nth.call);

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
    /stood still for/,
  ],
  ["stopped without a fence", "killed", without("session.fence"), /without a lease and without a fence/],
  ["stopped after the fence's lease", "killed", lastAfter("session.stop", "session.fence", 89_500), /inside the lease/],
  ["settled without a stop", "killed", without("session.stop"), /last seen live/],
  ["dropped with an acknowledgement under way", "unanswered", then("claim.ack", ...request("claim.drop", 5)), MODEL],
  ["dropped without a list", "unanswered", then("claim.ack", ...request("session.drop", 5)), /nobody had looked at/],
  [
    "dropped after a list that was too early",
    "unanswered",
    then("claim.ack", ...request("session.look", 5, { details: { state: "queued" } }), ...request("session.drop", 9)),
    /could no more be under way/,
  ],
  ["treated as ours without a list", "unanswered", without("session.look"), /nobody had looked at/],
  ["opened without the lease", "takenUp", (entries) => withoutCall(entries, "session.take", 0), MODEL],
  [
    "adopted immediately after a restart",
    "takenUp",
    lastAfter("session.take", "session.snapshot", 5_000),
    /stood still for/,
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
function withoutCall(entries: readonly Entry[], point: string, nth: number): Entry[] {
  const calls = eventsOf(entries, point).filter(({ phase }) => phase === "before");
  const one = calls[nth];
  if (!one) throw new Error(`no request ${nth} of ${point}`);
  return entries.filter(
    (entry) => !(isOf(entry, point, one) && entry.is === "point" && entry.event.operator === one.operator),
  );
}

const RECORDED = { killed, unanswered, takenUp } as const;

describe("the checker refuses a trace with one error", () => {
  const recorded = new Map<string, Recorded>();

  beforeAll(async () => {
    for (const [name, of] of Object.entries(RECORDED)) recorded.set(name, await of());
  });

  const check = (of: string, tamper: Tamper = (entries) => [...entries]) => {
    const { workId, entries, rules } = recorded.get(of) ?? expect.fail(`${of} was not recorded`);
    return checkItem(project(tamper(entries), workId), { rules, timing: DEFAULT_TIMING });
  };

  test.each(Object.keys(RECORDED))("%s: accepts the unchanged trace", (of) => {
    expect(check(of).steps).toBeGreaterThan(10);
  });

  test.each(TAMPERED)("%s (%s)", (_what, of, how, says) => {
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
