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

const SECOND = 1_000;
const PREPARING: Facts["pod"] = { is: "preparing", problem: null };
/** So long before its time is over a session is looked at more often: a beat interval and a look. */
const AHEAD = 35 * SECOND;
/** A quiet interval: the beat interval and what a slow holder is allowed. */
const QUIET = 50 * SECOND;

const stepOf = (claim: Claim, pod: Facts["pod"], afterMs: number, more: Partial<Facts> = {}): Step =>
  nextStep(facts(claim, pod, afterMs, more));
const waitUntil = (afterMs: number): Step => ({ do: "wait", untilMs: POLLED + afterMs });
const LOOK: Step = { do: "look" };
const FIRST_BEAT: Step = { do: "fence", expected: NO_HEARTBEAT };
const STOP: Step = { do: "stop", force: true };
const GRACEFUL: Step = { do: "stop", force: false };

/** Limits of an Environment that is being deleted, whose grace is over `afterMs` after the poll. */
const draining = (afterMs: number) => ({ limits: { ...LIMITS, draining: true, drainDeadlineMs: POLLED + afterMs } });

test("nobody touches a claim that the claim loop works on", () => {
  expect(stepOf(claimOf({ claiming: true }), PARKED, 100_000)).toEqual({ do: "wait", untilMs: null });
});

describe("4. an acknowledgement without an answer, or a Secret without key found at the start", () => {
  const item = (state: Parameters<typeof view>[0], acknowledgedAt: string | null = OURS) =>
    claimOf({ memory: { is: "unanswered" }, item: view(state, POLLED + 5_000, { acknowledgedAt }) });

  test("it is not looked for before poll time + 5 s: a late acknowledgement could still land", () => {
    expect(stepOf(claimOf(), PARKED, 1_000)).toEqual(waitUntil(5_000));
    expect(stepOf(claimOf(), PARKED, 5_000)).toEqual(LOOK);
  });

  test("a look from before that time counts as none", () => {
    const early = claimOf({ item: view("queued", POLLED + 4_999) });
    expect(stepOf(early, PARKED, 6_000)).toEqual(LOOK);
  });

  test("stopped: over for everybody, the Secret is dropped", () => {
    expect(stepOf(item("stopped"), PARKED, 6_000)).toEqual({ do: "drop", because: "stopped" });
  });

  test.each(["queued", "absent"] as const)(
    "%s: the list may be behind, or our request late: looked at again first",
    (state) => {
      expect(stepOf(item(state), PARKED, 6_000)).toEqual(waitUntil(15_000));
      expect(stepOf(item(state), PARKED, 15_000)).toEqual(LOOK);
      const claim = claimOf({ memory: { is: "unanswered" }, item: view(state, POLLED + 15_000) });
      expect(stepOf(claim, PARKED, 15_100)).toEqual({ do: "drop", because: state });
    },
  );

  test("an item that the list could not be read for is looked for again, after a pause", () => {
    expect(stepOf(item("unknown"), PARKED, 6_000)).toEqual(waitUntil(10_000));
    expect(stepOf(item("unknown"), PARKED, 10_000)).toEqual(LOOK);
  });

  test.each(["starting", "active", "stopping"] as const)("%s and acknowledged in our window: ours", (state) => {
    expect(stepOf(item(state), PARKED, 6_000)).toEqual({ do: "own", acknowledgedAt: OURS });
  });

  test.each([
    ["more than a second before our poll", at(POLLED - 1_001), false],
    ["a second before our poll, by a clock that is not the one of Date headers", at(POLLED - 1_000), true],
    ["when our poll was sent", at(POLLED), true],
    ["at the end of the window", at(POLLED + 4_999), true],
    ["when somebody else can first have been offered it", at(POLLED + 5_000), false],
    ["in the second of our poll, by a server that writes whole seconds", "2030-01-01T00:00:10Z", true],
    ["two seconds before that, by such a server", "2030-01-01T00:00:08Z", false],
    ["never", null, false],
    ["at a time that cannot be read", "yesterday", false],
  ])("acknowledged %s", (_, acknowledgedAt, isOurs) => {
    expect(stepOf(item("starting", acknowledgedAt), PARKED, 6_000)).toEqual(
      isOurs ? { do: "own", acknowledgedAt } : waitUntil(15_000),
    );
  });

  describe("at the last look", () => {
    const last = (acknowledgedAt: string | null, state: "starting" | "active" | "stopping" = "starting") =>
      claimOf({ memory: { is: "unanswered" }, item: view(state, POLLED + 15_000, { acknowledgedAt }) });

    test.each([
      ["after our window", at(POLLED + 5_000)],
      ["as late as a request of ours can take effect", at(POLLED + 10_000)],
      ["before our poll, by a server that keeps the first time", at(POLLED - 60_000)],
    ])("acknowledged %s: it may be ours, and is never opened", (_, acknowledgedAt) => {
      for (const state of ["starting", "active", "stopping"] as const) {
        const step = { do: "own", acknowledgedAt, late: true };
        expect(stepOf(last(acknowledgedAt, state), PARKED, 15_100)).toEqual(step);
      }
    });

    test.each([
      ["later than any request of ours can take effect", at(POLLED + 11_500)],
      ["never", null],
      ["at a time that cannot be read", "yesterday"],
    ])("acknowledged %s: another client's, the Secret is dropped", (_, acknowledgedAt) => {
      const dropped = { do: "drop", because: "acknowledged by another client" };
      expect(stepOf(last(acknowledgedAt), PARKED, 15_100)).toEqual(dropped);
    });
  });
});

describe("4. what was acknowledged after our window, by a late request of ours or by another client", () => {
  const LATE = at(POLLED + 5_500);
  /** As long as a container of ours has for its first heartbeat, from the last moment at which ours can take effect. */
  const PATIENCE = 70_000;
  const late = (state: Parameters<typeof view>[0], askedAfter: number, more: ClaimFields = {}) =>
    claimOf({
      acknowledgedAt: LATE,
      lateAck: true,
      item: view(state, POLLED + askedAfter, { acknowledgedAt: LATE }),
      ...more,
    });
  const FENCED = { is: "fenced", beatSentMs: POLLED + PATIENCE, ttlMs: 90_000 } as const;

  test("starting: another client has the time of a first heartbeat", () => {
    expect(stepOf(late("starting", 15_000), PARKED, 15_100)).toEqual(waitUntil(PATIENCE));
    expect(stepOf(late("starting", 15_000), PARKED, PATIENCE)).toEqual(LOOK);
  });

  test("still starting: it gets one heartbeat, and its lease lapses", () => {
    expect(stepOf(late("starting", PATIENCE), PARKED, PATIENCE + 100)).toEqual(FIRST_BEAT);
    const beaten = late("active", PATIENCE + 200, { memory: FENCED });
    expect(stepOf(beaten, PARKED, PATIENCE + 300)).toEqual(waitUntil(PATIENCE + 91_500));
  });

  test("active, and not by a beat of ours: left alone once its heartbeat moves", () => {
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
    expect(stepOf(claim, PARKED, 25_100)).toEqual({ do: "settled", because: "another client has its lease" });
  });

  test("told to stop: stopped, since no other client may be there to do it", () => {
    expect(stepOf(late("stopping", 15_000), PARKED, 15_100)).toEqual(STOP);
  });

  test("acknowledged again since: settled", () => {
    const claim = late("starting", 20_000);
    withFields(claim, { item: view("starting", POLLED + 20_000, { acknowledgedAt: THEIRS }) });
    expect(stepOf(claim, PARKED, 20_100)).toMatchObject({ do: "settled" });
  });

  test("it is never opened, nor stopped while it is live, whatever is seen of it", () => {
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

describe("4. what is ours by its acknowledgement", () => {
  test("starting, and the Pod parked: opened", () => {
    expect(stepOf(acknowledged(), PARKED, 800)).toEqual({ do: "open", acknowledgedAt: OURS });
  });

  test("active: somebody beats it although our container never started; it is settled, not opened", () => {
    const claim = acknowledged({ item: view("active", POLLED + 5_000) });
    expect(stepOf(claim, PARKED, 6_000)).toEqual({ do: "snapshot", value: at(POLLED + 2_000) });
  });

  test("stopping: stopped by force", () => {
    expect(stepOf(acknowledged({ item: view("stopping", POLLED + 5_000) }), PARKED, 6_000)).toEqual(STOP);
  });

  test.each([
    ["gone", GONE],
    ["ended before it started", ended({ cause: "Evicted", startedAtMs: null })],
  ] as const)("starting, and the Pod %s: fenced, to be stopped", (_, pod) => {
    expect(stepOf(acknowledged(), pod, 800)).toEqual(FIRST_BEAT);
  });

  test("starting, and the Pod being deleted: fenced", () => {
    expect(stepOf(acknowledged(), PARKED, 800, { podGoneByMs: POLLED + 30_000 })).toEqual(FIRST_BEAT);
  });

  test("starting, and the Environment being deleted: fenced, nothing is opened any more", () => {
    expect(stepOf(acknowledged(), PARKED, 800, draining(600_000))).toEqual(FIRST_BEAT);
  });

  test("an opening that got no answer goes on through a drain: its container may be about to start", () => {
    const claim = acknowledged({ openingSent: true });
    expect(stepOf(claim, PARKED, 800, draining(600_000))).toEqual({ do: "open", acknowledgedAt: OURS });
    expect(stepOf(claim, PARKED, 800, draining(700))).toEqual(FIRST_BEAT);
  });

  test("what could not be opened for too long is settled", () => {
    const claim = acknowledged({ ending: { why: "StartFailed", message: "no leave" } });
    expect(stepOf(claim, PARKED, 800)).toEqual(FIRST_BEAT);
  });

  test("its Secret deleted by somebody: fenced, nothing is opened any more", () => {
    expect(stepOf(acknowledged({ gone: true }), PARKED, 800)).toEqual(FIRST_BEAT);
  });

  test("an item without a credential is never opened", () => {
    const refusal = acknowledged({ journal: { ...JOURNAL, use: "refusal" } });
    expect(stepOf(refusal, GONE, 800)).toEqual(FIRST_BEAT);
    expect(stepOf(refusal, PARKED, 800)).toEqual(FIRST_BEAT);
  });

  test("a Pod that is not parked for a moment is waited for, one kubelet look long, then given up", () => {
    expect(stepOf(acknowledged(), PREPARING, 800)).toEqual(waitUntil(25_000));
    expect(stepOf(acknowledged(), PREPARING, 25_000)).toEqual(FIRST_BEAT);
  });

  test("an item acknowledged again by somebody else is not opened", () => {
    const claim = acknowledged({ item: view("starting", POLLED + 700, { acknowledgedAt: THEIRS }) });
    expect(stepOf(claim, PARKED, 800)).toEqual({ do: "settled", because: "acknowledged by somebody else" });
  });

  test("what was seen long ago is looked at anew before it is opened", () => {
    expect(stepOf(acknowledged(), PARKED, 31_000)).toEqual(LOOK);
  });

  test("an item that we beat ourselves is not opened: its worker would be refused", () => {
    const claim = acknowledged({
      memory: { is: "fenced", beatSentMs: POLLED + 800, ttlMs: 90_000, value: at(POLLED + 850) },
      item: view("active", POLLED + 900, { latestHeartbeatAt: at(POLLED + 850) }),
    });
    expect(stepOf(claim, PARKED, 1_000)).toEqual(STOP);
  });

  test.each([
    ["runs", RUNNING],
    ["ran", ended()],
  ])("a container that %s was given its key: the opening's answer was lost, and is asked for again", (_, pod) => {
    expect(stepOf(acknowledged(), pod, 1_200)).toEqual({ do: "open", acknowledgedAt: OURS });
  });
});

describe("5. open: a container that still waits", () => {
  const claim = opened();

  test("a Pod that was not touched yet is touched", () => {
    expect(stepOf(opened({ touchedMs: null, touches: 0 }), PARKED, 950)).toEqual({ do: "touch" });
  });

  test("it is touched again after 0.5, 1, 2, then every 4 s", () => {
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

  test("a cache that does not show the touch yet is no reason for another at once", () => {
    const lagging = { podAssigned: false };
    expect(stepOf(claim, PARKED, 920, lagging)).toEqual(waitUntil(1_410));
    expect(stepOf(claim, PREPARING, 920, lagging)).toEqual(waitUntil(1_410));
  });

  test("a container that is being made is waited for", () => {
    expect(stepOf(claim, PREPARING, 2_000)).toEqual(waitUntil(60_900));
  });

  test("a waiting reason that does not name our Secret is a failure at once", () => {
    const problem = { reason: "CreateContainerConfigError", message: "container has runAsNonRoot" };
    expect(stepOf(claim, { is: "preparing", problem }, 1_000)).toMatchObject({
      do: "delete-pod",
      why: "StartFailed",
      message: expect.stringContaining("runAsNonRoot"),
    });
  });

  test.each(["ErrImagePull", "ImagePullBackOff"])(
    "%s: the image is pulled again for as long as a start may take",
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
    ["is being made", PREPARING],
  ] as const)("a container that still %s after firstBeatTimeoutSeconds failed to start", (_, pod) => {
    expect(stepOf(claim, pod, 60_900)).toMatchObject({ do: "delete-pod", why: "StartFailed" });
  });

  test("after a restart: with key, not touched: touch; touched: touch once more, kubelet may have missed it", () => {
    const recovered = opened({ touches: 0, touchedMs: null, openedMs: POLLED + 500_000, waitedMs: null });
    expect(stepOf(recovered, PARKED, 500_001, { podAssigned: false })).toEqual({ do: "touch" });
    expect(stepOf(recovered, PARKED, 500_001, { podAssigned: true })).toEqual({ do: "touch" });
  });

  test("a Pod that is being deleted is waited for, as long as its grace and its node allow", () => {
    expect(stepOf(claim, PARKED, 2_000, { podGoneByMs: POLLED + 90_000 })).toEqual(waitUntil(90_000));
  });
});

describe("6. watch, lease: Worker", () => {
  const served = (item = view("active", POLLED + 10_000)) => opened({ firstBeatSeen: true, item });

  test("no view of the item yet: the sweep brings one", () => {
    expect(stepOf(opened(), RUNNING, 2_000)).toEqual(waitUntil(7_000));
    expect(stepOf(opened({ item: view("unknown", POLLED) }), RUNNING, 2_000)).toEqual(waitUntil(7_000));
  });

  test("before its first beat it has firstBeatTimeoutSeconds from the container's start", () => {
    const claim = opened({ item: view("starting", POLLED + 1_500) });
    expect(stepOf(claim, RUNNING, 2_000)).toEqual(waitUntil(61_000));
  });

  test("no first beat within firstBeatTimeoutSeconds: fence", () => {
    const claim = opened({ item: view("starting", POLLED + 60_000) });
    // It may have been beaten since.
    expect(stepOf(claim, RUNNING, 61_000)).toEqual(LOOK);
    withFields(claim, { item: view("starting", POLLED + 61_000) });
    expect(stepOf(claim, RUNNING, 61_100)).toEqual(FIRST_BEAT);
  });

  test("time in which the Work API was silent does not count, and leaves time for another try", () => {
    const silence = { silentMs: 40_000, silenceEndMs: POLLED + 70_000 };
    const claim = opened({ item: view("starting", POLLED + 70_000), ...silence });
    expect(stepOf(claim, RUNNING, 70_100)).toEqual(waitUntil(101_000));
    const nearlyOver = { silentMs: 15_000, silenceEndMs: POLLED + 70_000 };
    expect(stepOf(opened({ item: claim.observed.item, ...nearlyOver }), RUNNING, 70_100)).toEqual(waitUntil(100_000));
  });

  test("no first beat: fence, look, stop, and only then delete the Pod", () => {
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

  test("no first beat, and the item went to somebody else before our fence: the Pod is deleted, nothing is stopped", () => {
    const claim = opened({
      ending: { why: "NoFirstBeat", message: "sent no heartbeat" },
      item: view("active", POLLED + 61_100, { acknowledgedAt: THEIRS }),
    });
    expect(stepOf(claim, RUNNING, 61_200)).toMatchObject({ do: "delete-pod", why: "NoFirstBeat" });
  });

  test("active: left alone until maxDurationSeconds", () => {
    expect(stepOf(served(), RUNNING, 11_000)).toEqual(waitUntil(3_601_000 - AHEAD));
  });

  describe("maxDurationSeconds over", () => {
    const OVER = 3_601_000;
    const beats = (askedAfter: number, beat: number) =>
      view("active", POLLED + askedAfter, { latestHeartbeatAt: `beat ${beat}` });
    const noted = (afterMs: number, beat: number) =>
      ({ is: "snapshot", value: `beat ${beat}`, sinceMs: POLLED + afterMs }) as const;

    test("a while before, its heartbeat is watched: it must be seen to move", () => {
      const claim = served(beats(OVER - 40_000, 1));
      expect(stepOf(claim, RUNNING, OVER - AHEAD)).toEqual({ do: "snapshot", value: "beat 1" });
      withFields(claim, { memory: noted(OVER - 40_000, 1) });
      expect(stepOf(claim, RUNNING, OVER - AHEAD)).toEqual(LOOK);
      withFields(claim, { item: beats(OVER - AHEAD, 1) });
      expect(stepOf(claim, RUNNING, OVER - 34_900)).toEqual({ do: "snapshot", value: "beat 1" });
      withFields(claim, { memory: noted(OVER - AHEAD, 1) });
      expect(stepOf(claim, RUNNING, OVER - 34_900)).toEqual(waitUntil(OVER - AHEAD + 5_000));
    });

    test("it beat lately, so it holds the lease: it is told to stop, at its time and not before", () => {
      const claim = served(beats(OVER - 5_000, 2));
      withFields(claim, { memory: noted(OVER - 10_000, 1) });
      const beatenSinceMs = POLLED + OVER - 10_000;
      expect(stepOf(claim, RUNNING, OVER - 4_000)).toEqual({ do: "snapshot", value: "beat 2", beatenSinceMs });
      withFields(claim, { memory: { ...noted(OVER - 5_000, 2), beatenSinceMs } });
      expect(stepOf(claim, RUNNING, OVER - 4_000)).toEqual(waitUntil(OVER));
      expect(stepOf(claim, RUNNING, OVER)).toEqual(GRACEFUL);
      // A beat interval after the beat, which the list may have shown five seconds late.
      expect(stepOf(claim, RUNNING, OVER + 14_999)).toEqual(GRACEFUL);
      expect(stepOf(claim, RUNNING, OVER + 15_000)).toEqual(LOOK);
    });

    test("what it beat last goes on to prove it while later looks show nothing new", () => {
      const claim = served(beats(OVER - 1_000, 2));
      const beatenSinceMs = POLLED + OVER - 10_000;
      withFields(claim, { memory: { ...noted(OVER - 5_000, 2), beatenSinceMs } });
      expect(stepOf(claim, RUNNING, OVER)).toEqual({ do: "snapshot", value: "beat 2", beatenSinceMs });
    });

    test("a value older than the one noted is from a list that is behind, and proves nothing", () => {
      const older = { latestHeartbeatAt: at(POLLED + 1) };
      const claim = served(view("active", POLLED + OVER - 5_000, older));
      withFields(claim, { memory: { is: "snapshot", value: at(POLLED + 2), sinceMs: POLLED + OVER - 10_000 } });
      expect(stepOf(claim, RUNNING, OVER - 4_000)).toEqual({ do: "snapshot", value: at(POLLED + 2) });
    });

    test("a beat that may be a beat interval old proves nothing any more", () => {
      const claim = served(beats(OVER - 5_000, 2));
      withFields(claim, { memory: noted(OVER - 10_000, 1) });
      expect(stepOf(claim, RUNNING, OVER + 20_000)).toEqual({ do: "snapshot", value: "beat 2" });
    });

    test("one that proves too little for its end is looked at again, for its next beat", () => {
      const claim = served(beats(OVER - 12_000, 2));
      withFields(claim, { memory: { ...noted(OVER - 12_000, 2), beatenSinceMs: POLLED + OVER - 32_000 } });
      expect(stepOf(claim, RUNNING, OVER - 8_000)).toEqual(waitUntil(OVER - 7_000));
      expect(stepOf(claim, RUNNING, OVER - 7_000)).toEqual(LOOK);
    });

    test("a view that is older than the one noted proves nothing", () => {
      const claim = served(beats(OVER - 5_000, 1));
      withFields(claim, { memory: noted(OVER - 4_000, 2) });
      expect(stepOf(claim, RUNNING, OVER)).toEqual(waitUntil(OVER + 1_000));
      expect(stepOf(claim, RUNNING, OVER + 1_000)).toEqual(LOOK);
    });

    test("one that hangs is never told to stop: its lease may have gone to somebody else since the last look", () => {
      const claim = served(beats(OVER, 1));
      withFields(claim, { memory: noted(OVER - 40_000, 1) });
      expect(stepOf(claim, RUNNING, OVER + 100)).toEqual({ do: "snapshot", value: "beat 1" });
    });

    test("one that nobody could tell to stop is deleted after its grace", () => {
      const claim = served(beats(OVER + 119_000, 1));
      withFields(claim, { memory: noted(OVER + 119_000, 1) });
      expect(stepOf(claim, RUNNING, OVER + 120_000)).toMatchObject({ do: "delete-pod", why: "MaxDuration" });
    });

    test("told to stop and still there after its grace, it is deleted", () => {
      const claim = served(beats(OVER, 2));
      withFields(claim, { gracefulStopMs: POLLED + OVER + 1_000 });
      expect(stepOf(claim, RUNNING, OVER + 2_000)).toEqual(waitUntil(OVER + 121_000));
      expect(stepOf(claim, RUNNING, OVER + 121_000)).toMatchObject({ do: "delete-pod", why: "MaxDuration" });
    });
  });

  test("stopping: the worker sees it by itself; still there after its grace, it is deleted", () => {
    const claim = opened({ item: view("stopping", POLLED + 20_000), stoppingSinceMs: POLLED + 20_000 });
    expect(stepOf(claim, RUNNING, 21_000)).toEqual(waitUntil(140_000));
    expect(stepOf(claim, RUNNING, 140_000)).toMatchObject({ do: "delete-pod", why: "StoppedByUser" });
  });

  test("stopping because Berth said so keeps Berth's reason", () => {
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
    ["acknowledged by somebody else", view("active", POLLED + 20_000, { acknowledgedAt: THEIRS }), "LeaseLost"],
  ] as const)(
    "%s: the worker leaves by itself; still there a TTL and a beat interval later, it is deleted",
    (_, item, why) => {
      const claim = opened({ item, lostSinceMs: POLLED + 20_000 });
      expect(stepOf(claim, RUNNING, 21_000)).toEqual(waitUntil(140_000));
      // Nothing is destroyed on a view of two minutes ago.
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
  ])("one acknowledgement written in two ways is still ours: %s, %s", (known, shown) => {
    const item = view("active", POLLED + 10_000, { acknowledgedAt: shown });
    const claim = opened({ acknowledgedAt: known, item });
    expect(stepOf(claim, RUNNING, 11_000)).toEqual(waitUntil(3_601_000 - AHEAD));
  });

  test("the Environment deleted: running sessions go on until its grace is over, then they are told to stop", () => {
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

  test("the Environment's grace over before the first beat: fenced, as nobody holds the lease yet", () => {
    const claim = opened({ item: view("starting", POLLED + 20_000) });
    expect(stepOf(claim, RUNNING, 20_000, draining(30_000))).toEqual(waitUntil(30_000));
    // Beaten meanwhile, it is told to stop: so it is looked at once more.
    expect(stepOf(claim, RUNNING, 30_000, draining(30_000))).toEqual(LOOK);
    withFields(claim, { item: view("starting", POLLED + 30_001) });
    expect(stepOf(claim, RUNNING, 30_002, draining(30_000))).toEqual(FIRST_BEAT);
  });

  test("the Environment's grace nearly over and no view of the item: looked at now, not when the sweep comes by", () => {
    const claim = opened({ item: null });
    expect(stepOf(claim, RUNNING, 20_000, draining(30_000))).toEqual(LOOK);
    // Refused by one who beats: what was seen before is gone, and what holds now is wanted at once.
    withFields(claim, { memory: { is: "refused", atMs: POLLED + 30_100 } });
    expect(stepOf(claim, RUNNING, 30_200, draining(30_000))).toEqual(LOOK);
    withFields(claim, { item: view("unknown", POLLED + 30_200) });
    expect(stepOf(claim, RUNNING, 30_300, draining(30_000))).toEqual(waitUntil(35_200));
  });

  test("a container that kubelet started before the touch is touched all the same: it needs its labels and deadline", () => {
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
  ])("%s: a container has its time for the first beat, and no more", (_, offset) => {
    expect(stepOf(claim, startedBy(offset), 2_000)).toEqual(waitUntil(60_900));
    const seen = opened({ item: view("starting", POLLED + 60_900) });
    expect(stepOf(seen, startedBy(offset), 60_900)).toEqual(FIRST_BEAT);
  });

  test("a container that does not say when it started has its time as well", () => {
    expect(stepOf(claim, { is: "running", startedAtMs: 0 }, 2_000)).toEqual(waitUntil(60_900));
  });

  test("an opening whose answer was long away: maxDurationSeconds counts from the container's start all the same", () => {
    const claim = opened({ openedMs: POLLED + 300_000, item: view("active", POLLED + 300_500) });
    expect(stepOf(claim, RUNNING, 301_000)).toEqual(waitUntil(3_601_000 - AHEAD));
  });

  test("a container that starts after a restart has not run for longer than since it was seen to wait", () => {
    const since = { openedMs: POLLED + 500_000, waitedMs: POLLED + 500_100, touchedMs: POLLED + 500_200 };
    const claim = opened({ ...since, item: view("active", POLLED + 501_000) });
    expect(stepOf(claim, startedBy(-7_200_000), 501_500)).toEqual(waitUntil(4_100_100 - AHEAD));
  });

  test("after a restart the node's word counts: maxDurationSeconds does not begin anew", () => {
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

  test("what was seen before the end counts for nothing: the worker's own stop may have come since", () => {
    expect(stepOf(settling(null, 0), ended(), 31_000)).toEqual(LOOK);
    expect(stepOf(settling("active", 29_999), ended(), 31_000)).toEqual(LOOK);
  });

  test("stopped by the worker: settled with one look", () => {
    expect(stepOf(settling("stopped", 31_000), ended(), 31_100)).toEqual({ do: "settled", because: "stopped" });
  });

  test.each(["queued", "absent"] as const)("%s: settled, touches nothing", (state) => {
    expect(stepOf(settling(state, 31_000), GONE, 31_100)).toEqual({ do: "settled", because: state });
  });

  test("acknowledged again since: settled, touches nothing", () => {
    const claim = settling(null, 0, { item: view("active", POLLED + 31_000, { acknowledgedAt: THEIRS }) });
    expect(stepOf(claim, ended(), 31_100)).toEqual({ do: "settled", because: "acknowledged by somebody else" });
  });

  test("the list could not be read to its end: unknown, looked at again after a pause", () => {
    expect(stepOf(settling("unknown", 31_000), ended(), 31_100)).toEqual(waitUntil(36_000));
    expect(stepOf(settling("unknown", 31_000), ended(), 36_000)).toEqual(LOOK);
  });

  test.each([
    [1, 5],
    [3, 20],
    [100, 320],
  ])("after %i such looks in a row the next pause is %i s", (unknowns, seconds) => {
    const claim = settling("unknown", 31_000, { unknowns });
    expect(stepOf(claim, ended(), 31_100)).toEqual(waitUntil(31_000 + seconds * SECOND));
  });

  test("an opened claim whose Pod is gone is settled, though its end was not seen", () => {
    expect(stepOf(opened({ item: view("stopped", POLLED + 20_000) }), GONE, 20_100)).toEqual({
      do: "settled",
      because: "stopped",
    });
  });

  test("died without a word under onPodFailure: Release, and never beaten: beaten once, else it stays starting", () => {
    const died = settling("starting", 31_000, { end: { ...END, cause: "OOMKilled", exitCode: 137 } });
    expect(stepOf(died, ended(), 31_100, { limits: { ...LIMITS, onPodFailure: "Release" } })).toEqual(FIRST_BEAT);
  });

  test("stopping: stop, force, without a fence", () => {
    expect(stepOf(settling("stopping", 31_000), ended(), 31_100)).toEqual(STOP);
  });

  test("starting, never beaten: the fence is the first beat", () => {
    expect(stepOf(settling("starting", 31_000), ended(), 31_100)).toEqual(FIRST_BEAT);
  });

  test("active: its last heartbeat is remembered, and fenced with once it stood still for an interval and 20 s", () => {
    const claim = settling("active", 31_000);
    const value = at(POLLED + 2_000);
    expect(stepOf(claim, ended(), 31_100)).toEqual({ do: "snapshot", value });
    withFields(claim, { memory: { is: "snapshot", value, sinceMs: POLLED + 31_000 } });
    // Its worker may have stopped it, and the list be behind: the end shows five seconds later at the latest.
    expect(stepOf(claim, ended(), 31_200)).toEqual(waitUntil(35_000));
    expect(stepOf(claim, ended(), 35_000)).toEqual(LOOK);
    withFields(claim, { item: view("active", POLLED + 35_000) });
    expect(stepOf(claim, ended(), 35_100)).toEqual(waitUntil(31_000 + QUIET));
    expect(stepOf(claim, ended(), 31_000 + QUIET)).toEqual({ do: "fence", expected: value });
  });

  test("active, and the value moved since: somebody beats; the wait begins anew", () => {
    const claim = settling("active", 40_000, {
      memory: { is: "snapshot", value: at(POLLED + 1), sinceMs: POLLED + 31_000 },
    });
    expect(stepOf(claim, ended(), 31_000 + QUIET)).toEqual({ do: "snapshot", value: at(POLLED + 2_000) });
  });

  test("active without a heartbeat to read: fenced as never beaten, after the same wait", () => {
    const memory = { is: "snapshot", value: NO_HEARTBEAT, sinceMs: POLLED + 31_000 } as const;
    const claim = settling(null, 0, { memory, item: view("active", POLLED + 31_000, { latestHeartbeatAt: null }) });
    expect(stepOf(claim, ended(), 31_000 + QUIET)).toEqual(FIRST_BEAT);
  });

  test("our beat accepted: listed again, then stopped", () => {
    const claim = settling(null, 0, fencedAt(40_000));
    expect(stepOf(claim, ended(), 40_100)).toEqual(LOOK);
    withFields(claim, { item: view("active", POLLED + 39_999) });
    expect(stepOf(claim, ended(), 40_100)).toEqual(LOOK);
    withFields(claim, { item: view("active", POLLED + 40_100) });
    expect(stepOf(claim, ended(), 40_200)).toEqual(STOP);
  });

  test("our beat accepted, and the list still shows the value before it: it is behind, and proves nothing", () => {
    const claim = settling("active", 40_100, fencedAt(40_000));
    withFields(claim, { item: view("active", POLLED + 40_100, { latestHeartbeatAt: at(POLLED + 1_000) }) });
    expect(stepOf(claim, ended(), 40_200)).toEqual(waitUntil(46_500));
    expect(stepOf(claim, ended(), 46_500)).toEqual(LOOK);
    withFields(claim, { item: view("active", POLLED + 46_500, { latestHeartbeatAt: at(POLLED + 1_000) }) });
    expect(stepOf(claim, ended(), 46_600)).toEqual(STOP);
  });

  test("our beat accepted, and listed as somebody else's: settled, not stopped", () => {
    const claim = settling(null, 0, fencedAt(40_000));
    withFields(claim, { item: view("active", POLLED + 40_100, { acknowledgedAt: THEIRS }) });
    expect(stepOf(claim, ended(), 40_200)).toEqual({ do: "settled", because: "acknowledged by somebody else" });
  });

  test("the stop is sent before beat sent + TTL - request bound - 1 s; later, it is fenced anew", () => {
    const claim = settling("active", 40_100, fencedAt(40_000));
    expect(stepOf(claim, ended(), 40_000 + 90_000 - 2_500)).toEqual(STOP);
    expect(stepOf(claim, ended(), 40_000 + 90_000 - 2_499)).toMatchObject({ do: "snapshot" });
  });

  test("a TTL too short for a stop: never stopped, it lapses", () => {
    const claim = settling("active", 40_100, fencedAt(40_000, 2_000));
    expect(stepOf(claim, ended(), 40_200)).toMatchObject({ do: "snapshot" });
  });

  test("our beat accepted, and the list still says starting: it lags, and is asked again after a pause", () => {
    const claim = settling("starting", 40_100, fencedAt(40_000));
    expect(stepOf(claim, ended(), 40_200)).toEqual(waitUntil(45_100));
    expect(stepOf(claim, ended(), 45_100)).toEqual(LOOK);
  });

  test("starting again after our lease ran out: fenced anew", () => {
    const claim = settling("starting", 140_000, fencedAt(40_000));
    expect(stepOf(claim, ended(), 140_100)).toEqual(FIRST_BEAT);
  });

  test("a view older than our beat that says it is over is no proof of it", () => {
    const claim = settling("queued", 39_000, fencedAt(40_000));
    expect(stepOf(claim, ended(), 40_200)).toEqual(LOOK);
  });

  test("a refused beat is not repeated at once", () => {
    const claim = settling(null, 0, { memory: { is: "refused", atMs: POLLED + 40_000 } });
    expect(stepOf(claim, ended(), 40_100)).toEqual(waitUntil(45_000));
    expect(stepOf(claim, ended(), 45_000)).toEqual(LOOK);
  });

  test.each(["starting", "stopping"] as const)(
    "a call that keeps failing does not rest on one view for ever: %s is looked at anew",
    (state) => {
      expect(stepOf(settling(state, 31_000), ended(), 400_000)).toEqual(LOOK);
    },
  );

  test.each([
    ["OOMKilled", ended({ cause: "OOMKilled", exitCode: 137 })],
    ["node lost", ended({ cause: "NodeLost", exitCode: null })],
    ["never started", ended({ cause: "StartFailed", startedAtMs: null })],
    ["Pod gone", GONE],
  ] as const)("died without a word (%s), and nothing was heard since: looked at, then settled", (_, pod) => {
    expect(stepOf(settling("active", 20_000), pod, 31_000)).toEqual(LOOK);
  });

  test("a Pod that failed to start is settled while it is still being deleted", () => {
    const claim = over(POLLED + 5_000, {
      end: { ...END, cause: "StartFailed" },
      item: view("starting", POLLED + 5_100),
    });
    expect(stepOf(claim, PARKED, 5_200, { podGoneByMs: POLLED + 100_000 })).toEqual(FIRST_BEAT);
  });
});

describe("whatever the state", () => {
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

  /** Every combination, as it comes out `afterMs` after the poll. */
  function* all(afterMs: number): Generator<{ facts: Facts; step: Step }> {
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

  const TIMES = [0, 4_999, 5_000, 30_000, 61_000, 140_000, 500_000, 4_000_000];

  test.each(TIMES)("every wait ends by the clock, after now (%d ms)", (afterMs) => {
    for (const { facts: asked, step } of all(afterMs)) {
      if (step.do !== "wait") continue;
      expect(step.untilMs).not.toBeNull();
      expect(Number.isFinite(step.untilMs)).toBe(true);
      expect(step.untilMs).toBeGreaterThan(asked.nowMs);
    }
  });

  test.each(TIMES)(
    "nothing is stopped by force without the lease in hand, or told to stop already (%d ms)",
    (afterMs) => {
      for (const { facts: asked, step } of all(afterMs)) {
        if (step.do !== "stop" || !step.force) continue;
        const {
          observed: { item },
          lease: { memory },
          record: { acknowledgedAt },
        } = asked.claim;
        expect(item?.acknowledgedAt).toBe(acknowledgedAt);
        if (item?.state === "stopping") continue;
        expect(item?.state).toBe("active");
        if (memory.is !== "fenced") throw new Error(`stop with memory ${memory.is}`);
        expect(item?.askedMs).toBeGreaterThanOrEqual(memory.beatSentMs);
        const isShown = item?.latestHeartbeatAt === memory.value;
        const shownMs = memory.beatSentMs + DEFAULT_TIMING.requestBoundMs + DEFAULT_TIMING.listLagMs;
        if (!isShown) expect(item?.askedMs).toBeGreaterThanOrEqual(shownMs);
        const lastMs = memory.beatSentMs + memory.ttlMs - DEFAULT_TIMING.requestBoundMs - DEFAULT_TIMING.marginMs;
        expect(asked.nowMs).toBeLessThanOrEqual(lastMs);
      }
    },
  );

  test.each(TIMES)(
    "nothing is opened that is not ours and starting, nor anything while the Environment goes (%d ms)",
    (afterMs) => {
      for (const { facts: asked, step } of all(afterMs)) {
        if (step.do !== "open") continue;
        expect(asked.claim.record.acknowledgedAt).toBe(step.acknowledgedAt);
        if (asked.pod.is !== "parked") continue;
        expect(asked.limits.draining).toBe(false);
        expect(asked.claim.observed.item).toMatchObject({ state: "starting", acknowledgedAt: OURS });
      }
    },
  );

  test.each(TIMES)("a claim ends only when its item is out of its hands (%d ms)", (afterMs) => {
    for (const { facts: asked, step } of all(afterMs)) {
      if (step.do !== "drop" && step.do !== "settled") continue;
      const {
        observed: { item },
        record: { acknowledgedAt },
      } = asked.claim;
      const others = item?.acknowledgedAt !== acknowledgedAt;
      expect(["queued", "stopped", "absent"].includes(item?.state ?? "") || others).toBe(true);
      expect(item?.state).not.toBe("unknown");
    }
  });
});
