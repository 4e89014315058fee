import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  planSleep,
  type SleepEnd,
  type Sleeper,
  type SleepInput,
  sleepEndMessage,
  sleeperOf,
  sleepingView,
  type WaitingItems,
} from "../../src/sleep/sleep-plan.ts";
import { turnsPod } from "../pods/turn-pods.ts";
import { keeperPod } from "../support/keeper-pods.ts";

const SINCE = "2030-01-01T00:00:00.000Z";
const UNTIL = "2030-01-01T00:30:00.000Z";

function sleeping(annotations: Record<string, string>) {
  const ids = { "berth.dev/work-id": "work_1", "berth.dev/session-id": "session_1" };
  return keeperPod({ name: "berth-research-x", namespace: "agents", annotations: { ...ids, ...annotations } });
}

describe("the view of a sleeping session", () => {
  test("has its last work item, since when it sleeps, and until when", () => {
    const pod = sleeping({ "berth.dev/sleeps-since": SINCE, "berth.dev/sleeps-until": UNTIL });
    expect(sleepingView(pod, "Operator")).toMatchObject({
      ...{ workId: "work_1", sessionId: "session_1", pod: "berth-research-x", lease: "Operator", phase: "sleeping" },
      ...{ queuedAtMs: null, stoppedAtMs: Date.parse(SINCE), sleepsUntilMs: Date.parse(UNTIL), reason: null },
    });
  });

  test("has no times that its Pod doesn't say", () => {
    const pod = sleeping({ "berth.dev/sleeps-since": "?" });
    expect(sleepingView(pod, "Worker")).toMatchObject({ stoppedAtMs: null, sleepsUntilMs: null });
  });
});

const NOW_MS = Date.UTC(2030, 0, 1, 1);
const SLEEP_MS = 600_000;
const PREPARE_MS = 120_000;
const PARKED = { is: "parked" } as const;
const ENDED = {
  is: "ended",
  end: { cause: "Evicted", message: "", exitCode: null, startedAtMs: null, finishedAtMs: null },
} as const;

let named = 0;
/** A session that has slept for a minute, with `of` on top. */
function sleeper(of: Partial<Sleeper> & { sleptMs?: number } = {}): Sleeper {
  named += 1;
  const { sleptMs = 60_000, ...more } = of;
  const sinceMs = NOW_MS - sleptMs;
  return {
    pod: turnsPod({ name: `pod-${named}`, phase: "sleeping", ended: 1 }),
    ...{ state: PARKED, sinceMs, untilMs: sinceMs + SLEEP_MS, sessionId: `session-${named}` },
    ...{ hasRerunTurn: false, needs: [], ...more },
  };
}

const NOTHING_WAITS: WaitingItems = { waits: () => false, isBlind: false };
const inputOf = (sleepers: readonly Sleeper[], more: Partial<SleepInput> = {}): SleepInput => ({
  ...{ sleepers, nowMs: NOW_MS, draining: false, maxSleeping: 100, sleepMs: SLEEP_MS, waiting: 0 },
  ...{ items: NOTHING_WAITS, isForbidden: () => false, notReadyMs: () => null, prepareTimeoutMs: PREPARE_MS, ...more },
});
const endsOf = (input: SleepInput) => planSleep(input).ends.map(({ sleeper, why }) => [sleeper, why]);

describe("a sleeping Pod", () => {
  test("stays until its time has ended, which says when to plan again", () => {
    const sleeping = sleeper({ sleptMs: SLEEP_MS - 1_000 });
    expect(planSleep(inputOf([sleeping]))).toEqual({ ends: [], againAtMs: NOW_MS + 1_000 });
    expect(endsOf(inputOf([sleeping], { nowMs: NOW_MS + 1_000 }))).toEqual([[sleeping, "Expired"]]);
  });

  test("no longer sleeps than the spec says now, and no longer than it was told", () => {
    const sleeping = sleeper({ sleptMs: 60_000 });
    expect(endsOf(inputOf([sleeping], { sleepMs: 60_000 }))).toEqual([[sleeping, "Expired"]]);
    const told = sleeper({ sleptMs: SLEEP_MS });
    expect(endsOf(inputOf([told], { sleepMs: 10 * SLEEP_MS }))).toEqual([[told, "Expired"]]);
  });

  test.each<[SleepEnd, Partial<Sleeper>, Partial<SleepInput>]>([
    ["Draining", {}, { draining: true }],
    ["Ended", { state: ENDED }, {}],
    ["Rerun", { hasRerunTurn: true }, {}],
    ["Forbidden", {}, { isForbidden: () => true }],
    ["NotReady", {}, { notReadyMs: () => NOW_MS - PREPARE_MS }],
    ["OverMaximum", {}, { maxSleeping: 0 }],
    ["Yielded", {}, { waiting: 1 }],
  ])("ends its sleep as %s", (why, of, more) => {
    const sleeping = sleeper(of);
    expect(planSleep(inputOf([sleeping], more))).toEqual({ ends: [{ sleeper: sleeping, why }], againAtMs: null });
    expect(endsOf(inputOf([sleeper()]))).toEqual([]);
    expect(sleepEndMessage("sesn_1", why)).toMatch(/^session sesn_1 no longer sleeps, and its Pod is deleted: ./);
  });

  test("that is not ready gets prepareTimeoutSeconds, which says when to plan again", () => {
    const input = inputOf([sleeper()], { notReadyMs: () => NOW_MS - 20_000 });
    expect(planSleep(input)).toEqual({ ends: [], againAtMs: NOW_MS + PREPARE_MS - 20_000 });
  });

  test("of a session with a newer one is deleted", () => {
    const [older, newer] = [sleeper({ sleptMs: 60_000 }), sleeper({ sleptMs: 1_000 })];
    const [one, other] = [older, newer].map((each) => ({ ...each, sessionId: "sesn_1" })) as [Sleeper, Sleeper];
    expect(endsOf(inputOf([other, one]))).toEqual([[one, "Superseded"]]);
  });

  test("without a readable time is kept until its keeper's deadline, and goes first", () => {
    const lost = sleeperOf(turnsPod({ phase: "sleeping", annotations: { "berth.dev/sleeps-since": "?" } }), PARKED);
    const other = sleeper({ sleptMs: SLEEP_MS - 1_000 });
    expect(endsOf(inputOf([other, lost]))).toEqual([]);
    expect(endsOf(inputOf([other, lost], { maxSleeping: 1 }))).toEqual([[lost, "OverMaximum"]]);
  });

  test("is read with its session, its needs, and a turn that runs again", () => {
    const turns = { 1: { running: {} }, 2: { running: {} } };
    const annotations = { "berth.dev/session-id": "sesn_1", "berth.dev/needs": '["privileged"]' };
    const read = sleeperOf(turnsPod({ phase: "sleeping", ended: 1, turns, annotations }), PARKED);
    expect(read).toMatchObject({ sessionId: "sesn_1", hasRerunTurn: true, needs: ["privileged"] });
  });
});

test("a Pod that waits for room gets that of one sleeping Pod, which may go for another reason", () => {
  const [first, second, third] = [3, 2, 1].map((minutes) => sleeper({ sleptMs: minutes * 60_000 })) as [
    Sleeper,
    Sleeper,
    Sleeper,
  ];
  const all = [third, first, second];
  expect(endsOf(inputOf(all, { waiting: 2 }))).toEqual([
    [first, "Yielded"],
    [second, "Yielded"],
  ]);
  expect(endsOf(inputOf(all, { waiting: 1, maxSleeping: 2 }))).toEqual([[first, "OverMaximum"]]);
  const expired = sleeper({ sleptMs: SLEEP_MS });
  expect(endsOf(inputOf([...all, expired], { waiting: 1 }))).toEqual([[expired, "Expired"]]);
});

describe("a sleeping Pod whose session's item waits", () => {
  const waiting: WaitingItems = { waits: () => true, isBlind: true };
  const unknown = (isBlind: boolean): WaitingItems => ({ waits: () => null, isBlind });

  test("sleeps for sleepSeconds more, and asks again every minute", () => {
    const sleeping = sleeper({ sleptMs: SLEEP_MS });
    for (const items of [waiting, unknown(false), unknown(true)]) {
      expect(planSleep(inputOf([sleeping], { items }))).toEqual({ ends: [], againAtMs: NOW_MS + 60_000 });
      const nowMs = NOW_MS + SLEEP_MS - 1_000;
      expect(planSleep(inputOf([sleeping], { items, nowMs }))).toEqual({ ends: [], againAtMs: nowMs + 1_000 });
    }
    const nowMs = NOW_MS + SLEEP_MS;
    expect(endsOf(inputOf([sleeping], { items: waiting, nowMs }))).toEqual([[sleeping, "Unclaimed"]]);
    expect(endsOf(inputOf([sleeping], { items: unknown(false), nowMs }))).toEqual([[sleeping, "Expired"]]);
  });

  test("ends at once if sessions may no longer sleep", () => {
    const sleeping = sleeper();
    expect(endsOf(inputOf([sleeping], { items: waiting, sleepMs: 0 }))).toEqual([[sleeping, "Unclaimed"]]);
  });

  test.each<[SleepEnd, Partial<SleepInput>]>([
    ["Draining", { draining: true }],
    ["NotReady", { notReadyMs: () => NOW_MS - PREPARE_MS }],
  ])("ends its sleep as %s", (why, more) => {
    const sleeping = sleeper({ sleptMs: SLEEP_MS });
    expect(endsOf(inputOf([sleeping], { items: waiting, ...more }))).toEqual([[sleeping, why]]);
  });

  test.each<[SleepEnd, Partial<SleepInput>]>([
    ["OverMaximum", { maxSleeping: 0 }],
    ["Yielded", { waiting: 3 }],
  ])("doesn't end its sleep as %s, unlike others, and unlike those of which nothing can be known", (why, more) => {
    const [waits, hidden, other] = [3, 2, 1].map((minutes) => sleeper({ sleptMs: minutes * 60_000 })) as [
      Sleeper,
      Sleeper,
      Sleeper,
    ];
    const known = new Map<string, boolean>([
      [waits.sessionId, true],
      [other.sessionId, false],
    ]);
    const itemsOf = (isBlind: boolean) => ({ waits: (id: string) => known.get(id) ?? null, isBlind });
    const plan = planSleep(inputOf([waits, hidden, other], { items: itemsOf(false), ...more }));
    expect(plan).toEqual({ ends: [{ sleeper: other, why }], againAtMs: NOW_MS + 60_000 });
    expect(endsOf(inputOf([waits, hidden, other], { items: itemsOf(true), ...more }))).toEqual([
      [other, why],
      [hidden, why],
    ]);
  });
});

describe("any plan", () => {
  const RUNS = { numRuns: 500 };
  const arbitrarySleeper = fc
    .record({
      sleptMs: fc.integer({ min: -1_000, max: 2 * SLEEP_MS }),
      session: fc.integer({ min: 0, max: 12 }),
      isEnded: fc.boolean(),
      hasRerunTurn: fc.boolean(),
      notReadyMs: fc.option(fc.integer({ min: 0, max: 2 * PREPARE_MS })),
    })
    .map(({ session, isEnded, notReadyMs, sleptMs, hasRerunTurn }) => ({
      notReadyMs,
      sleeper: sleeper({
        ...{ sleptMs, hasRerunTurn: hasRerunTurn && session > 9, sessionId: `session-${session}` },
        state: isEnded && session > 8 ? ENDED : PARKED,
      }),
    }));
  const arbitraryInput = fc
    .record({
      sleepers: fc.array(arbitrarySleeper, { maxLength: 12 }),
      maxSleeping: fc.integer({ min: 0, max: 10 }),
      waiting: fc.integer({ min: 0, max: 5 }),
      draining: fc.boolean(),
    })
    .map(({ sleepers, draining, ...more }) => {
      const notReady = new Map(sleepers.map((each) => [each.sleeper.pod, each.notReadyMs]));
      const notReadyMs = (pod: Sleeper["pod"]) => {
        const ms = notReady.get(pod) ?? null;
        return ms === null ? null : NOW_MS - ms;
      };
      const isDraining = draining && sleepers.length > 10;
      return inputOf(
        sleepers.map((each) => each.sleeper),
        { ...more, draining: isDraining, notReadyMs },
      );
    });
  const ofRoom = (why: SleepEnd) => why === "OverMaximum" || why === "Yielded";

  test("keeps at most maxSleeping Pods, makes no more room than is needed, and takes the longest sleeper first", () => {
    fc.assert(
      fc.property(arbitraryInput, (input) => {
        const { ends, againAtMs } = planSleep(input);
        const gone = new Set(ends.map(({ sleeper: each }) => each));
        const stay = input.sleepers.filter((each) => !gone.has(each));
        expect(gone.size).toBe(ends.length);
        expect(stay.length).toBeLessThanOrEqual(input.maxSleeping);
        // A session keeps one Pod at most.
        expect(new Set(stay.map(({ sessionId }) => sessionId)).size).toBe(stay.length);
        const yielded = ends.filter(({ why }) => why === "Yielded").length;
        if (yielded > 0) expect(ends.length).toBe(Math.min(input.waiting, input.sleepers.length));
        if (stay.length > 0) expect(ends.length).toBeGreaterThanOrEqual(input.waiting);
        const over = ends.filter(({ why }) => why === "OverMaximum").length;
        if (over > 0) expect(stay.length + yielded).toBe(input.maxSleeping);
        const latestGone = Math.max(...ends.filter(({ why }) => ofRoom(why)).map(({ sleeper: each }) => each.sinceMs));
        for (const each of stay) expect(each.sinceMs).toBeGreaterThanOrEqual(latestGone);
        if (againAtMs !== null) expect(againAtMs).toBeGreaterThan(input.nowMs);
      }),
      RUNS,
    );
  });

  test("ends no sleep at its next time that it would not end then, and none is forgotten", () => {
    fc.assert(
      fc.property(arbitraryInput, (input) => {
        const { ends, againAtMs } = planSleep(input);
        const gone = new Set(ends.map(({ sleeper: each }) => each));
        const stay = input.sleepers.filter((each) => !gone.has(each));
        const later = (nowMs: number) => planSleep({ ...input, sleepers: stay, waiting: 0, nowMs }).ends;
        expect(later(againAtMs === null ? input.nowMs : againAtMs - 1)).toEqual([]);
        if (againAtMs === null) expect(stay).toEqual([]);
        else expect(later(againAtMs)).not.toEqual([]);
      }),
      RUNS,
    );
  });
});
