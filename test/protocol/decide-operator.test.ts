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
import { type Decided, isFiniteWait, testRules } from "./every-state.ts";

const SECOND = 1_000;
const TTL = 180 * SECOND;
const PREPARING: Facts["pod"] = { is: "preparing", problem: null };
/** How long a value must stay unchanged. */
const QUIET = 50 * SECOND;
/** How long after a restart the previous process's heartbeats may still take effect. */
const LANDED = 2_500;

const LOOK: Step = { do: "look" };
const STOP: Step = { do: "stop", force: true };
const GRACEFUL: Step = { do: "stop", force: false };
const waitUntil = (afterMs: number): Step => ({ do: "wait", untilMs: POLLED + afterMs });

/** A lease whose last answered heartbeat was sent this long after the poll. */
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
/** Opened, with the last heartbeat 20 s after the poll. */
const kept = (more: ClaimFields = {}) => operator(opened({ lease: held(20_000), firstBeatSeen: true }), more);
/** Opened, ended `endedAfterMs` after the poll, with the last heartbeat 20 s after the poll. */
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

describe("5. open, lease: Operator: no container starts without a lease", () => {
  test("sends the first heartbeat before it opens the Secret", () => {
    expect(stepOf(unopened(), PARKED, 800)).toEqual({ do: "take", expected: NO_HEARTBEAT });
  });

  test("opens the Secret once it holds the lease", () => {
    expect(stepOf(unopened({ lease: held(900), item: null }), PARKED, 1_000)).toEqual({
      do: "open",
      acknowledgedAt: OURS,
    });
  });

  test("lists an old view again before the first heartbeat", () => {
    expect(stepOf(unopened(), PARKED, 31_000)).toEqual(LOOK);
  });

  test("repeats a first heartbeat that got no answer", () => {
    const item = view("starting", POLLED + 3_000);
    expect(stepOf(unopened({ item: null }), PARKED, 3_000)).toEqual(LOOK);
    expect(stepOf(unopened({ item }), PARKED, 3_100)).toEqual({ do: "take", expected: NO_HEARTBEAT });
  });

  test("takes the lease after a refused first heartbeat, once the value stays unchanged", () => {
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

  test("waits again, without opening, when the value changed: another client sends heartbeats", () => {
    const memory = { is: "snapshot", value: "earlier", sinceMs: POLLED + 6_000 } as const;
    const seen = unopened({ item: view("active", POLLED + 50_000), memory });
    expect(stepOf(seen, PARKED, 6_000 + QUIET)).toMatchObject({ do: "snapshot" });
  });

  test.each(["queued", "stopped"] as const)("drops an item that is %s instead", (state) => {
    const claim = unopened({ item: view(state, POLLED + 6_000) });
    expect(stepOf(claim, PARKED, 6_100)).toEqual({ do: "settled", because: state });
  });

  test("drops an item that another client acknowledged, without opening it", () => {
    const claim = unopened({ item: view("starting", POLLED + 6_000, { acknowledgedAt: THEIRS }) });
    expect(stepOf(claim, PARKED, 6_100)).toEqual({ do: "settled", because: "acknowledged by another client" });
  });

  test("waits for the next heartbeat when the lease may not outlast the opening", () => {
    const claim = unopened({ lease: held(1_000) });
    expect(stepOf(claim, PARKED, 1_000 + TTL - 2_500)).toMatchObject({ do: "open" });
    expect(stepOf(claim, PARKED, 1_000 + TTL - 2_499)).toEqual(waitUntil(1_000 + TTL));
  });

  test("starts and stops nothing when the lease is lost before the opening", () => {
    expect(stepOf(unopened({ lease: lost("refusal") }), PARKED, 60_000)).toEqual({
      do: "settled",
      because: "it went",
    });
  });

  test.each([
    ["gone", GONE, {}],
    ["ended before it started", ended({ cause: "Evicted", startedAtMs: null }), {}],
    ["being deleted", PARKED, { podGoneByMs: POLLED + 30_000 }],
    ["ready, but the Environment being deleted", PARKED, draining(600_000)],
  ] as const)("stops the item when it holds the lease and the Pod is %s", (_, pod, more) => {
    expect(stepOf(unopened({ lease: held(900) }), pod, 1_000, more)).toEqual(STOP);
  });

  test("waits for a Pod that is briefly not parked", () => {
    expect(stepOf(unopened({ lease: held(900) }), PREPARING, 1_000)).toEqual(waitUntil(25_000));
  });

  test("stops an item that was told to stop before the opening", () => {
    expect(stepOf(unopened({ lease: held(900, { state: "stopping" }) }), PARKED, 1_000)).toEqual(STOP);
  });
});

describe("6. watch, lease: Operator", () => {
  test("touches a waiting container again, and detects a failed start, as with lease: Worker", () => {
    expect(stepOf(kept(), PARKED, 1_410)).toEqual({ do: "touch" });
    const problem = { reason: "CreateContainerError", message: "no such command" };
    expect(stepOf(kept(), { is: "preparing", problem }, 2_000)).toMatchObject({ do: "delete-pod", why: "StartFailed" });
    expect(stepOf(kept(), PREPARING, 60_900)).toMatchObject({ do: "delete-pod", why: "StartFailed" });
  });

  test("does not end a program without heartbeats before maxDurationSeconds: the operator sends them", () => {
    expect(stepOf(kept(), RUNNING, 100_000)).toEqual(waitUntil(3_601_000));
    expect(stepOf(kept({ item: null }), RUNNING, 100_000)).toEqual(waitUntil(3_601_000));
  });

  test("reads the item again once the program has run long enough to have served", () => {
    expect(stepOf(kept({ firstBeatSeen: false }), RUNNING, 2_000)).toEqual(waitUntil(6_000));
  });

  test("deletes the Pod of a stopping item immediately, since its program does not learn of the stop", () => {
    const claim = kept({ lease: held(20_000, { state: "stopping" }) });
    expect(stepOf(claim, RUNNING, 21_000)).toMatchObject({ do: "delete-pod", why: "StoppedByUser" });
    expect(stepOf(claim, PREPARING, 2_000)).toMatchObject({ do: "delete-pod", why: "StoppedByUser" });
  });

  test("waits for the deletion of the Pod, and continues heartbeats", () => {
    const claim = kept({ lease: held(20_000, { state: "stopping" }) });
    expect(stepOf(claim, RUNNING, 22_000, { podGoneByMs: POLLED + 170_000 })).toEqual(waitUntil(170_000));
  });

  test("deletes the Pod of a stopped item", () => {
    const lease: Lease = { is: "over" };
    expect(stepOf(kept({ lease }), RUNNING, 21_000)).toMatchObject({ do: "delete-pod", why: "StoppedByUser" });
  });

  test.each(["refusal", "silence"] as const)("deletes the Pod and says why when the lease is lost by %s", (by) => {
    expect(stepOf(kept({ lease: lost(by) }), RUNNING, 21_000)).toMatchObject({
      do: "delete-pod",
      why: "LeaseLost",
      message: "the lease of the work item is lost: it went",
    });
  });

  describe("past maxDurationSeconds", () => {
    const OVER = 3_601_000;

    test("stops the item gracefully at that time, while it certainly holds the lease", () => {
      const claim = kept({ lease: held(OVER - 20_000) });
      expect(stepOf(claim, RUNNING, OVER - 1)).toEqual(waitUntil(OVER));
      expect(stepOf(claim, RUNNING, OVER)).toEqual(GRACEFUL);
    });

    test("sends no stop while the last answered heartbeat is too old: another client may hold the item", () => {
      const claim = kept({ lease: held(OVER - TTL) });
      expect(stepOf(claim, RUNNING, OVER)).toEqual({ do: "wait", untilMs: POLLED + OVER + 500 });
    });

    test("deletes the Pod after the stop, with Berth's reason", () => {
      const ending = { why: "MaxDuration", message: "too long" } as const;
      const claim = kept({ ending, gracefulStopMs: POLLED + OVER, lease: held(OVER, { state: "stopping" }) });
      expect(stepOf(claim, RUNNING, OVER + 10)).toEqual({ do: "delete-pod", ...ending });
    });

    test("deletes the Pod after the grace period if no stop could be sent", () => {
      const claim = kept({ lease: held(OVER - TTL) });
      expect(stepOf(claim, RUNNING, OVER + 120_000)).toMatchObject({ do: "delete-pod", why: "MaxDuration" });
    });

    test("stops the item at the end of a deleted Environment's grace period", () => {
      expect(stepOf(kept(), RUNNING, 30_000, draining(100_000))).toEqual(waitUntil(100_000));
      const fresh = kept({ lease: held(90_000) });
      expect(stepOf(fresh, RUNNING, 100_000, draining(100_000))).toEqual(GRACEFUL);
    });
  });
});

describe("recovery, lease: Operator: the Secret has the key and the container runs", () => {
  const RESTART = 500_000;
  const item = (afterMs: number, more = {}) => view("active", POLLED + RESTART + afterMs, more);
  const value = at(POLLED + 2_000);

  test("waits for requests of the previous process before the first list", () => {
    expect(stepOf(found(RESTART), RUNNING, RESTART)).toEqual(waitUntil(RESTART + LANDED));
    expect(stepOf(found(RESTART), RUNNING, RESTART + LANDED)).toEqual(LOOK);
    const early = found(RESTART, { item: item(LANDED - 1) });
    expect(stepOf(early, RUNNING, RESTART + LANDED)).toEqual(LOOK);
  });

  test("takes the lease of an item acknowledged as journaled, once its value stays unchanged", () => {
    const claim = found(RESTART, { item: item(LANDED) });
    expect(stepOf(claim, RUNNING, RESTART + 3_000)).toEqual({ do: "snapshot", value });
    withFields(claim, { memory: { is: "snapshot", value, sinceMs: POLLED + RESTART + LANDED } });
    expect(stepOf(claim, RUNNING, RESTART + 4_000)).toEqual(waitUntil(RESTART + LANDED + QUIET));
    expect(stepOf(claim, RUNNING, RESTART + LANDED + QUIET)).toEqual({ do: "take", expected: value });
  });

  test("loses the lease when the value changed", () => {
    const memory = { is: "snapshot", value: "earlier", sinceMs: POLLED + RESTART + LANDED } as const;
    const claim = found(RESTART, { item: item(20_000), memory });
    expect(stepOf(claim, RUNNING, RESTART + 21_000)).toMatchObject({ do: "lose" });
  });

  test.each([
    ["acknowledged again", item(LANDED, { acknowledgedAt: THEIRS })],
    ["queued again", view("queued", POLLED + RESTART + LANDED)],
    ["absent", view("absent", POLLED + RESTART + LANDED, { acknowledgedAt: null })],
  ] as const)("loses the lease when the item is %s", (_, seen) => {
    expect(stepOf(found(RESTART, { item: seen }), RUNNING, RESTART + 3_000)).toMatchObject({ do: "lose" });
  });

  test("deletes the Pod of an item that was stopped meanwhile, without losing the lease", () => {
    const claim = found(RESTART, { item: view("stopped", POLLED + RESTART + LANDED) });
    expect(stepOf(claim, RUNNING, RESTART + 3_000)).toMatchObject({ do: "delete-pod", why: "StoppedByUser" });
  });

  test("takes the lease of a stopping item immediately, whatever its value, and deletes the Pod", () => {
    const claim = found(RESTART, { item: view("stopping", POLLED + RESTART + LANDED) });
    expect(stepOf(claim, RUNNING, RESTART + 3_000)).toEqual({ do: "take", expected: value });
    withFields(claim, { lease: held(RESTART + 3_000, { state: "stopping" }) });
    expect(stepOf(claim, RUNNING, RESTART + 3_100)).toMatchObject({ do: "delete-pod", why: "StoppedByUser" });
  });

  test("lists again when the list could not be read", () => {
    const claim = found(RESTART, { item: view("unknown", POLLED + RESTART + LANDED) });
    expect(stepOf(claim, RUNNING, RESTART + 3_000)).toEqual(waitUntil(RESTART + LANDED + 5_000));
  });

  test("adopts a session whose Pod is being deleted, for its grace period", () => {
    const going = { podGoneByMs: POLLED + RESTART + 100_000 };
    const claim = found(RESTART, { item: item(LANDED) });
    expect(stepOf(claim, RUNNING, RESTART + 3_000, going)).toMatchObject({ do: "snapshot" });
    const stopped = found(RESTART, { item: view("stopped", POLLED + RESTART + LANDED) });
    expect(stepOf(stopped, RUNNING, RESTART + 3_000, going)).toEqual(waitUntil(RESTART + 100_000));
  });

  test("deletes an overdue Pod after its grace period if the session could not be adopted", () => {
    const LATE = 3_601_000 + 120_000;
    const claim = found(RESTART, { item: view("unknown", POLLED + LATE) });
    expect(stepOf(claim, RUNNING, LATE, { podAssigned: true })).toMatchObject({ do: "delete-pod", why: "MaxDuration" });
  });

  test.each([
    ["its container has ended", ended()],
    ["its Pod was deleted", GONE],
  ] as const)("settles with its own fence when %s", (_, pod) => {
    const claim = found(RESTART, { end: END, endedMs: POLLED + RESTART + 10 });
    expect(stepOf(claim, pod, RESTART + 20)).toEqual(LOOK);
    withFields(claim, { item: item(30) });
    expect(stepOf(claim, pod, RESTART + 40)).toEqual({ do: "snapshot", value });
    withFields(claim, { memory: { is: "snapshot", value, sinceMs: POLLED + RESTART + 30 } });
    expect(stepOf(claim, pod, RESTART + 30 + QUIET)).toEqual({ do: "fence", expected: value });
  });

  test("without the key, waits for the previous process's first heartbeat to stay unchanged", () => {
    const claim = unopened({ othersUntilMs: POLLED + 6_000, item: view("active", POLLED + 6_100) });
    expect(stepOf(claim, PARKED, 6_200)).toEqual({ do: "snapshot", value });
  });
});

describe("settle, lease: Operator", () => {
  test("settles by the lease that the operator took, even if someone writes Worker into the claim's Secret", () => {
    const claim = over(30_000);
    const edited = withFields(claim, { journal: { ...claim.record.journal, lease: "Worker" } });
    expect(stepOf(edited, ended(), 30_010)).toEqual(STOP);
  });

  test("stops the item at once while it holds the lease, without a list", () => {
    expect(stepOf(over(30_000), ended(), 30_010)).toEqual(STOP);
    expect(stepOf(over(30_000, { item: null }), GONE, 30_010)).toEqual(STOP);
  });

  test("sends the stop before heartbeat sent + TTL - request timeout - 1 s, or waits for the next heartbeat", () => {
    expect(stepOf(over(30_000), ended(), 20_000 + TTL - 2_500)).toEqual(STOP);
    expect(stepOf(over(30_000), ended(), 20_000 + TTL - 2_499)).toEqual(waitUntil(20_000 + TTL));
    expect(stepOf(over(30_000), ended(), 20_000 + TTL)).toMatchObject({ do: "wait" });
  });

  test("sends no stop after the machine slept, even if the monotonic clock allows it", () => {
    const slept = { wallMs: EPOCH + POLLED + 20_000 + TTL };
    expect(stepOf(over(30_000), ended(), 30_010, slept)).toMatchObject({ do: "wait" });
  });

  test("lets the lease lapse when the TTL is too short for a stop", () => {
    const claim = over(30_000, { lease: held(29_000, { ttlMs: 2_500 }) });
    expect(stepOf(claim, ended(), 30_010)).toEqual({ do: "let-go" });
  });

  test("stops at any time an item that was told to stop while we held it", () => {
    const claim = over(30_000, { lease: held(20_000, { state: "stopping" }) });
    expect(stepOf(claim, ended(), 900_000)).toEqual(STOP);
  });

  test("settles an item that is already stopped", () => {
    expect(stepOf(over(30_000, { lease: { is: "over" } }), ended(), 30_010)).toEqual({
      do: "settled",
      because: "stopped",
    });
  });

  test("sends nothing for a lease that another client took", () => {
    expect(stepOf(over(30_000, { lease: lost("refusal") }), ended(), 30_010)).toEqual({
      do: "settled",
      because: "it went",
    });
  });

  describe("a lease lost by silence, so that only the list shows who holds the item", () => {
    const LAPSED = 300_000;
    const silent = (state: Parameters<typeof view>[0], askedAfter: number, more = {}) =>
      over(30_000, { lease: lost("silence", LAPSED), item: view(state, POLLED + askedAfter, more) });

    test("ignores a view from before the end", () => {
      expect(stepOf(silent("active", 29_000), ended(), 31_000)).toEqual(LOOK);
    });

    test.each(["queued", "stopped", "absent"] as const)("settles a %s item", (state) => {
      expect(stepOf(silent(state, 200_000), ended(), 200_100)).toEqual({ do: "settled", because: state });
    });

    test("stops an item that was told to stop while we held it, or it could stay `stopping` forever", () => {
      expect(stepOf(silent("stopping", 200_000), ended(), 200_100)).toEqual(STOP);
      const theirs = silent("stopping", 200_000, { acknowledgedAt: THEIRS });
      expect(stepOf(theirs, ended(), 200_100)).toMatchObject({ do: "settled" });
    });

    test("lets an active item's lease lapse, never fences it, and leaves it to another client then", () => {
      // A lagging list may show the item for five seconds more.
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
  /** lease: Worker, killed without a stop 30 s after the poll. */
  const worker = (more: ClaimFields = {}) =>
    opened({ startedAtMs: EPOCH + POLLED + 1_000, end: KILLED, endedMs: POLLED + 30_000, ...more });

  describe("lease: Operator", () => {
    test.each([
      ["killed", KILLED],
      ["out of memory", { ...KILLED, cause: "OOMKilled" as const }],
      ["its node is lost", { ...END, cause: "NodeLost" as const, exitCode: null }],
      ["its Pod was deleted", { ...END, cause: "PodDeleted" as const, exitCode: null }],
      ["it never started", { ...END, cause: "StartFailed" as const, exitCode: 128, startedAtMs: null }],
    ])("lets the lease go: %s", (_, end) => {
      expect(released(over(30_000, { end }), ended(end), 30_010)).toEqual({ do: "let-go" });
    });

    test.each([
      ["it ended well", END],
      ["it failed on its own", { ...END, cause: "Failed" as const, exitCode: 3 }],
      ["it handled the signal that ended it", { ...END, cause: "PodDeleted" as const, exitCode: 143 }],
      ["reached its deadline", { ...KILLED, cause: "DeadlineExceeded" as const }],
    ])("stops the item as usual: %s", (_, end) => {
      expect(released(over(30_000, { end }), ended(end), 30_010)).toEqual(STOP);
    });

    test.each<Ending>(["MaxDuration", "EnvironmentDeleted", "StoppedByUser"])(
      "stops the item when Berth ended it (%s), even if it had to be killed",
      (why) => {
        const claim = over(30_000, { end: KILLED, ending: { why, message: "" } });
        expect(released(claim, ended(KILLED), 30_010)).toEqual(STOP);
      },
    );

    test("stops an item that has died too often", () => {
      expect(stepOf(over(30_000, { end: KILLED }), ended(KILLED), 30_010)).toEqual(STOP);
    });

    test("stops an item that was told to stop, since no client would run it again", () => {
      const claim = over(30_000, { end: KILLED, lease: held(20_000, { state: "stopping" }) });
      expect(released(claim, ended(KILLED), 30_010)).toEqual(STOP);
    });

    test("lists the item after its lease has lapsed", () => {
      const memory = { is: "fenced", beatSentMs: POLLED + 20_000, ttlMs: TTL } as const;
      const claim = over(30_000, { end: KILLED, lease: null, memory, item: view("active", POLLED + 30_100) });
      expect(released(claim, ended(KILLED), 30_200)).toEqual(waitUntil(20_000 + TTL + 1_500));
      expect(released(claim, ended(KILLED), 20_000 + TTL + 1_500)).toEqual(LOOK);
      withFields(claim, { item: view("queued", POLLED + 210_000) });
      expect(released(claim, ended(KILLED), 210_100)).toEqual({ do: "settled", because: "queued" });
    });

    test("lets the lease go when the Pod is lost before the opening, or stops the item during a drain", () => {
      expect(released(unopened({ lease: held(900) }), GONE, 1_000)).toEqual({ do: "let-go" });
      const limits = { ...LIMITS, onPodFailure: "Release" as const, draining: true, drainDeadlineMs: POLLED };
      expect(stepOf(unopened({ lease: held(900) }), GONE, 1_000, { limits })).toEqual(STOP);
    });
  });

  describe("lease: Worker", () => {
    test("lets an active item's lease lapse, lists it less and less often, and neither fences nor stops it", () => {
      const claim = worker({ item: view("active", POLLED + 30_100) });
      expect(released(claim, ended(KILLED), 30_200)).toEqual(waitUntil(35_100));
      expect(released(claim, ended(KILLED), 35_100)).toEqual(LOOK);
      withFields(claim, { item: view("active", POLLED + 70_000) });
      expect(released(claim, ended(KILLED), 70_100)).toEqual(waitUntil(110_000));
      withFields(claim, { item: view("active", POLLED + 900_000) });
      expect(released(claim, ended(KILLED), 900_100)).toEqual(waitUntil(1_200_000));
    });

    test("sends one heartbeat for a starting item, or it could stay starting forever, and lets it lapse", () => {
      const claim = worker({ item: view("starting", POLLED + 30_100) });
      expect(released(claim, ended(KILLED), 30_200)).toEqual({ do: "fence", expected: NO_HEARTBEAT });
      withFields(claim, { memory: { is: "fenced", beatSentMs: POLLED + 30_300, ttlMs: 90_000 }, item: null });
      expect(released(claim, ended(KILLED), 30_400)).toEqual(LOOK);
      withFields(claim, { item: view("active", POLLED + 30_500) });
      expect(released(claim, ended(KILLED), 30_600)).toEqual(waitUntil(30_300 + 90_000 + 1_500));
    });

    test("stops a stopping item", () => {
      expect(released(worker({ item: view("stopping", POLLED + 30_100) }), ended(KILLED), 30_200)).toEqual(STOP);
    });

    test.each(["queued", "stopped"] as const)("deletes the Secret of a %s item", (state) => {
      const claim = worker({ item: view(state, POLLED + 30_100) });
      expect(released(claim, ended(KILLED), 30_200)).toEqual({ do: "settled", because: state });
    });

    test("deletes the Secret of an item that was acknowledged again", () => {
      const claim = worker({ item: view("active", POLLED + 30_100, { acknowledgedAt: THEIRS }) });
      expect(released(claim, ended(KILLED), 30_200)).toMatchObject({ do: "settled" });
    });

    test("still stops an item without a credential, since it can't run", () => {
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

describe("in every state of a claim whose lease the operator keeps", () => {
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

  function* all(afterMs: number): Generator<Decided> {
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

  testRules([0, 5_000, 30_000, 61_000, 188_000, 500_000, 4_000_000], all, {
    "every wait ends at a finite time after now": isFiniteWait,

    "no stop is sent without the lease, unless the item is already stopping": ({ claim, nowMs }, step) => {
      if (step.do !== "stop") return true;
      const { own: lease, memory } = claim.lease;
      const { item } = claim.observed;
      const { requestBoundMs, marginMs } = DEFAULT_TIMING;
      if (lease?.is === "held") {
        return lease.state === "stopping" || nowMs <= lease.sentMs + lease.ttlMs - requestBoundMs - marginMs;
      }
      const isRefused = lease?.is === "lost" && lease.by === "refusal";
      if (!step.force || isRefused || item?.acknowledgedAt !== claim.record.acknowledgedAt) return false;
      if (item?.state === "stopping") return true;
      const isFenced = lease === null && memory.is === "fenced";
      return isFenced && nowMs <= memory.beatSentMs + memory.ttlMs - requestBoundMs - marginMs;
    },

    "no item is stopped under a running container, or opened without the lease": ({ claim, pod }, step) => {
      const { own: lease } = claim.lease;
      if (step.do === "open" && pod.is === "parked") return lease?.is === "held" && lease.state === "active";
      const runs = pod.is === "running" && claim.observed.end === null && claim.record.journal.opened;
      return !(runs && step.do === "stop" && step.force);
    },

    "a lost lease is neither taken nor fenced again": ({ claim, pod }, step) => {
      if (claim.lease.own?.is !== "lost" || pod.is === "running" || pod.is === "ended") return true;
      return !["take", "fence", "open"].includes(step.do);
    },

    "a claim ends only when it no longer holds its item": ({ claim }, step) => {
      if (step.do !== "drop" && step.do !== "settled") return true;
      const { item } = claim.observed;
      const { own: lease } = claim.lease;
      if (lease?.is === "over" || (lease?.is === "lost" && lease.by === "refusal")) return true;
      if (lease?.is === "held") return false;
      const lapsed = lease?.is === "lost" && (item?.askedMs ?? 0) >= lease.lapsedMs;
      const others = item?.acknowledgedAt !== claim.record.acknowledgedAt;
      const isOver = ["queued", "stopped", "absent"].includes(item?.state ?? "");
      return isOver || others || lapsed || (lease?.is === "lost" && item?.state === "starting");
    },
  });
});
