import { describe, expect, test } from "vitest";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { Claim } from "../../src/protocol/claim.ts";
import { nextStep } from "../../src/protocol/decide.ts";
import type { Facts } from "../../src/protocol/facts.ts";
import type { Step } from "../../src/protocol/step.ts";
import { NO_HEARTBEAT } from "../../src/work/types.ts";
import {
  acknowledged,
  at,
  type ClaimFields,
  claimOf,
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
  over,
  PARKED,
  POLLED,
  RUNNING,
  THEIRS,
  view,
  withFields,
} from "./claims.ts";
import { type Decided, isFiniteWait, testRules } from "./every-state.ts";

const SECOND = 1_000;
const PREPARING: Facts["pod"] = { is: "preparing", problem: null };
/** How long before the end of its time a session is observed more often: a heartbeat interval and a list. */
const AHEAD = 35 * SECOND;
/** A quiet interval: the heartbeat interval plus the allowance for a slow holder. */
const QUIET = 50 * SECOND;

const stepOf = (claim: Claim, pod: Facts["pod"], afterMs: number, more: Partial<Facts> = {}): Step =>
  nextStep(facts(claim, pod, afterMs, more));
const waitUntil = (afterMs: number): Step => ({ do: "wait", untilMs: POLLED + afterMs });
const LOOK: Step = { do: "look" };
const FIRST_BEAT: Step = { do: "fence", expected: NO_HEARTBEAT };
const STOP: Step = { do: "stop", force: true };
const GRACEFUL: Step = { do: "stop", force: false };

/** Limits of a deleted Environment whose grace period ends `afterMs` after the poll. */
const draining = (afterMs: number) => ({ limits: { ...LIMITS, draining: true, drainDeadlineMs: POLLED + afterMs } });

test("does nothing with a claim that the claim loop works on", () => {
  expect(stepOf(claimOf({ claiming: true }), PARKED, 100_000)).toEqual({ do: "wait", untilMs: null });
});

describe("4. an unanswered acknowledgement, or a Secret without a key found at the start", () => {
  const item = (state: Parameters<typeof view>[0], acknowledgedAt: string | null = OURS) =>
    claimOf({ memory: { is: "unanswered" }, item: view(state, POLLED + 5_000, { acknowledgedAt }) });

  test("waits until 5 s after the poll before it lists, since a late acknowledgement could still land", () => {
    expect(stepOf(claimOf(), PARKED, 1_000)).toEqual(waitUntil(5_000));
    expect(stepOf(claimOf(), PARKED, 5_000)).toEqual(LOOK);
  });

  test("ignores a view from before that time", () => {
    const early = claimOf({ item: view("queued", POLLED + 4_999) });
    expect(stepOf(early, PARKED, 6_000)).toEqual(LOOK);
  });

  test("drops the Secret of a stopped item", () => {
    expect(stepOf(item("stopped"), PARKED, 6_000)).toEqual({ do: "drop", because: "stopped" });
  });

  test.each(["queued", "absent"] as const)(
    "lists a %s item again first, since the list may lag or our request may be late",
    (state) => {
      expect(stepOf(item(state), PARKED, 6_000)).toEqual(waitUntil(15_000));
      expect(stepOf(item(state), PARKED, 15_000)).toEqual(LOOK);
      const claim = claimOf({ memory: { is: "unanswered" }, item: view(state, POLLED + 15_000) });
      expect(stepOf(claim, PARKED, 15_100)).toEqual({ do: "drop", because: state });
    },
  );

  test("drops the Secret of an item that a poll offers again once no late request can land: an offer can't lag", () => {
    const offered = (afterMs: number) =>
      claimOf({ item: { ...view("queued", POLLED + afterMs), isOffered: true }, memory: { is: "unanswered" } });
    expect(stepOf(offered(9_900), PARKED, 9_900)).toEqual(waitUntil(10_000));
    expect(stepOf(offered(10_000), PARKED, 10_000)).toEqual({ do: "drop", because: "queued" });
  });

  test("lists again after a pause when the list could not be read", () => {
    expect(stepOf(item("unknown"), PARKED, 6_000)).toEqual(waitUntil(10_000));
    expect(stepOf(item("unknown"), PARKED, 10_000)).toEqual(LOOK);
  });

  test.each(["starting", "active", "stopping"] as const)("owns a %s item acknowledged in our window", (state) => {
    expect(stepOf(item(state), PARKED, 6_000)).toEqual({ do: "own", acknowledgedAt: OURS });
  });

  test.each([
    ["more than a second before our poll", at(POLLED - 1_001), false],
    ["a second before our poll, by a clock other than that of the Date headers", at(POLLED - 1_000), true],
    ["when our poll was sent", at(POLLED), true],
    ["at the end of the window", at(POLLED + 4_999), true],
    ["at the first moment when another client can have been offered it", at(POLLED + 5_000), false],
    ["in the second of our poll, on a server that writes whole seconds", "2030-01-01T00:00:10Z", true],
    ["two seconds before that, on such a server", "2030-01-01T00:00:08Z", false],
    ["never", null, false],
    ["at an unreadable time", "yesterday", false],
  ])("judges an item that was acknowledged %s", (_, acknowledgedAt, isOurs) => {
    expect(stepOf(item("starting", acknowledgedAt), PARKED, 6_000)).toEqual(
      isOurs ? { do: "own", acknowledgedAt } : waitUntil(15_000),
    );
  });

  describe("at the last list", () => {
    const last = (acknowledgedAt: string | null, state: "starting" | "active" | "stopping" = "starting") =>
      claimOf({ memory: { is: "unanswered" }, item: view(state, POLLED + 15_000, { acknowledgedAt }) });

    test.each([
      ["after our window", at(POLLED + 5_000)],
      ["as late as our request can take effect", at(POLLED + 10_000)],
      ["before our poll, on a server that keeps the first time", at(POLLED - 60_000)],
    ])("owns an item acknowledged %s as late, which is never opened", (_, acknowledgedAt) => {
      for (const state of ["starting", "active", "stopping"] as const) {
        const step = { do: "own", acknowledgedAt, late: true };
        expect(stepOf(last(acknowledgedAt, state), PARKED, 15_100)).toEqual(step);
      }
    });

    test.each([
      ["later than our requests can take effect", at(POLLED + 11_500)],
      ["never", null],
      ["at an unreadable time", "yesterday"],
    ])("drops the Secret of an item acknowledged %s: it is another client's", (_, acknowledgedAt) => {
      const dropped = { do: "drop", because: "acknowledged by another client" };
      expect(stepOf(last(acknowledgedAt), PARKED, 15_100)).toEqual(dropped);
    });
  });
});

describe("4. an acknowledgement after our window: a late request of ours, or another client's", () => {
  const LATE = at(POLLED + 5_500);
  /** The first-heartbeat timeout of our own containers, counted from when our request can last take effect. */
  const PATIENCE = 70_000;
  const late = (state: Parameters<typeof view>[0], askedAfter: number, more: ClaimFields = {}) =>
    claimOf({
      acknowledgedAt: LATE,
      lateAck: true,
      item: view(state, POLLED + askedAfter, { acknowledgedAt: LATE }),
      ...more,
    });
  const FENCED = { is: "fenced", beatSentMs: POLLED + PATIENCE, ttlMs: 90_000 } as const;

  test("starting: waits as long as another client needs for its first heartbeat", () => {
    expect(stepOf(late("starting", 15_000), PARKED, 15_100)).toEqual(waitUntil(PATIENCE));
    expect(stepOf(late("starting", 15_000), PARKED, PATIENCE)).toEqual(LOOK);
  });

  test("still starting: sends one heartbeat and lets the lease lapse", () => {
    expect(stepOf(late("starting", PATIENCE), PARKED, PATIENCE + 100)).toEqual(FIRST_BEAT);
    const beaten = late("active", PATIENCE + 200, { memory: FENCED });
    expect(stepOf(beaten, PARKED, PATIENCE + 300)).toEqual(waitUntil(PATIENCE + 91_500));
  });

  test("active by another heartbeat: leaves the item alone once its heartbeat changes", () => {
    const claim = late("active", 15_000);
    const value = at(POLLED + 2_000);
    expect(stepOf(claim, PARKED, 15_100)).toEqual({ do: "snapshot", value });
    withFields(claim, { memory: { is: "snapshot", value, sinceMs: POLLED + 15_000 } });
    expect(stepOf(claim, PARKED, 15_200)).toEqual(waitUntil(25_000));
    expect(stepOf(claim, PARKED, 25_000)).toEqual(LOOK);
    withFields(claim, {
      item: view("active", POLLED + 25_000, {
        acknowledgedAt: LATE,
        latestHeartbeatAt: at(POLLED + 20_000),
      }),
    });
    expect(stepOf(claim, PARKED, 25_100)).toEqual({ do: "settled", because: "another client holds its lease" });
  });

  test("stopping: stops the item, since there may be no other client to do so", () => {
    expect(stepOf(late("stopping", 15_000), PARKED, 15_100)).toEqual(STOP);
  });

  test("settles an item that was acknowledged again", () => {
    const claim = late("starting", 20_000);
    withFields(claim, { item: view("starting", POLLED + 20_000, { acknowledgedAt: THEIRS }) });
    expect(stepOf(claim, PARKED, 20_100)).toMatchObject({ do: "settled" });
  });

  test("never opens the item, and never stops it while it is live, whatever the list shows", () => {
    for (const item of EVERY_ITEM) {
      for (const memory of [{ is: "none" }, FENCED] as const) {
        for (const pod of [PARKED, PREPARING, GONE]) {
          const step = stepOf(late("starting", 0, { memory, item }), pod, PATIENCE + 1_000);
          expect(step.do).not.toBe("open");
          if (step.do === "stop") expect(item?.state).toBe("stopping");
        }
      }
    }
  });
});

describe("4. an item that is ours by its acknowledgement", () => {
  test("opens a starting item with a parked Pod", () => {
    expect(stepOf(acknowledged(), PARKED, 800)).toEqual({ do: "open", acknowledgedAt: OURS });
  });

  test("settles an active item that was never opened, since another client sends its heartbeats", () => {
    const claim = acknowledged({ item: view("active", POLLED + 5_000) });
    expect(stepOf(claim, PARKED, 6_000)).toEqual({ do: "snapshot", value: at(POLLED + 2_000) });
  });

  test("stops a stopping item by force", () => {
    expect(stepOf(acknowledged({ item: view("stopping", POLLED + 5_000) }), PARKED, 6_000)).toEqual(STOP);
  });

  test.each([
    ["gone", GONE],
    ["ended before it started", ended({ cause: "Evicted", startedAtMs: null })],
  ] as const)("fences a starting item whose Pod is %s", (_, pod) => {
    expect(stepOf(acknowledged(), pod, 800)).toEqual(FIRST_BEAT);
  });

  test("fences a starting item whose Pod is being deleted", () => {
    expect(stepOf(acknowledged(), PARKED, 800, { podGoneByMs: POLLED + 30_000 })).toEqual(FIRST_BEAT);
  });

  test("fences a starting item during a drain, and opens nothing", () => {
    expect(stepOf(acknowledged(), PARKED, 800, draining(600_000))).toEqual(FIRST_BEAT);
  });

  test("continues an unanswered opening through a drain, since its container may be about to start", () => {
    const claim = acknowledged({ openingSent: true });
    expect(stepOf(claim, PARKED, 800, draining(600_000))).toEqual({ do: "open", acknowledgedAt: OURS });
    expect(stepOf(claim, PARKED, 800, draining(700))).toEqual(FIRST_BEAT);
  });

  test("settles an item whose opening failed for too long", () => {
    const claim = acknowledged({ ending: { why: "StartFailed", message: "no leave" } });
    expect(stepOf(claim, PARKED, 800)).toEqual(FIRST_BEAT);
  });

  test("fences an item whose Secret was deleted, and opens nothing", () => {
    expect(stepOf(acknowledged({ gone: true }), PARKED, 800)).toEqual(FIRST_BEAT);
  });

  test("never opens an item without a credential", () => {
    const refusal = acknowledged({ journal: { ...JOURNAL, use: "refusal" } });
    expect(stepOf(refusal, GONE, 800)).toEqual(FIRST_BEAT);
    expect(stepOf(refusal, PARKED, 800)).toEqual(FIRST_BEAT);
  });

  test("waits one kubelet sync for a Pod that is briefly not parked, then gives up", () => {
    expect(stepOf(acknowledged(), PREPARING, 800)).toEqual(waitUntil(25_000));
    expect(stepOf(acknowledged(), PREPARING, 25_000)).toEqual(FIRST_BEAT);
  });

  test("does not open an item that another client acknowledged again", () => {
    const claim = acknowledged({ item: view("starting", POLLED + 700, { acknowledgedAt: THEIRS }) });
    expect(stepOf(claim, PARKED, 800)).toEqual({ do: "settled", because: "acknowledged by another client" });
  });

  test("lists an old view again before it opens", () => {
    expect(stepOf(acknowledged(), PARKED, 31_000)).toEqual(LOOK);
  });

  test("does not open an item with our own heartbeat, which would make the server refuse its worker", () => {
    const claim = acknowledged({
      memory: { is: "fenced", beatSentMs: POLLED + 800, ttlMs: 90_000, value: at(POLLED + 850) },
      item: view("active", POLLED + 900, { latestHeartbeatAt: at(POLLED + 850) }),
    });
    expect(stepOf(claim, PARKED, 1_000)).toEqual(STOP);
  });

  test.each([
    ["runs", RUNNING],
    ["ran", ended()],
  ])("repeats the opening for a container that %s, since only its answer was lost", (_, pod) => {
    expect(stepOf(acknowledged(), pod, 1_200)).toEqual({ do: "open", acknowledgedAt: OURS });
  });
});

describe("5. open: a container that still waits", () => {
  const claim = opened();

  test("touches a Pod that was not touched yet", () => {
    expect(stepOf(opened({ touchedMs: null, touches: 0 }), PARKED, 950)).toEqual({ do: "touch" });
  });

  test("touches again after 0.5, 1 and 2 s, then every 4 s", () => {
    for (const [touches, pause] of [
      [1, 500],
      [2, 1_000],
      [3, 2_000],
      [4, 4_000],
      [9, 4_000],
    ] as const) {
      const waiting = opened({ touches });
      expect(stepOf(waiting, PARKED, 910 + pause - 1)).toEqual(waitUntil(910 + pause));
      expect(stepOf(waiting, PARKED, 910 + pause)).toEqual({ do: "touch" });
    }
  });

  test("does not repeat a touch early because the cache does not show it yet", () => {
    const lagging = { podAssigned: false };
    expect(stepOf(claim, PARKED, 920, lagging)).toEqual(waitUntil(1_410));
    expect(stepOf(claim, PREPARING, 920, lagging)).toEqual(waitUntil(1_410));
  });

  test("waits for a container that is being created", () => {
    expect(stepOf(claim, PREPARING, 2_000)).toEqual(waitUntil(60_900));
  });

  test("fails at once on a waiting reason that does not name our Secret", () => {
    const problem = { reason: "CreateContainerConfigError", message: "container has runAsNonRoot" };
    expect(stepOf(claim, { is: "preparing", problem }, 1_000)).toMatchObject({
      do: "delete-pod",
      why: "StartFailed",
      message: expect.stringContaining("runAsNonRoot"),
    });
  });

  test.each(["ErrImagePull", "ImagePullBackOff"])(
    "%s: waits until the start timeout, since the kubelet pulls the image again",
    (reason) => {
      const pod = { is: "preparing", problem: { reason, message: "the registry is away" } } as const;
      expect(stepOf(claim, pod, 1_000)).toEqual(waitUntil(60_900));
      expect(stepOf(claim, pod, 60_900)).toMatchObject({
        do: "delete-pod",
        why: "StartFailed",
        message: expect.stringContaining("the registry is away"),
      });
    },
  );

  test.each([
    ["waits", PARKED],
    ["is being created", PREPARING],
  ] as const)("fails the start of a container that still %s after firstBeatTimeoutSeconds", (_, pod) => {
    expect(stepOf(claim, pod, 60_900)).toMatchObject({ do: "delete-pod", why: "StartFailed" });
  });

  test("touches once after a restart, even if touched before, since the kubelet may have missed it", () => {
    const recovered = opened({ touches: 0, touchedMs: null, openedMs: POLLED + 500_000, waitedMs: null });
    expect(stepOf(recovered, PARKED, 500_001, { podAssigned: false })).toEqual({ do: "touch" });
    expect(stepOf(recovered, PARKED, 500_001, { podAssigned: true })).toEqual({ do: "touch" });
  });

  test("waits for a Pod that is being deleted as long as its grace period and its node allow", () => {
    expect(stepOf(claim, PARKED, 2_000, { podGoneByMs: POLLED + 90_000 })).toEqual(waitUntil(90_000));
  });
});

describe("6. watch, lease: Worker", () => {
  const served = (item = view("active", POLLED + 10_000)) => opened({ firstBeatSeen: true, item });

  test("waits for the sweep when there is no view of the item yet", () => {
    expect(stepOf(opened(), RUNNING, 2_000)).toEqual(waitUntil(7_000));
    expect(stepOf(opened({ item: view("unknown", POLLED) }), RUNNING, 2_000)).toEqual(waitUntil(7_000));
  });

  test("allows firstBeatTimeoutSeconds from the container's start for the first heartbeat", () => {
    const claim = opened({ item: view("starting", POLLED + 1_500) });
    expect(stepOf(claim, RUNNING, 2_000)).toEqual(waitUntil(61_000));
  });

  test("fences without a first heartbeat within firstBeatTimeoutSeconds", () => {
    const claim = opened({ item: view("starting", POLLED + 60_000) });
    // A heartbeat may have been sent since.
    expect(stepOf(claim, RUNNING, 61_000)).toEqual(LOOK);
    withFields(claim, { item: view("starting", POLLED + 61_000) });
    expect(stepOf(claim, RUNNING, 61_100)).toEqual(FIRST_BEAT);
  });

  test("does not count an outage of the Work API, and leaves time for another try", () => {
    const silence = { silentMs: 40_000, silenceEndMs: POLLED + 70_000 };
    const claim = opened({ item: view("starting", POLLED + 70_000), ...silence });
    expect(stepOf(claim, RUNNING, 70_100)).toEqual(waitUntil(101_000));
    const nearlyOver = { silentMs: 15_000, silenceEndMs: POLLED + 70_000 };
    expect(stepOf(opened({ item: claim.observed.item, ...nearlyOver }), RUNNING, 70_100)).toEqual(waitUntil(100_000));
  });

  test("without a first heartbeat: fences, lists, stops, and only then deletes the Pod", () => {
    const ending = { why: "NoFirstBeat", message: "sent no heartbeat" } as const;
    const memory = { is: "fenced", beatSentMs: POLLED + 61_000, ttlMs: 90_000, value: at(POLLED + 2_000) } as const;
    const claim = opened({ ending, memory });
    expect(stepOf(claim, RUNNING, 61_100)).toEqual(LOOK);
    withFields(claim, { item: view("active", POLLED + 60_999) });
    expect(stepOf(claim, RUNNING, 61_100)).toEqual(LOOK);
    withFields(claim, { item: view("active", POLLED + 61_100) });
    expect(stepOf(claim, RUNNING, 61_200)).toEqual(STOP);
    withFields(claim, { item: view("stopped", POLLED + 61_200) });
    expect(stepOf(claim, RUNNING, 61_300)).toEqual({ do: "delete-pod", ...ending });
    expect(stepOf(claim, RUNNING, 61_400, { podGoneByMs: POLLED + 200_000 })).toEqual(waitUntil(200_000));
  });

  test("without a first heartbeat: only deletes the Pod when another client took the item before the fence", () => {
    const claim = opened({
      ending: { why: "NoFirstBeat", message: "sent no heartbeat" },
      item: view("active", POLLED + 61_100, { acknowledgedAt: THEIRS }),
    });
    expect(stepOf(claim, RUNNING, 61_200)).toMatchObject({ do: "delete-pod", why: "NoFirstBeat" });
  });

  test("leaves an active session alone until maxDurationSeconds", () => {
    expect(stepOf(served(), RUNNING, 11_000)).toEqual(waitUntil(3_601_000 - AHEAD));
  });

  describe("past maxDurationSeconds", () => {
    const OVER = 3_601_000;
    const beats = (askedAfter: number, beat: number) =>
      view("active", POLLED + askedAfter, { latestHeartbeatAt: `beat ${beat}` });
    const noted = (afterMs: number, beat: number) =>
      ({ is: "snapshot", value: `beat ${beat}`, sinceMs: POLLED + afterMs }) as const;

    test("observes the heartbeat shortly before that time, and must see it change", () => {
      const claim = served(beats(OVER - 40_000, 1));
      expect(stepOf(claim, RUNNING, OVER - AHEAD)).toEqual({ do: "snapshot", value: "beat 1" });
      withFields(claim, { memory: noted(OVER - 40_000, 1) });
      expect(stepOf(claim, RUNNING, OVER - AHEAD)).toEqual(LOOK);
      withFields(claim, { item: beats(OVER - AHEAD, 1) });
      expect(stepOf(claim, RUNNING, OVER - 34_900)).toEqual({ do: "snapshot", value: "beat 1" });
      withFields(claim, { memory: noted(OVER - AHEAD, 1) });
      expect(stepOf(claim, RUNNING, OVER - 34_900)).toEqual(waitUntil(OVER - AHEAD + 5_000));
    });

    test("stops gracefully at that time if a recent heartbeat proves that the worker holds the lease", () => {
      const claim = served(beats(OVER - 5_000, 2));
      withFields(claim, { memory: noted(OVER - 10_000, 1) });
      const beatenSinceMs = POLLED + OVER - 10_000;
      expect(stepOf(claim, RUNNING, OVER - 4_000)).toEqual({ do: "snapshot", value: "beat 2", beatenSinceMs });
      withFields(claim, { memory: { ...noted(OVER - 5_000, 2), beatenSinceMs } });
      expect(stepOf(claim, RUNNING, OVER - 4_000)).toEqual(waitUntil(OVER));
      expect(stepOf(claim, RUNNING, OVER)).toEqual(GRACEFUL);
      // A heartbeat interval after the heartbeat, which the list may have shown five seconds late.
      expect(stepOf(claim, RUNNING, OVER + 14_999)).toEqual(GRACEFUL);
      expect(stepOf(claim, RUNNING, OVER + 15_000)).toEqual(LOOK);
    });

    test("keeps the proof of the last heartbeat while later lists show nothing new", () => {
      const claim = served(beats(OVER - 1_000, 2));
      const beatenSinceMs = POLLED + OVER - 10_000;
      withFields(claim, { memory: { ...noted(OVER - 5_000, 2), beatenSinceMs } });
      expect(stepOf(claim, RUNNING, OVER)).toEqual({ do: "snapshot", value: "beat 2", beatenSinceMs });
    });

    test("ignores a value older than the remembered one: the list lags", () => {
      const older = { latestHeartbeatAt: at(POLLED + 1) };
      const claim = served(view("active", POLLED + OVER - 5_000, older));
      withFields(claim, { memory: { is: "snapshot", value: at(POLLED + 2), sinceMs: POLLED + OVER - 10_000 } });
      expect(stepOf(claim, RUNNING, OVER - 4_000)).toEqual({ do: "snapshot", value: at(POLLED + 2) });
    });

    test("no longer trusts a heartbeat that may be a heartbeat interval old", () => {
      const claim = served(beats(OVER - 5_000, 2));
      withFields(claim, { memory: noted(OVER - 10_000, 1) });
      expect(stepOf(claim, RUNNING, OVER + 20_000)).toEqual({ do: "snapshot", value: "beat 2" });
    });

    test("lists again for the next heartbeat when the last one does not reach to the end", () => {
      const claim = served(beats(OVER - 12_000, 2));
      withFields(claim, { memory: { ...noted(OVER - 12_000, 2), beatenSinceMs: POLLED + OVER - 32_000 } });
      expect(stepOf(claim, RUNNING, OVER - 8_000)).toEqual(waitUntil(OVER - 7_000));
      expect(stepOf(claim, RUNNING, OVER - 7_000)).toEqual(LOOK);
    });

    test("ignores a view that is older than the remembered one", () => {
      const claim = served(beats(OVER - 5_000, 1));
      withFields(claim, { memory: noted(OVER - 4_000, 2) });
      expect(stepOf(claim, RUNNING, OVER)).toEqual(waitUntil(OVER + 1_000));
      expect(stepOf(claim, RUNNING, OVER + 1_000)).toEqual(LOOK);
    });

    test("never stops a hanging worker gracefully, since another client may hold its lease by now", () => {
      const claim = served(beats(OVER, 1));
      withFields(claim, { memory: noted(OVER - 40_000, 1) });
      expect(stepOf(claim, RUNNING, OVER + 100)).toEqual({ do: "snapshot", value: "beat 1" });
    });

    test("deletes the Pod after its grace period if no stop could be sent", () => {
      const claim = served(beats(OVER + 119_000, 1));
      withFields(claim, { memory: noted(OVER + 119_000, 1) });
      expect(stepOf(claim, RUNNING, OVER + 120_000)).toMatchObject({ do: "delete-pod", why: "MaxDuration" });
    });

    test("deletes a Pod that is still there after a stop and its grace period", () => {
      const claim = served(beats(OVER, 2));
      withFields(claim, { gracefulStopMs: POLLED + OVER + 1_000 });
      expect(stepOf(claim, RUNNING, OVER + 2_000)).toEqual(waitUntil(OVER + 121_000));
      expect(stepOf(claim, RUNNING, OVER + 121_000)).toMatchObject({ do: "delete-pod", why: "MaxDuration" });
    });
  });

  test("stopping: lets the worker notice, and deletes a Pod that is still there after its grace period", () => {
    const claim = opened({ item: view("stopping", POLLED + 20_000), stoppingSinceMs: POLLED + 20_000 });
    expect(stepOf(claim, RUNNING, 21_000)).toEqual(waitUntil(140_000));
    expect(stepOf(claim, RUNNING, 140_000)).toMatchObject({ do: "delete-pod", why: "StoppedByUser" });
  });

  test("stopping at Berth's request: keeps Berth's reason", () => {
    const claim = opened({
      item: view("stopping", POLLED + 20_000),
      stoppingSinceMs: POLLED + 20_000,
      ending: { why: "MaxDuration", message: "too long" },
    });
    expect(stepOf(claim, RUNNING, 140_000)).toEqual({ do: "delete-pod", why: "MaxDuration", message: "too long" });
  });

  test.each([
    ["stopped", view("stopped", POLLED + 20_000), "StoppedByUser"],
    ["queued again", view("queued", POLLED + 20_000), "LeaseLost"],
    ["absent", view("absent", POLLED + 20_000, { acknowledgedAt: null }), "LeaseLost"],
    ["acknowledged by another client", view("active", POLLED + 20_000, { acknowledgedAt: THEIRS }), "LeaseLost"],
  ] as const)(
    "%s: lets the worker exit, and deletes a Pod still there after a TTL and a heartbeat interval",
    (_, item, why) => {
      const claim = opened({ item, lostSinceMs: POLLED + 20_000 });
      expect(stepOf(claim, RUNNING, 21_000)).toEqual(waitUntil(140_000));
      // Nothing is destroyed on a view that is two minutes old.
      expect(stepOf(claim, RUNNING, 140_000)).toEqual(LOOK);
      withFields(claim, { item: { ...item, askedMs: POLLED + 140_000 } });
      expect(stepOf(claim, RUNNING, 140_500)).toMatchObject({ do: "delete-pod", why });
    },
  );

  test.each([
    ["2030-01-01T00:00:10.700Z", "2030-01-01T00:00:10.700000Z"],
    ["2030-01-01T00:00:10.700Z", "2030-01-01T01:00:10.7+01:00"],
    ["2030-01-01T00:00:10.700Z", "2030-01-01T00:00:10Z"],
    ["opaque", "opaque"],
  ])("treats one acknowledgement in two spellings as ours: %s, %s", (known, shown) => {
    const item = view("active", POLLED + 10_000, { acknowledgedAt: shown });
    const claim = opened({ acknowledgedAt: known, item });
    expect(stepOf(claim, RUNNING, 11_000)).toEqual(waitUntil(3_601_000 - AHEAD));
  });

  test("lets sessions run until the end of a deleted Environment's grace period, then stops them", () => {
    const claim = served(view("active", POLLED + 99_000));
    expect(stepOf(claim, RUNNING, 11_000, draining(100_000))).toEqual(waitUntil(100_000 - AHEAD));
    const beatenSinceMs = POLLED + 95_000;
    withFields(claim, {
      memory: { is: "snapshot", value: at(POLLED + 2_000), sinceMs: POLLED + 99_000, beatenSinceMs },
    });
    expect(stepOf(claim, RUNNING, 99_500, draining(100_000))).toEqual(waitUntil(100_000));
    expect(stepOf(claim, RUNNING, 100_000, draining(100_000))).toEqual(GRACEFUL);
    withFields(claim, { gracefulStopMs: POLLED + 100_000 });
    expect(stepOf(claim, RUNNING, 220_000, draining(100_000))).toMatchObject({ why: "EnvironmentDeleted" });
  });

  test("fences a session that has no heartbeat at the end of the Environment's grace period", () => {
    const claim = opened({ item: view("starting", POLLED + 20_000) });
    expect(stepOf(claim, RUNNING, 20_000, draining(30_000))).toEqual(waitUntil(30_000));
    // With a heartbeat, it would be stopped gracefully instead, so the operator lists the item again.
    expect(stepOf(claim, RUNNING, 30_000, draining(30_000))).toEqual(LOOK);
    withFields(claim, { item: view("starting", POLLED + 30_001) });
    expect(stepOf(claim, RUNNING, 30_002, draining(30_000))).toEqual(FIRST_BEAT);
  });

  test("lists without waiting for the sweep when the Environment's grace period is nearly over", () => {
    const claim = opened({ item: null });
    expect(stepOf(claim, RUNNING, 20_000, draining(30_000))).toEqual(LOOK);
    // The server refused the fence because a worker sent a heartbeat. The old view is gone, and the current state is
    // needed at once.
    withFields(claim, { memory: { is: "refused", atMs: POLLED + 30_100 } });
    expect(stepOf(claim, RUNNING, 30_200, draining(30_000))).toEqual(LOOK);
    withFields(claim, { item: view("unknown", POLLED + 30_200) });
    expect(stepOf(claim, RUNNING, 30_300, draining(30_000))).toEqual(waitUntil(35_200));
  });

  test("touches a container that started before its touch, since it needs labels and a deadline", () => {
    const claim = opened({ touches: 0, touchedMs: null, item: view("active", POLLED + 5_000) });
    expect(stepOf(claim, RUNNING, 6_000, { podAssigned: false })).toEqual({ do: "touch" });
    withFields(claim, { touches: 1, touchedMs: POLLED + 6_000 });
    expect(stepOf(claim, RUNNING, 6_100, { podAssigned: false })).toEqual(waitUntil(6_500));
    expect(stepOf(claim, RUNNING, 6_500, { podAssigned: false })).toEqual({ do: "touch" });
    expect(stepOf(claim, RUNNING, 6_500, { podAssigned: true })).toEqual(waitUntil(3_601_000 - AHEAD));
  });
});

describe("6. a node whose clock is wrong", () => {
  const startedBy = (nodeOffsetMs: number): Facts["pod"] => ({
    is: "running",
    startedAtMs: EPOCH + POLLED + 1_000 + nodeOffsetMs,
  });
  const claim = opened({ item: view("starting", POLLED + 1_500) });

  test.each([
    ["ten minutes behind", -600_000],
    ["ten minutes ahead", 600_000],
  ])("allows the usual time for the first heartbeat, %s", (_, offset) => {
    expect(stepOf(claim, startedBy(offset), 2_000)).toEqual(waitUntil(60_900));
    const seen = opened({ item: view("starting", POLLED + 60_900) });
    expect(stepOf(seen, startedBy(offset), 60_900)).toEqual(FIRST_BEAT);
  });

  test("allows the usual time for a container without a start time", () => {
    expect(stepOf(claim, { is: "running", startedAtMs: 0 }, 2_000)).toEqual(waitUntil(60_900));
  });

  test("counts maxDurationSeconds from the container's start, even after a slow opening", () => {
    const claim = opened({ openedMs: POLLED + 300_000, item: view("active", POLLED + 300_500) });
    expect(stepOf(claim, RUNNING, 301_000)).toEqual(waitUntil(3_601_000 - AHEAD));
  });

  test("limits a container's age after a restart by the time since it was seen waiting", () => {
    const since = { openedMs: POLLED + 500_000, waitedMs: POLLED + 500_100, touchedMs: POLLED + 500_200 };
    const claim = opened({ ...since, item: view("active", POLLED + 501_000) });
    expect(stepOf(claim, startedBy(-7_200_000), 501_500)).toEqual(waitUntil(4_100_100 - AHEAD));
  });

  test("trusts the node's start time after a restart, so that maxDurationSeconds does not restart", () => {
    const recovered = opened({
      touches: 0,
      touchedMs: null,
      openedMs: POLLED + 3_500_000,
      waitedMs: null,
      item: view("active", POLLED + 3_500_500),
    });
    expect(stepOf(recovered, RUNNING, 3_501_000, { podAssigned: true })).toEqual(waitUntil(3_601_000 - AHEAD));
  });
});

describe("settle: fence, then stop", () => {
  const ENDED = 30_000;
  const settling = (state: Parameters<typeof view>[0] | null, askedAfter: number, more: ClaimFields = {}) =>
    over(POLLED + ENDED, { item: state && view(state, POLLED + askedAfter), ...more });
  const fencedAt = (afterMs: number, ttlMs = 90_000) =>
    ({ memory: { is: "fenced", beatSentMs: POLLED + afterMs, ttlMs, value: at(POLLED + 2_000) } }) as const;

  test("ignores a view from before the end, since the worker may have stopped the item since", () => {
    expect(stepOf(settling(null, 0), ended(), 31_000)).toEqual(LOOK);
    expect(stepOf(settling("active", 29_999), ended(), 31_000)).toEqual(LOOK);
  });

  test("settles an item that the worker stopped after one list", () => {
    expect(stepOf(settling("stopped", 31_000), ended(), 31_100)).toEqual({ do: "settled", because: "stopped" });
  });

  test.each(["queued", "absent"] as const)("settles a %s item and sends nothing", (state) => {
    expect(stepOf(settling(state, 31_000), GONE, 31_100)).toEqual({ do: "settled", because: state });
  });

  test("settles an item that was acknowledged again and sends nothing", () => {
    const claim = settling(null, 0, { item: view("active", POLLED + 31_000, { acknowledgedAt: THEIRS }) });
    expect(stepOf(claim, ended(), 31_100)).toEqual({ do: "settled", because: "acknowledged by another client" });
  });

  test("lists again after a pause when the list could not be read to its end", () => {
    expect(stepOf(settling("unknown", 31_000), ended(), 31_100)).toEqual(waitUntil(36_000));
    expect(stepOf(settling("unknown", 31_000), ended(), 36_000)).toEqual(LOOK);
  });

  test.each([
    [1, 5],
    [3, 20],
    [100, 320],
  ])("after %i such lists in a row, pauses %i s", (unknowns, seconds) => {
    const claim = settling("unknown", 31_000, { unknowns });
    expect(stepOf(claim, ended(), 31_100)).toEqual(waitUntil(31_000 + seconds * SECOND));
  });

  test("settles an opened claim whose Pod is gone, even if its end was not observed", () => {
    expect(stepOf(opened({ item: view("stopped", POLLED + 20_000) }), GONE, 20_100)).toEqual({
      do: "settled",
      because: "stopped",
    });
  });

  test("onPodFailure: Release: sends one heartbeat for a killed session without any, or it would stay starting", () => {
    const died = settling("starting", 31_000, { end: { ...END, cause: "OOMKilled", exitCode: 137 } });
    expect(stepOf(died, ended(), 31_100, { limits: { ...LIMITS, onPodFailure: "Release" } })).toEqual(FIRST_BEAT);
  });

  test("onPodFailure: Release: releases a session that never started, however its waiting container ended", () => {
    const release = { limits: { ...LIMITS, onPodFailure: "Release" as const } };
    const step = (startedAtMs: number | null, pod: Facts["pod"], more: ClaimFields = {}) => {
      const end = { ...END, cause: "Evicted", exitCode: 143, startedAtMs } as const;
      const claim = settling("active", 31_100, { end, ...fencedAt(31_000), ...more });
      return stepOf(claim, pod, 31_200, release);
    };
    const lapses = waitUntil(31_000 + 90_000 + DEFAULT_TIMING.requestBoundMs);
    expect(step(null, ended())).toEqual(lapses);
    expect(step(END.startedAtMs, ended())).toEqual(STOP);
    const unopened = { journal: { ...JOURNAL, acknowledgedAt: OURS }, openedMs: null, openedAtMs: null };
    expect(step(END.startedAtMs, GONE, unopened)).toEqual(lapses);
    // An earlier process may have opened the claim and sent the line: the opening finds out before the item is settled.
    expect(step(END.startedAtMs, ended(), unopened)).toEqual({ do: "open", acknowledgedAt: OURS });
  });

  test("stops a stopping item by force without a fence", () => {
    expect(stepOf(settling("stopping", 31_000), ended(), 31_100)).toEqual(STOP);
  });

  test("fences a starting item with the first heartbeat", () => {
    expect(stepOf(settling("starting", 31_000), ended(), 31_100)).toEqual(FIRST_BEAT);
  });

  test("fences an active item with its last heartbeat once that is unchanged for a quiet interval", () => {
    const claim = settling("active", 31_000);
    const value = at(POLLED + 2_000);
    expect(stepOf(claim, ended(), 31_100)).toEqual({ do: "snapshot", value });
    withFields(claim, { memory: { is: "snapshot", value, sinceMs: POLLED + 31_000 } });
    // Its worker may have stopped the item while the list lags: the stop shows at most five seconds later.
    expect(stepOf(claim, ended(), 31_200)).toEqual(waitUntil(35_000));
    expect(stepOf(claim, ended(), 35_000)).toEqual(LOOK);
    withFields(claim, { item: view("active", POLLED + 35_000) });
    expect(stepOf(claim, ended(), 35_100)).toEqual(waitUntil(31_000 + QUIET));
    expect(stepOf(claim, ended(), 31_000 + QUIET)).toEqual({ do: "fence", expected: value });
  });

  test("waits again when the value changed, since another client sends heartbeats", () => {
    const claim = settling("active", 40_000, {
      memory: { is: "snapshot", value: at(POLLED + 1), sinceMs: POLLED + 31_000 },
    });
    expect(stepOf(claim, ended(), 31_000 + QUIET)).toEqual({ do: "snapshot", value: at(POLLED + 2_000) });
  });

  test("fences an active item without a readable heartbeat as if it had none, after the same wait", () => {
    const memory = { is: "snapshot", value: NO_HEARTBEAT, sinceMs: POLLED + 31_000 } as const;
    const claim = settling(null, 0, { memory, item: view("active", POLLED + 31_000, { latestHeartbeatAt: null }) });
    expect(stepOf(claim, ended(), 31_000 + QUIET)).toEqual(FIRST_BEAT);
  });

  test("lists again after an accepted heartbeat, then stops", () => {
    const claim = settling(null, 0, fencedAt(40_000));
    expect(stepOf(claim, ended(), 40_100)).toEqual(LOOK);
    withFields(claim, { item: view("active", POLLED + 39_999) });
    expect(stepOf(claim, ended(), 40_100)).toEqual(LOOK);
    withFields(claim, { item: view("active", POLLED + 40_100) });
    expect(stepOf(claim, ended(), 40_200)).toEqual(STOP);
  });

  test("does not rely on a lagging list that still shows the value before our heartbeat", () => {
    const claim = settling("active", 40_100, fencedAt(40_000));
    withFields(claim, { item: view("active", POLLED + 40_100, { latestHeartbeatAt: at(POLLED + 1_000) }) });
    expect(stepOf(claim, ended(), 40_200)).toEqual(waitUntil(46_500));
    expect(stepOf(claim, ended(), 46_500)).toEqual(LOOK);
    withFields(claim, { item: view("active", POLLED + 46_500, { latestHeartbeatAt: at(POLLED + 1_000) }) });
    expect(stepOf(claim, ended(), 46_600)).toEqual(STOP);
  });

  test("settles without a stop when the list shows the item as another client's", () => {
    const claim = settling(null, 0, fencedAt(40_000));
    withFields(claim, { item: view("active", POLLED + 40_100, { acknowledgedAt: THEIRS }) });
    expect(stepOf(claim, ended(), 40_200)).toEqual({ do: "settled", because: "acknowledged by another client" });
  });

  test("sends the stop before heartbeat sent + TTL - request timeout - 1 s, or fences again", () => {
    const claim = settling("active", 40_100, fencedAt(40_000));
    expect(stepOf(claim, ended(), 40_000 + 90_000 - 2_500)).toEqual(STOP);
    expect(stepOf(claim, ended(), 40_000 + 90_000 - 2_499)).toMatchObject({ do: "snapshot" });
  });

  test("never stops when the TTL is too short for it, and lets the lease lapse", () => {
    const claim = settling("active", 40_100, fencedAt(40_000, 2_000));
    expect(stepOf(claim, ended(), 40_200)).toMatchObject({ do: "snapshot" });
  });

  test("lists again after a pause when the list still shows starting after our heartbeat", () => {
    const claim = settling("starting", 40_100, fencedAt(40_000));
    expect(stepOf(claim, ended(), 40_200)).toEqual(waitUntil(45_100));
    expect(stepOf(claim, ended(), 45_100)).toEqual(LOOK);
  });

  test("fences a starting item again after our lease ran out", () => {
    const claim = settling("starting", 140_000, fencedAt(40_000));
    expect(stepOf(claim, ended(), 140_100)).toEqual(FIRST_BEAT);
  });

  test("does not rely on a view from before our heartbeat", () => {
    const claim = settling("queued", 39_000, fencedAt(40_000));
    expect(stepOf(claim, ended(), 40_200)).toEqual(LOOK);
  });

  test("does not repeat a refused heartbeat immediately", () => {
    const claim = settling(null, 0, { memory: { is: "refused", atMs: POLLED + 40_000 } });
    expect(stepOf(claim, ended(), 40_100)).toEqual(waitUntil(45_000));
    expect(stepOf(claim, ended(), 45_000)).toEqual(LOOK);
  });

  test.each(["starting", "stopping"] as const)(
    "does not rely on one old %s view while a call keeps failing",
    (state) => {
      expect(stepOf(settling(state, 31_000), ended(), 400_000)).toEqual(LOOK);
    },
  );

  test.each([
    ["OOMKilled", ended({ cause: "OOMKilled", exitCode: 137 })],
    ["node lost", ended({ cause: "NodeLost", exitCode: null })],
    ["never started", ended({ cause: "StartFailed", startedAtMs: null })],
    ["Pod gone", GONE],
  ] as const)("lists an item without a view since its session died, then settles it (%s)", (_, pod) => {
    expect(stepOf(settling("active", 20_000), pod, 31_000)).toEqual(LOOK);
  });

  test("settles a failed start while its Pod is still being deleted", () => {
    const claim = over(POLLED + 5_000, {
      end: { ...END, cause: "StartFailed" },
      item: view("starting", POLLED + 5_100),
    });
    expect(stepOf(claim, PARKED, 5_200, { podGoneByMs: POLLED + 100_000 })).toEqual(FIRST_BEAT);
  });
});

describe("in every state", () => {
  const memories: Claim["lease"]["memory"][] = [
    { is: "none" },
    { is: "unanswered" },
    { is: "snapshot", value: at(POLLED + 2_000), sinceMs: POLLED + 10_000 },
    { is: "snapshot", value: at(POLLED + 1), sinceMs: POLLED + 15_000 },
    { is: "snapshot", value: at(POLLED + 1), sinceMs: POLLED + 25_000 },
    { is: "fenced", beatSentMs: POLLED + 10_000, ttlMs: 90_000 },
    { is: "fenced", beatSentMs: POLLED + 19_000, ttlMs: 90_000, value: at(POLLED + 2_000) },
    { is: "fenced", beatSentMs: POLLED + 19_000, ttlMs: 90_000, value: at(POLLED + 3_000) },
    { is: "fenced", beatSentMs: POLLED + 25_000, ttlMs: 90_000 },
    { is: "refused", atMs: POLLED + 20_000 },
  ];
  const claims: (() => Claim)[] = [
    claimOf,
    acknowledged,
    opened,
    () => over(POLLED + 15_000),
    () => over(POLLED + 25_000),
  ];
  const pods: Facts["pod"][] = [
    PARKED,
    PREPARING,
    { is: "unscheduled", reason: "", message: "" },
    RUNNING,
    ended(),
    ended({ startedAtMs: null, cause: "Evicted" }),
    GONE,
  ];
  const situations: Partial<Facts>[] = [{}, draining(600_000), draining(0), { podAssigned: false }];

  /** Every combination of facts and its step, `afterMs` after the poll. */
  function* all(afterMs: number): Generator<Decided> {
    for (const make of claims)
      for (const item of EVERY_ITEM)
        for (const memory of memories)
          for (const pod of pods)
            for (const more of situations) {
              const claim = withFields(make(), { item, memory });
              const asked = facts(claim, pod, afterMs, more);
              yield { facts: asked, step: nextStep(asked) };
            }
  }

  testRules([0, 4_999, 5_000, 30_000, 61_000, 140_000, 500_000, 4_000_000], all, {
    "every wait ends at a finite time after now": isFiniteWait,

    "no forced stop is sent without the lease, unless the item is already stopping": ({ claim, nowMs }, step) => {
      if (step.do !== "stop" || !step.force) return true;
      const { item } = claim.observed;
      const { memory } = claim.lease;
      if (item?.acknowledgedAt !== claim.record.acknowledgedAt) return false;
      if (item?.state === "stopping") return true;
      if (item?.state !== "active" || memory.is !== "fenced") return false;
      const { requestBoundMs, listLagMs, marginMs } = DEFAULT_TIMING;
      const isShown = item.latestHeartbeatAt === memory.value;
      const shownMs = memory.beatSentMs + (isShown ? 0 : requestBoundMs + listLagMs);
      return item.askedMs >= shownMs && nowMs <= memory.beatSentMs + memory.ttlMs - requestBoundMs - marginMs;
    },

    "nothing is opened unless it is ours and starting, nor during a drain": ({ claim, pod, limits }, step) => {
      if (step.do !== "open") return true;
      if (claim.record.acknowledgedAt !== step.acknowledgedAt) return false;
      const { item } = claim.observed;
      const isOurs = item?.state === "starting" && item.acknowledgedAt === OURS;
      return pod.is !== "parked" || (!limits.draining && isOurs);
    },

    "a claim ends only when it no longer holds its item": ({ claim }, step) => {
      if (step.do !== "drop" && step.do !== "settled") return true;
      const { item } = claim.observed;
      const others = item?.acknowledgedAt !== claim.record.acknowledgedAt;
      return ["queued", "stopped", "absent"].includes(item?.state ?? "") || (others && item?.state !== "unknown");
    },
  });
});
