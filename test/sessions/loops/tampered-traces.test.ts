import { beforeAll, describe, expect, test } from "vitest";
import type { Rules } from "../../../model/rules.ts";
import type { PointEvent } from "../../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../../src/core/timing.ts";
import { checkItem } from "../../faults/traces/check-item.ts";
import { Knowledge } from "../../faults/traces/knowledge.ts";
import { project } from "../../faults/traces/projection.ts";
import { type Entry, TraceRecorder } from "../../faults/traces/trace.ts";
import { LoopWorld, type LoopWorldOptions, NAME, NAMESPACE } from "./loop-world.ts";

// A checker that lets everything pass checks nothing: each of these traces is real but for one thing, and is refused.

const MINUTE = 60_000;
const ENVIRONMENT = `${NAMESPACE}/${NAME}`;

/** A world that serves one item, and what its operators did. */
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
  await world.until("all is served", () => world.isSettled, 20 * MINUTE);
  return { workId, entries: recorder.entries, rules };
}

/** lease: Worker: its container is killed, so that the operator has to fence and stop. */
const killed = () => record({ fate: () => ({ startError: false, program: "dies", servesMs: 5_000 }) }, {});

/** lease: Worker: the acknowledgement is handled after its sender gave up. */
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

/** lease: Operator: another process takes the lease up. */
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
      await world.until("it is active", () => world.item(id).state === "active");
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

/** The events of one point, before the first of another. */
const before =
  (point: string, other: string): Tamper =>
  (entries) => {
    const rest = entries.filter((entry) => !isOf(entry, point));
    const at = rest.findIndex((entry) => isOf(entry, other));
    return rest.toSpliced(at, 0, ...entries.filter((entry) => isOf(entry, point)));
  };

/** The last request of a point happens as long after the last event of another before it as is said. */
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

/** What comes after the last event of a point is other events of the claim. */
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
  ["journaled though no poll brought it", "killed", without("claim.poll"), /no poll brought/],
  ["acknowledged before it was journaled", "killed", before("claim.ack", "claim.journal"), /Pod parked|not allow/],
  ["acknowledged without having read the Pod", "killed", without("claim.read-pod"), /read the Pod parked/],
  ["acknowledged after the window", "killed", lastAfter("claim.ack", "claim.poll", 4_000), /inside the window/],
  [
    "journaled for a second Pod",
    "killed",
    then("claim.journal", ...request("claim.journal", 1, { pod: "other" })),
    MODEL,
  ],
  ["opened without an acknowledgement", "killed", without("claim.ack"), MODEL],
  ["opened before the acknowledgement", "killed", before("session.open", "claim.ack"), MODEL],
  ["dropped though it was acknowledged", "killed", then("claim.ack", ...request("claim.drop", 5)), MODEL],
  [
    "settled while its container runs",
    "killed",
    then("session.open", ...request("session.settled", 5, { asks: { because: "stopped" } })),
    /last seen live/,
  ],
  ["fenced with a value that was not remembered", "killed", without("session.snapshot"), /had not remembered/],
  [
    "fenced with a value that did not stand still",
    "killed",
    lastAfter("session.fence", "session.snapshot", 5_000),
    /stood still for/,
  ],
  ["stopped without a fence", "killed", without("session.fence"), /without a lease and without a fence/],
  ["stopped after the fence's lease", "killed", lastAfter("session.stop", "session.fence", 89_500), /inside the lease/],
  ["settled without a stop", "killed", without("session.stop"), /last seen live/],
  ["dropped with an acknowledgement under way", "unanswered", then("claim.ack", ...request("claim.drop", 5)), MODEL],
  ["dropped without a look", "unanswered", then("claim.ack", ...request("session.drop", 5)), /nobody had looked at/],
  [
    "dropped by a look that was too early",
    "unanswered",
    then("claim.ack", ...request("session.look", 5, { details: { state: "queued" } }), ...request("session.drop", 9)),
    /could no more be under way/,
  ],
  ["taken for ours without a look", "unanswered", without("session.look"), /nobody had looked at/],
  ["opened without the lease", "takenUp", (entries) => withoutCall(entries, "session.take", 0), MODEL],
  [
    "taken up at once after a restart",
    "takenUp",
    lastAfter("session.take", "session.snapshot", 5_000),
    /stood still for/,
  ],
  ["taken up with a value that was not remembered", "takenUp", without("session.snapshot"), /had not remembered/],
  [
    "beaten after a restart without having taken it up",
    "takenUp",
    (entries) => withoutCall(entries, "session.take", 1),
    MODEL,
  ],
];

/** Without one request of a point. */
function withoutCall(entries: readonly Entry[], point: string, nth: number): Entry[] {
  const calls = eventsOf(entries, point).filter(({ phase }) => phase === "before");
  const one = calls[nth];
  if (!one) throw new Error(`no request ${nth} of ${point}`);
  return entries.filter(
    (entry) => !(isOf(entry, point, one) && entry.is === "point" && entry.event.operator === one.operator),
  );
}

const RECORDED = { killed, unanswered, takenUp } as const;

describe("a trace with one thing wrong is refused", () => {
  const recorded = new Map<string, Recorded>();

  beforeAll(async () => {
    for (const [name, of] of Object.entries(RECORDED)) recorded.set(name, await of());
  });

  const check = (of: string, tamper: Tamper = (entries) => [...entries]) => {
    const { workId, entries, rules } = recorded.get(of) ?? expect.fail(`${of} was not recorded`);
    return checkItem(project(tamper(entries), workId), { rules, timing: DEFAULT_TIMING });
  };

  test.each(Object.keys(RECORDED))("%s: as it was, it is allowed", (of) => {
    expect(check(of).steps).toBeGreaterThan(10);
  });

  test.each(TAMPERED)("%s (%s)", (_what, of, how, says) => {
    expect(() => check(of, how)).toThrow(says);
  });
});

test("a request is told from another operator's that bears the same number", () => {
  const knowledge = new Knowledge(DEFAULT_TIMING);
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
