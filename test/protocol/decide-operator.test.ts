import { describe, expect, test } from "vitest";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { Claim } from "../../src/protocol/claim.ts";
import { nextStep } from "../../src/protocol/decide.ts";
import type { Facts } from "../../src/protocol/facts.ts";
import type { HeldLease, Lease, LostLease } from "../../src/protocol/lease.ts";
import type { Ending, Step } from "../../src/protocol/step.ts";
import { NO_HEARTBEAT } from "../../src/work/types.ts";
import {
  acknowledged,
  at,
  type ClaimFields,
  END,
  EPOCH,
  EVERY_ITEM,
  ended,
  facts,
  GONE,
  JOURNAL,
  LIMITS,
  OURS,
  opened,
  PARKED,
  POLLED,
  RUNNING,
  THEIRS,
  view,
  withFields,
} from "./claims.ts";

const SECOND = 1_000;
const TTL = 180 * SECOND;
const PREPARING: Facts["pod"] = { is: "preparing", problem: null };
/** A value stands still after so long. */
const QUIET = 50 * SECOND;
/** The beats of the process before have landed so long after a restart. */
const LANDED = 2_500;

const LOOK: Step = { do: "look" };
const STOP: Step = { do: "stop", force: true };
const GRACEFUL: Step = { do: "stop", force: false };
const waitUntil = (afterMs: number): Step => ({ do: "wait", untilMs: POLLED + afterMs });

/** A lease whose last answered beat was sent so long after the poll. */
const held = (afterMs: number, more: Partial<HeldLease> = {}): HeldLease => ({
  is: "held",
  state: "active",
  echo: "echo",
  ttlMs: TTL,
  sentMs: POLLED + afterMs,
  sentWallMs: EPOCH + POLLED + afterMs,
  unansweredMs: null,
  ...more,
});
const lost = (by: LostLease["by"], lapsedAfterMs = 0): LostLease => ({
  is: "lost",
  by,
  message: "it went",
  lapsedMs: POLLED + lapsedAfterMs,
});

const operator = (claim: Claim, more: ClaimFields = {}): Claim =>
  withFields(claim, { journal: { ...claim.record.journal, lease: "Operator" as const }, ...more });
const unopened = (more: ClaimFields = {}) => operator(acknowledged(), more);
/** Opened, with its lease last beaten 20 s after the poll. */
const kept = (more: ClaimFields = {}) => operator(opened({ lease: held(20_000), firstBeatSeen: true }), more);
/** Opened, ended `endedAfterMs` after the poll, its lease last beaten 20 s after it. */
const over = (endedAfterMs: number, more: ClaimFields = {}) =>
  kept({ startedAtMs: EPOCH + POLLED + 1_000, end: END, endedMs: POLLED + endedAfterMs, ...more });
/** Opened by an earlier process, found `afterMs` after the poll. */
const found = (afterMs: number, more: ClaimFields = {}) => {
  const since = { othersUntilMs: POLLED + afterMs, openedMs: POLLED + afterMs, waitedMs: null };
  return operator(opened(), { ...since, touches: 0, touchedMs: null, lease: null, ...more });
};

const stepOf = (claim: Claim, pod: Facts["pod"], afterMs: number, more: Partial<Facts> = {}): Step =>
  nextStep(facts(claim, pod, afterMs, more));
const draining = (afterMs: number) => ({ limits: { ...LIMITS, draining: true, drainDeadlineMs: POLLED + afterMs } });
const releasing = { limits: { ...LIMITS, onPodFailure: "Release" as const } };
const KILLED = { ...END, cause: "Killed", exitCode: 137 } as const;

describe("5. open, lease: Operator: no container starts without its lease", () => {
  test("the first beat comes before the key", () => {
    expect(stepOf(unopened(), PARKED, 800)).toEqual({ do: "take", expected: NO_HEARTBEAT });
  });

  test("with the lease in hand it is opened", () => {
    expect(stepOf(unopened({ lease: held(900), item: null }), PARKED, 1_000)).toEqual({
      do: "open",
      acknowledgedAt: OURS,
    });
  });

  test("what was seen long ago is looked at anew before the first beat", () => {
    expect(stepOf(unopened(), PARKED, 31_000)).toEqual(LOOK);
  });

  test("a first beat without an answer is repeated", () => {
    const item = view("starting", POLLED + 3_000);
    expect(stepOf(unopened({ item: null }), PARKED, 3_000)).toEqual(LOOK);
    expect(stepOf(unopened({ item }), PARKED, 3_100)).toEqual({ do: "take", expected: NO_HEARTBEAT });
  });

  test("a first beat that was refused: whose value it is shows by its standing still, and then it is ours to open", () => {
    const refused = unopened({ item: null, memory: { is: "refused", atMs: POLLED + 1_000 } });
    expect(stepOf(refused, PARKED, 1_100)).toEqual(waitUntil(6_000));
    expect(stepOf(refused, PARKED, 6_000)).toEqual(LOOK);
    const value = at(POLLED + 2_000);
    const seen = unopened({ item: view("active", POLLED + 6_000) });
    expect(stepOf(seen, PARKED, 6_100)).toEqual({ do: "snapshot", value });
    withFields(seen, { memory: { is: "snapshot", value, sinceMs: POLLED + 6_000 } });
    expect(stepOf(seen, PARKED, 6_200)).toEqual(waitUntil(6_000 + QUIET));
    expect(stepOf(seen, PARKED, 6_000 + QUIET)).toEqual({ do: "take", expected: value });
  });

  test("a value that moved meanwhile: somebody else beats; it is not opened, and the wait begins anew", () => {
    const memory = { is: "snapshot", value: "earlier", sinceMs: POLLED + 6_000 } as const;
    const seen = unopened({ item: view("active", POLLED + 50_000), memory });
    expect(stepOf(seen, PARKED, 6_000 + QUIET)).toMatchObject({ do: "snapshot" });
  });

  test.each(["queued", "stopped"] as const)("%s instead: let go", (state) => {
    const claim = unopened({ item: view(state, POLLED + 6_000) });
    expect(stepOf(claim, PARKED, 6_100)).toEqual({ do: "settled", because: state });
  });

  test("acknowledged by somebody else instead: let go, never opened", () => {
    const claim = unopened({ item: view("starting", POLLED + 6_000, { acknowledgedAt: THEIRS }) });
    expect(stepOf(claim, PARKED, 6_100)).toEqual({ do: "settled", because: "acknowledged by somebody else" });
  });

  test("a lease that may not outlast the opening waits for its next beat", () => {
    const claim = unopened({ lease: held(1_000) });
    expect(stepOf(claim, PARKED, 1_000 + TTL - 2_500)).toMatchObject({ do: "open" });
    expect(stepOf(claim, PARKED, 1_000 + TTL - 2_499)).toEqual(waitUntil(1_000 + TTL));
  });

  test("a lease lost before the opening: nothing starts, nothing is stopped", () => {
    expect(stepOf(unopened({ lease: lost("refusal") }), PARKED, 60_000)).toEqual({
      do: "settled",
      because: "it went",
    });
  });

  test.each([
    ["gone", GONE, {}],
    ["ended before it started", ended({ cause: "Evicted", startedAtMs: null }), {}],
    ["being deleted", PARKED, { podGoneByMs: POLLED + 30_000 }],
    ["ready, and the Environment being deleted", PARKED, draining(600_000)],
  ] as const)("with the lease in hand and the Pod %s: stopped", (_, pod, more) => {
    expect(stepOf(unopened({ lease: held(900) }), pod, 1_000, more)).toEqual(STOP);
  });

  test("with the lease in hand and the Pod not parked for a moment, it is waited for", () => {
    expect(stepOf(unopened({ lease: held(900) }), PREPARING, 1_000)).toEqual(waitUntil(25_000));
  });

  test("told to stop before the opening: stopped", () => {
    expect(stepOf(unopened({ lease: held(900, { state: "stopping" }) }), PARKED, 1_000)).toEqual(STOP);
  });
});

describe("6. watch, lease: Operator", () => {
  test("a container that still waits is touched again, and fails to start, as with lease: Worker", () => {
    expect(stepOf(kept(), PARKED, 1_410)).toEqual({ do: "touch" });
    const problem = { reason: "CreateContainerError", message: "no such command" };
    expect(stepOf(kept(), { is: "preparing", problem }, 2_000)).toMatchObject({ do: "delete-pod", why: "StartFailed" });
    expect(stepOf(kept(), PREPARING, 60_900)).toMatchObject({ do: "delete-pod", why: "StartFailed" });
  });

  test("a program that sends no beat is left alone until maxDurationSeconds: the operator beats for it", () => {
    expect(stepOf(kept(), RUNNING, 100_000)).toEqual(waitUntil(3_601_000));
    expect(stepOf(kept({ item: null }), RUNNING, 100_000)).toEqual(waitUntil(3_601_000));
  });

  test("it is looked at once more when it has run long enough to have served", () => {
    expect(stepOf(kept({ firstBeatSeen: false }), RUNNING, 2_000)).toEqual(waitUntil(6_000));
  });

  test("told to stop: the Pod is deleted at once, with its grace, since its program hears nothing of it", () => {
    const claim = kept({ lease: held(20_000, { state: "stopping" }) });
    expect(stepOf(claim, RUNNING, 21_000)).toMatchObject({ do: "delete-pod", why: "StoppedByUser" });
    expect(stepOf(claim, PREPARING, 2_000)).toMatchObject({ do: "delete-pod", why: "StoppedByUser" });
  });

  test("while it is being deleted it is waited for, and beaten on", () => {
    const claim = kept({ lease: held(20_000, { state: "stopping" }) });
    expect(stepOf(claim, RUNNING, 22_000, { podGoneByMs: POLLED + 170_000 })).toEqual(waitUntil(170_000));
  });

  test("stopped: the Pod is deleted", () => {
    const lease: Lease = { is: "over" };
    expect(stepOf(kept({ lease }), RUNNING, 21_000)).toMatchObject({ do: "delete-pod", why: "StoppedByUser" });
  });

  test.each(["refusal", "silence"] as const)("lost by %s: the Pod is deleted, and says why", (by) => {
    expect(stepOf(kept({ lease: lost(by) }), RUNNING, 21_000)).toMatchObject({
      do: "delete-pod",
      why: "LeaseLost",
      message: "the lease of the work item is lost: it went",
    });
  });

  describe("its time over", () => {
    const OVER = 3_601_000;

    test("told to stop, while the lease surely is ours, at its time and not before", () => {
      const claim = kept({ lease: held(OVER - 20_000) });
      expect(stepOf(claim, RUNNING, OVER - 1)).toEqual(waitUntil(OVER));
      expect(stepOf(claim, RUNNING, OVER)).toEqual(GRACEFUL);
    });

    test("not told while the last answered beat is too old: somebody else may have it", () => {
      const claim = kept({ lease: held(OVER - TTL) });
      expect(stepOf(claim, RUNNING, OVER)).toEqual({ do: "wait", untilMs: POLLED + OVER + 500 });
    });

    test("told: the Pod is deleted, with Berth's reason", () => {
      const ending = { why: "MaxDuration", message: "too long" } as const;
      const claim = kept({ ending, gracefulStopMs: POLLED + OVER, lease: held(OVER, { state: "stopping" }) });
      expect(stepOf(claim, RUNNING, OVER + 10)).toEqual({ do: "delete-pod", ...ending });
    });

    test("nobody could be told in its grace: the Pod is deleted all the same", () => {
      const claim = kept({ lease: held(OVER - TTL) });
      expect(stepOf(claim, RUNNING, OVER + 120_000)).toMatchObject({ do: "delete-pod", why: "MaxDuration" });
    });

    test("the Environment deleted: at the end of its grace", () => {
      expect(stepOf(kept(), RUNNING, 30_000, draining(100_000))).toEqual(waitUntil(100_000));
      const fresh = kept({ lease: held(90_000) });
      expect(stepOf(fresh, RUNNING, 100_000, draining(100_000))).toEqual(GRACEFUL);
    });
  });
});

describe("recovery, lease: Operator: with key, container running", () => {
  const RESTART = 500_000;
  const item = (afterMs: number, more = {}) => view("active", POLLED + RESTART + afterMs, more);
  const value = at(POLLED + 2_000);

  test("the first look waits for what the process before had under way", () => {
    expect(stepOf(found(RESTART), RUNNING, RESTART)).toEqual(waitUntil(RESTART + LANDED));
    expect(stepOf(found(RESTART), RUNNING, RESTART + LANDED)).toEqual(LOOK);
    const early = found(RESTART, { item: item(LANDED - 1) });
    expect(stepOf(early, RUNNING, RESTART + LANDED)).toEqual(LOOK);
  });

  test("acknowledged as journaled: beaten with the listed value once it stood still", () => {
    const claim = found(RESTART, { item: item(LANDED) });
    expect(stepOf(claim, RUNNING, RESTART + 3_000)).toEqual({ do: "snapshot", value });
    withFields(claim, { memory: { is: "snapshot", value, sinceMs: POLLED + RESTART + LANDED } });
    expect(stepOf(claim, RUNNING, RESTART + 4_000)).toEqual(waitUntil(RESTART + LANDED + QUIET));
    expect(stepOf(claim, RUNNING, RESTART + LANDED + QUIET)).toEqual({ do: "take", expected: value });
  });

  test("moved: the lease is lost", () => {
    const memory = { is: "snapshot", value: "earlier", sinceMs: POLLED + RESTART + LANDED } as const;
    const claim = found(RESTART, { item: item(20_000), memory });
    expect(stepOf(claim, RUNNING, RESTART + 21_000)).toMatchObject({ do: "lose" });
  });

  test.each([
    ["acknowledged again", item(LANDED, { acknowledgedAt: THEIRS })],
    ["queued again", view("queued", POLLED + RESTART + LANDED)],
    ["absent", view("absent", POLLED + RESTART + LANDED, { acknowledgedAt: null })],
  ] as const)("%s: the lease is lost", (_, seen) => {
    expect(stepOf(found(RESTART, { item: seen }), RUNNING, RESTART + 3_000)).toMatchObject({ do: "lose" });
  });

  test("stopped meanwhile: the Pod is deleted, nothing was lost", () => {
    const claim = found(RESTART, { item: view("stopped", POLLED + RESTART + LANDED) });
    expect(stepOf(claim, RUNNING, RESTART + 3_000)).toMatchObject({ do: "delete-pod", why: "StoppedByUser" });
  });

  test("told to stop meanwhile: beaten at once, values are not compared; then the Pod is deleted", () => {
    const claim = found(RESTART, { item: view("stopping", POLLED + RESTART + LANDED) });
    expect(stepOf(claim, RUNNING, RESTART + 3_000)).toEqual({ do: "take", expected: value });
    withFields(claim, { lease: held(RESTART + 3_000, { state: "stopping" }) });
    expect(stepOf(claim, RUNNING, RESTART + 3_100)).toMatchObject({ do: "delete-pod", why: "StoppedByUser" });
  });

  test("an item that the list could not be read for is looked for again", () => {
    const claim = found(RESTART, { item: view("unknown", POLLED + RESTART + LANDED) });
    expect(stepOf(claim, RUNNING, RESTART + 3_000)).toEqual(waitUntil(RESTART + LANDED + 5_000));
  });

  test("its Pod being deleted: taken over all the same, so that it has its grace", () => {
    const going = { podGoneByMs: POLLED + RESTART + 100_000 };
    const claim = found(RESTART, { item: item(LANDED) });
    expect(stepOf(claim, RUNNING, RESTART + 3_000, going)).toMatchObject({ do: "snapshot" });
    const stopped = found(RESTART, { item: view("stopped", POLLED + RESTART + LANDED) });
    expect(stepOf(stopped, RUNNING, RESTART + 3_000, going)).toEqual(waitUntil(RESTART + 100_000));
  });

  test("overdue by its grace while nobody could take it over: the Pod is deleted", () => {
    const LATE = 3_601_000 + 120_000;
    const claim = found(RESTART, { item: view("unknown", POLLED + LATE) });
    expect(stepOf(claim, RUNNING, LATE, { podAssigned: true })).toMatchObject({ do: "delete-pod", why: "MaxDuration" });
  });

  test.each([
    ["its container over", ended()],
    ["its Pod gone", GONE],
  ] as const)("%s: settled, with a fence of its own", (_, pod) => {
    const claim = found(RESTART, { end: END, endedMs: POLLED + RESTART + 10 });
    expect(stepOf(claim, pod, RESTART + 20)).toEqual(LOOK);
    withFields(claim, { item: item(30) });
    expect(stepOf(claim, pod, RESTART + 40)).toEqual({ do: "snapshot", value });
    withFields(claim, { memory: { is: "snapshot", value, sinceMs: POLLED + RESTART + 30 } });
    expect(stepOf(claim, pod, RESTART + 30 + QUIET)).toEqual({ do: "fence", expected: value });
  });

  test("without key: as after an acknowledgement without an answer; a first beat of the process before stands still first", () => {
    const claim = unopened({ othersUntilMs: POLLED + 6_000, item: view("active", POLLED + 6_100) });
    expect(stepOf(claim, PARKED, 6_200)).toEqual({ do: "snapshot", value });
  });
});

describe("settle, lease: Operator", () => {
  test("the lease in hand: stopped at once, without a look", () => {
    expect(stepOf(over(30_000), ended(), 30_010)).toEqual(STOP);
    expect(stepOf(over(30_000, { item: null }), GONE, 30_010)).toEqual(STOP);
  });

  test("the stop is sent before beat sent + TTL - request bound - 1 s; later, the next beat is waited for", () => {
    expect(stepOf(over(30_000), ended(), 20_000 + TTL - 2_500)).toEqual(STOP);
    expect(stepOf(over(30_000), ended(), 20_000 + TTL - 2_499)).toEqual(waitUntil(20_000 + TTL));
    expect(stepOf(over(30_000), ended(), 20_000 + TTL)).toMatchObject({ do: "wait" });
  });

  test("a machine that slept does not stop by the monotonic clock alone", () => {
    const slept = { wallMs: EPOCH + POLLED + 20_000 + TTL };
    expect(stepOf(over(30_000), ended(), 30_010, slept)).toMatchObject({ do: "wait" });
  });

  test("a TTL too short for a stop: it is let go, and lapses", () => {
    const claim = over(30_000, { lease: held(29_000, { ttlMs: 2_500 }) });
    expect(stepOf(claim, ended(), 30_010)).toEqual({ do: "let-go" });
  });

  test("told to stop while it was ours: stopped at any time", () => {
    const claim = over(30_000, { lease: held(20_000, { state: "stopping" }) });
    expect(stepOf(claim, ended(), 900_000)).toEqual(STOP);
  });

  test("stopped already: settled", () => {
    expect(stepOf(over(30_000, { lease: { is: "over" } }), ended(), 30_010)).toEqual({
      do: "settled",
      because: "stopped",
    });
  });

  test("lost to somebody else: nothing is touched", () => {
    expect(stepOf(over(30_000, { lease: lost("refusal") }), ended(), 30_010)).toEqual({
      do: "settled",
      because: "it went",
    });
  });

  describe("lost by silence: only the list knows whose it is", () => {
    const LAPSED = 300_000;
    const silent = (state: Parameters<typeof view>[0], askedAfter: number, more = {}) =>
      over(30_000, { lease: lost("silence", LAPSED), item: view(state, POLLED + askedAfter, more) });

    test("what was seen before the end counts for nothing", () => {
      expect(stepOf(silent("active", 29_000), ended(), 31_000)).toEqual(LOOK);
    });

    test.each(["queued", "stopped", "absent"] as const)("%s: settled", (state) => {
      expect(stepOf(silent(state, 200_000), ended(), 200_100)).toEqual({ do: "settled", because: state });
    });

    test("told to stop while it was ours, as acknowledged: it could stay so for ever, and is stopped", () => {
      expect(stepOf(silent("stopping", 200_000), ended(), 200_100)).toEqual(STOP);
      const theirs = silent("stopping", 200_000, { acknowledgedAt: THEIRS });
      expect(stepOf(theirs, ended(), 200_100)).toMatchObject({ do: "settled" });
    });

    test("active: its lapse is waited for; active after that, it is somebody else's. It is never fenced", () => {
      // A list that is behind may show it five seconds longer.
      const shown = LAPSED + 5_000;
      expect(stepOf(silent("active", 200_000), ended(), 200_100)).toEqual(waitUntil(shown));
      expect(stepOf(silent("active", 200_000), ended(), 399_000)).toEqual(LOOK);
      expect(stepOf(silent("active", LAPSED), ended(), LAPSED + 100)).toEqual(waitUntil(shown));
      expect(stepOf(silent("active", shown), ended(), shown + 100)).toMatchObject({ do: "settled" });
    });
  });
});

describe("onPodFailure: Release", () => {
  const released = (claim: Claim, pod: Facts["pod"], afterMs: number) => stepOf(claim, pod, afterMs, releasing);
  /** lease: Worker, ended without a word 30 s after the poll. */
  const worker = (more: ClaimFields = {}) =>
    opened({ startedAtMs: EPOCH + POLLED + 1_000, end: KILLED, endedMs: POLLED + 30_000, ...more });

  describe("lease: Operator", () => {
    test.each([
      ["killed", KILLED],
      ["out of memory", { ...KILLED, cause: "OOMKilled" as const }],
      ["its node lost", { ...END, cause: "NodeLost" as const, exitCode: null }],
      ["its Pod gone unseen", { ...END, cause: "PodDeleted" as const, exitCode: null }],
      ["never started", { ...END, cause: "StartFailed" as const, exitCode: 128, startedAtMs: null }],
    ])("%s: beaten no more", (_, end) => {
      expect(released(over(30_000, { end }), ended(end), 30_010)).toEqual({ do: "let-go" });
    });

    test.each([
      ["ended well", END],
      ["ended badly by itself", { ...END, cause: "Failed" as const, exitCode: 3 }],
      ["ended by a signal that it could handle", { ...END, cause: "PodDeleted" as const, exitCode: 143 }],
      ["reached its deadline", { ...KILLED, cause: "DeadlineExceeded" as const }],
    ])("%s: stopped as ever", (_, end) => {
      expect(released(over(30_000, { end }), ended(end), 30_010)).toEqual(STOP);
    });

    test.each<Ending>(["MaxDuration", "EnvironmentDeleted", "StoppedByUser"])(
      "ended by Berth itself (%s), it is stopped although it had to be killed",
      (why) => {
        const claim = over(30_000, { end: KILLED, ending: { why, message: "" } });
        expect(released(claim, ended(KILLED), 30_010)).toEqual(STOP);
      },
    );

    test("an item that died too often already is stopped", () => {
      expect(stepOf(over(30_000, { end: KILLED }), ended(KILLED), 30_010)).toEqual(STOP);
    });

    test("told to stop: stopped, nobody would run it any more", () => {
      const claim = over(30_000, { end: KILLED, lease: held(20_000, { state: "stopping" }) });
      expect(released(claim, ended(KILLED), 30_010)).toEqual(STOP);
    });

    test("let go, it is looked for when it has lapsed", () => {
      const memory = { is: "fenced", beatSentMs: POLLED + 20_000, ttlMs: TTL } as const;
      const claim = over(30_000, { end: KILLED, lease: null, memory, item: view("active", POLLED + 30_100) });
      expect(released(claim, ended(KILLED), 30_200)).toEqual(waitUntil(20_000 + TTL + 1_500));
      expect(released(claim, ended(KILLED), 20_000 + TTL + 1_500)).toEqual(LOOK);
      withFields(claim, { item: view("queued", POLLED + 210_000) });
      expect(released(claim, ended(KILLED), 210_100)).toEqual({ do: "settled", because: "queued" });
    });

    test("its Pod lost before the opening: let go; while the Environment is deleted: stopped", () => {
      expect(released(unopened({ lease: held(900) }), GONE, 1_000)).toEqual({ do: "let-go" });
      const limits = { ...LIMITS, onPodFailure: "Release" as const, draining: true, drainDeadlineMs: POLLED };
      expect(stepOf(unopened({ lease: held(900) }), GONE, 1_000, { limits })).toEqual(STOP);
    });
  });

  describe("lease: Worker", () => {
    test("active: its lease lapses by itself; it is looked for less and less often, never fenced, never stopped", () => {
      const claim = worker({ item: view("active", POLLED + 30_100) });
      expect(released(claim, ended(KILLED), 30_200)).toEqual(waitUntil(35_100));
      expect(released(claim, ended(KILLED), 35_100)).toEqual(LOOK);
      withFields(claim, { item: view("active", POLLED + 70_000) });
      expect(released(claim, ended(KILLED), 70_100)).toEqual(waitUntil(110_000));
      withFields(claim, { item: view("active", POLLED + 900_000) });
      expect(released(claim, ended(KILLED), 900_100)).toEqual(waitUntil(1_200_000));
    });

    test("starting: beaten once, else it could stay so for ever; then it lapses", () => {
      const claim = worker({ item: view("starting", POLLED + 30_100) });
      expect(released(claim, ended(KILLED), 30_200)).toEqual({ do: "fence", expected: NO_HEARTBEAT });
      withFields(claim, { memory: { is: "fenced", beatSentMs: POLLED + 30_300, ttlMs: 90_000 }, item: null });
      expect(released(claim, ended(KILLED), 30_400)).toEqual(LOOK);
      withFields(claim, { item: view("active", POLLED + 30_500) });
      expect(released(claim, ended(KILLED), 30_600)).toEqual(waitUntil(30_300 + 90_000 + 1_500));
    });

    test("stopping: stopped", () => {
      expect(released(worker({ item: view("stopping", POLLED + 30_100) }), ended(KILLED), 30_200)).toEqual(STOP);
    });

    test.each(["queued", "stopped"] as const)("%s: its Secret goes", (state) => {
      const claim = worker({ item: view(state, POLLED + 30_100) });
      expect(released(claim, ended(KILLED), 30_200)).toEqual({ do: "settled", because: state });
    });

    test("acknowledged again: its Secret goes", () => {
      const claim = worker({ item: view("active", POLLED + 30_100, { acknowledgedAt: THEIRS }) });
      expect(released(claim, ended(KILLED), 30_200)).toMatchObject({ do: "settled" });
    });

    test("an item without a credential is stopped all the same: there is nothing to run it with", () => {
      const refusal = acknowledged({ journal: { ...JOURNAL, use: "refusal" } });
      expect(released(refusal, GONE, 800)).toEqual({ do: "fence", expected: NO_HEARTBEAT });
      withFields(refusal, {
        memory: { is: "fenced", beatSentMs: POLLED + 900, ttlMs: 90_000, value: at(POLLED + 2_000) },
      });
      withFields(refusal, { item: view("active", POLLED + 950) });
      expect(released(refusal, GONE, 1_000)).toEqual(STOP);
    });
  });
});

describe("whatever the state of a claim whose lease the operator keeps", () => {
  const memories: Claim["lease"]["memory"][] = [
    { is: "none" },
    { is: "snapshot", value: at(POLLED + 2_000), sinceMs: POLLED + 10_000 },
    { is: "snapshot", value: at(POLLED + 1), sinceMs: POLLED + 15_000 },
    { is: "fenced", beatSentMs: POLLED + 15_000, ttlMs: 90_000 },
    { is: "refused", atMs: POLLED + 20_000 },
  ];
  const leases: (Lease | null)[] = [
    null,
    held(10_000),
    held(19_000, { ttlMs: 2_000 }),
    held(10_000, { state: "stopping" }),
    lost("refusal", 100_000),
    lost("silence", 100_000),
    { is: "over" },
  ];
  const claims: (() => Claim)[] = [
    unopened,
    kept,
    () => found(5_000),
    () => over(15_000),
    () => over(15_000, { end: KILLED }),
    () => kept({ gracefulStopMs: POLLED + 12_000, ending: { why: "MaxDuration", message: "" } }),
  ];
  const pods: Facts["pod"][] = [
    PARKED,
    PREPARING,
    RUNNING,
    ended(),
    ended({ startedAtMs: null, exitCode: null }),
    GONE,
  ];
  const situations: Partial<Facts>[] = [
    {},
    releasing,
    draining(0),
    { podGoneByMs: POLLED + 10_000_000 },
    { podAssigned: false },
  ];

  function* all(afterMs: number): Generator<{ facts: Facts; step: Step }> {
    for (const make of claims)
      for (const item of EVERY_ITEM)
        for (const memory of memories)
          for (const lease of leases)
            for (const pod of pods)
              for (const more of situations) {
                const claim = withFields(make(), { item, memory, lease });
                const asked = facts(claim, pod, afterMs, more);
                yield { facts: asked, step: nextStep(asked) };
              }
  }

  const TIMES = [0, 5_000, 30_000, 61_000, 188_000, 500_000, 4_000_000];

  test.each(TIMES)("every wait ends by the clock, after now (%d ms)", (afterMs) => {
    for (const { facts: asked, step } of all(afterMs)) {
      if (step.do !== "wait") continue;
      expect(Number.isFinite(step.untilMs)).toBe(true);
      expect(step.untilMs).toBeGreaterThan(asked.nowMs);
    }
  });

  test.each(TIMES)("nothing is stopped without the lease in hand, or told to stop already (%d ms)", (afterMs) => {
    for (const { facts: asked, step } of all(afterMs)) {
      if (step.do !== "stop") continue;
      const {
        lease: { own: lease, memory },
        observed: { item },
        record: { acknowledgedAt },
      } = asked.claim;
      const { requestBoundMs, marginMs } = DEFAULT_TIMING;
      if (lease?.is === "held") {
        const lastMs = lease.sentMs + lease.ttlMs - requestBoundMs - marginMs;
        expect(lease.state === "stopping" || asked.nowMs <= lastMs).toBe(true);
        continue;
      }
      expect(step.force).toBe(true);
      expect(lease?.is === "lost" && lease.by === "refusal").toBe(false);
      expect(item?.acknowledgedAt).toBe(acknowledgedAt);
      if (item?.state === "stopping") continue;
      if (memory.is !== "fenced") throw new Error(`stop with memory ${memory.is}`);
      expect(lease).toBeNull();
      expect(asked.nowMs).toBeLessThanOrEqual(memory.beatSentMs + memory.ttlMs - requestBoundMs - marginMs);
    }
  });

  test.each(TIMES)("no container that runs is stopped under, nor opened without the lease (%d ms)", (afterMs) => {
    for (const { facts: asked, step } of all(afterMs)) {
      const { claim, pod } = asked;
      if (step.do === "open" && pod.is === "parked")
        expect(claim.lease.own).toMatchObject({ is: "held", state: "active" });
      const runs = pod.is === "running" && claim.observed.end === null && claim.record.journal.opened;
      if (runs && step.do === "stop") expect(step.force).toBe(false);
    }
  });

  test.each(TIMES)("a lease that is lost is neither taken nor fenced again (%d ms)", (afterMs) => {
    for (const { facts: asked, step } of all(afterMs)) {
      if (asked.claim.lease.own?.is !== "lost") continue;
      expect(
        ["take", "fence", "open"].includes(step.do) && asked.pod.is !== "running" && asked.pod.is !== "ended",
      ).toBe(false);
    }
  });

  test.each(TIMES)("a claim ends only when its item is out of its hands (%d ms)", (afterMs) => {
    for (const { facts: asked, step } of all(afterMs)) {
      if (step.do !== "drop" && step.do !== "settled") continue;
      const {
        observed: { item },
        record: { acknowledgedAt },
        lease: { own: lease },
      } = asked.claim;
      if (lease?.is === "over" || (lease?.is === "lost" && lease.by === "refusal")) continue;
      expect(lease?.is).not.toBe("held");
      const lapsed = lease?.is === "lost" && (item?.askedMs ?? 0) >= lease.lapsedMs;
      const others = item?.acknowledgedAt !== acknowledgedAt;
      const isOver = ["queued", "stopped", "absent"].includes(item?.state ?? "");
      expect(isOver || others || lapsed || (lease?.is === "lost" && item?.state === "starting")).toBe(true);
    }
  });
});
