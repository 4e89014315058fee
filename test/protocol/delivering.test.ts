import { describe, expect, test } from "vitest";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { Claim } from "../../src/protocol/claim.ts";
import type { ItemView } from "../../src/protocol/claim-observed.ts";
import { nextStep } from "../../src/protocol/decide.ts";
import type { Facts } from "../../src/protocol/facts.ts";
import type { HeldLease } from "../../src/protocol/lease.ts";
import type { Step } from "../../src/protocol/step.ts";
import {
  type ClaimFields,
  EPOCH,
  ended,
  facts,
  GONE,
  JOURNAL,
  LIMITS,
  opened,
  PARKED,
  POLLED,
  THEIRS,
  view,
  withFields,
} from "./claims.ts";

const SECOND = 1_000;
/** When the claims of these tests were opened, after the poll. */
const OPENED = 900;
const PATIENCE = OPENED + LIMITS.firstBeatTimeoutMs;

const DELIVER: Step = { do: "deliver" };
const READ_LOG: Step = { do: "read-log" };
const LOOK: Step = { do: "look" };
const waitUntil = (afterMs: number): Step => ({ do: "wait", untilMs: POLLED + afterMs });

/** Opened by this process, and its Pod assigned; no line was sent. */
const waiting = (more: ClaimFields = {}): Claim =>
  opened({ ackedMs: POLLED + 700, assigned: true, item: view("starting", POLLED + 800), ...more });
/** A line was sent 2 s after the poll, without an answer. */
const unanswered = (more: ClaimFields = {}): Claim =>
  waiting({ delivery: "unknown", deliverySentMs: POLLED + 2_000, ...more });
/** The log showed 4 s after the poll that the program has not started. */
const unstarted = (item: ItemView | null, more: ClaimFields = {}): Claim =>
  unanswered({ delivery: "unsent", unstartedMs: POLLED + 4_000, item, ...more });
/** An opening without an answer took effect, and a conflict showed it 4 s after the poll. */
const foundOpened = (item: ItemView | null, more: ClaimFields = {}): Claim =>
  waiting({ openedAtMs: null, openedMs: POLLED + 4_000, item, ...more });
/** Opened by an earlier process, and found after a minute. */
const inherited = (more: ClaimFields = {}): Claim =>
  waiting({
    ...{ delivery: "unknown", assigned: false, openedAtMs: null, openedMs: POLLED + 60_000, ackedMs: POLLED + 60_000 },
    ...{ touches: 0, touchedMs: null, waitedMs: null, item: null, ...more },
  });

/** The same, but the log could not show whether an earlier process's line started the program. */
const unclear = (item: ItemView | null, more: ClaimFields = {}): Claim =>
  inherited({ delivery: "unclear", assigned: true, unstartedMs: POLLED + 61_000, item, ...more });

const stepOf = (claim: Claim, afterMs: number, more: Partial<Facts> = {}): Step =>
  nextStep(facts(claim, PARKED, afterMs, { waitsForLine: true, ...more }));

describe("5. open: the container waits for its line", () => {
  test("sends the line once the Secret is opened and the Pod is assigned", () => {
    expect(stepOf(waiting(), 1_000)).toEqual(DELIVER);
    expect(stepOf(waiting({ assigned: false }), 1_000, { podAssigned: true })).toEqual(DELIVER);
  });

  test("assigns the Pod first, also again if that failed", () => {
    const fresh = waiting({ assigned: false, touches: 0, touchedMs: null });
    expect(stepOf(fresh, 1_000, { podAssigned: false })).toEqual({ do: "touch" });
    const failed = waiting({ assigned: false, touchedMs: POLLED + 910 });
    const againAt = 910 + (DEFAULT_TIMING.touchAgainMs[0] ?? 0);
    expect(stepOf(failed, 1_000, { podAssigned: false })).toEqual(waitUntil(againAt));
    expect(stepOf(failed, againAt, { podAssigned: false })).toEqual({ do: "touch" });
  });

  describe("for a session that slept in its Pod", () => {
    const untouched = { turn: 2, assigned: false, touches: 0, touchedMs: null } as const;
    const refused = { ...untouched, touches: 1, touchedMs: POLLED + 4_900 };
    const againAt = 4_900 + (DEFAULT_TIMING.touchAgainMs[0] ?? 0);

    test("sends the first line at once, and assigns the Pod if no marker came", () => {
      expect(stepOf(waiting(untouched), 1_000, { podAssigned: false })).toEqual(DELIVER);
      expect(stepOf(unanswered(untouched), 5_000, { podAssigned: false })).toEqual({ do: "touch" });
      expect(stepOf(inherited({ turn: 2 }), 61_000, { podAssigned: false })).toEqual({ do: "touch" });
    });

    test("looks for the program's start although the Pod can't be assigned", () => {
      expect(stepOf(unanswered(refused), 5_000, { podAssigned: false })).toEqual(READ_LOG);
      const active = view("active", POLLED + 4_800);
      expect(stepOf(unanswered({ ...refused, item: active }), 5_000, { podAssigned: false })).toEqual({
        ...{ do: "delivered", by: "item" },
      });
      expect(stepOf(unstarted(null, refused), 5_000, { podAssigned: false })).toEqual(LOOK);
    });

    test("sends no second line before the Pod is assigned", () => {
      const seen = view("starting", POLLED + 4_800);
      expect(stepOf(unstarted(seen, refused), 5_000, { podAssigned: false })).toEqual(waitUntil(againAt));
      expect(stepOf(unstarted(seen, refused), againAt, { podAssigned: false })).toEqual({ do: "touch" });
      expect(stepOf(unstarted(seen, { ...refused, assigned: true }), 5_000, { podAssigned: false })).toEqual(DELIVER);
    });
  });

  describe("after an opening without an answer that took effect", () => {
    const before = POLLED + 3_900;
    const after = POLLED + 4_500;

    test.each([1, 2])("looks at the item before it sends the first line, turn %i", (turn) => {
      expect(stepOf(foundOpened(null, { turn }), 5_000)).toEqual(LOOK);
      expect(stepOf(foundOpened(view("starting", before), { turn }), 5_000)).toEqual(LOOK);
      expect(stepOf(foundOpened(view("starting", after), { turn }), 5_000)).toEqual(DELIVER);
    });

    test.each([1, 2])("starts no program for an item that is not ours any more, turn %i", (turn) => {
      const stopped = foundOpened(view("stopped", after), { turn });
      expect(stepOf(stopped, 5_000)).toMatchObject({ do: "delete-pod", why: "StoppedByUser" });
      const queued = foundOpened(view("queued", after), { turn });
      expect(stepOf(queued, 5_000)).toMatchObject({ do: "delete-pod", why: "LeaseLost" });
    });
  });

  test("opens the Secret first", () => {
    const journal = { ...JOURNAL, acknowledgedAt: waiting().record.acknowledgedAt };
    const unopened = waiting({ journal, openedMs: null, openedAtMs: null });
    expect(stepOf(unopened, 1_000)).toMatchObject({ do: "open" });
  });

  test("gives up when the container has not read its line in time, and names the last failure", () => {
    const gaveUp = { do: "delete-pod", why: "StartFailed" };
    const message = "the container did not read its session's line within firstBeatTimeoutSeconds";
    expect(stepOf(waiting(), PATIENCE - 1)).toEqual(DELIVER);
    expect(stepOf(waiting(), PATIENCE)).toEqual({ ...gaveUp, message });
    expect(stepOf(unanswered(), PATIENCE)).toEqual({ ...gaveUp, message });
    const failing = (step: string, said: string) =>
      withFields(waiting(), { failing: new Map([[step, { message: said }]]) } as never);
    expect(stepOf(failing("deliver", "error dialing backend"), PATIENCE)).toEqual({
      ...gaveUp,
      message: `${message}: error dialing backend`,
    });
    const unassigned = failing("touch", "forbidden");
    expect(stepOf(unassigned, PATIENCE, { podAssigned: false })).toMatchObject({ message: `${message}: forbidden` });
  });

  test("never settles the item while the container may still read a line", () => {
    for (const item of [null, view("stopped", POLLED + 5_000), view("queued", POLLED + 20_000)]) {
      for (const claim of [waiting({ item }), unanswered({ item }), unstarted(item), inherited({ item })]) {
        for (const afterMs of [1_000, 10_000, 70_000, 200_000]) {
          expect(["settled", "drop", "stop", "fence", "let-go"]).not.toContain(stepOf(claim, afterMs).do);
        }
      }
    }
  });

  test("settles the item once the container has ended, whether it has read its line or not", () => {
    for (const claim of [waiting(), unanswered(), unstarted(null), inherited()]) {
      const seen = withFields(claim, { item: view("stopped", POLLED + 90_000), endedMs: POLLED + 80_000 });
      for (const pod of [ended({ cause: "PodDeleted", exitCode: 143 }), GONE]) {
        const step = nextStep(facts(seen, pod, 91_000));
        expect(step).toEqual({ do: "settled", because: "stopped" });
      }
    }
  });
});

describe("5. open: a line without an answer", () => {
  test("makes the operator read the log before it sends another one", () => {
    expect(stepOf(unanswered(), 4_000)).toEqual(READ_LOG);
  });

  test("has started the program if its worker sends heartbeats", () => {
    const active = unanswered({ item: view("active", POLLED + 3_000) });
    expect(stepOf(active, 4_000)).toEqual({ do: "delivered", by: "item" });
  });

  test("is read again if the log shows no start, once the item was read after that", () => {
    expect(stepOf(unstarted(null), 4_100)).toEqual(LOOK);
    expect(stepOf(unstarted(view("starting", POLLED + 3_999)), 4_100)).toEqual(LOOK);
    expect(stepOf(unstarted(view("starting", POLLED + 4_000)), 4_100)).toEqual(DELIVER);
  });

  test("has started the program after all if its worker sends heartbeats when the item is read", () => {
    const active = view("active", POLLED + 4_000);
    expect(stepOf(unstarted(active), 4_100)).toEqual({ do: "delivered", by: "item" });
  });

  test("waits for a list that can be read", () => {
    const unread = unstarted(view("unknown", POLLED + 4_000));
    expect(stepOf(unread, 4_100)).toEqual(waitUntil(9_000));
    expect(stepOf(unread, 9_000)).toEqual(LOOK);
  });

  test.each(["stopped", "stopping"] as const)("is not sent again for an item that is %s", (state) => {
    expect(stepOf(unstarted(view(state, POLLED + 4_000)), 4_100)).toEqual({
      do: "delete-pod",
      why: "StoppedByUser",
      message: "the work item was stopped before its container read its line",
    });
  });

  test.each([
    ["queued", view("queued", POLLED + 6_000), "queued"],
    ["absent", view("absent", POLLED + 6_000), "absent"],
    [
      "another client's",
      view("starting", POLLED + 4_000, { acknowledgedAt: THEIRS }),
      "acknowledged by another client",
    ],
  ])("is not sent again for an item that is %s", (_, item, because) => {
    expect(stepOf(unstarted(item), 6_100)).toEqual({
      do: "delete-pod",
      why: "LeaseLost",
      message: `the work item is ${because}`,
    });
  });
});

describe("5. open: a claim that an earlier process opened", () => {
  const ASSIGNED = { podAssigned: true };

  test("may run for long: its log is read, however late that is", () => {
    expect(stepOf(inherited(), 60_100, ASSIGNED)).toEqual(READ_LOG);
    expect(stepOf(inherited(), 500_000, ASSIGNED)).toEqual(READ_LOG);
  });

  test("has started if its worker sends heartbeats", () => {
    expect(stepOf(inherited({ item: view("active", POLLED + 60_050) }), 60_100, ASSIGNED)).toEqual({
      do: "delivered",
      by: "item",
    });
  });

  test("is assigned again only after a pause, also if its time to start has ended", () => {
    const failed = inherited({ touches: 1, touchedMs: POLLED + 199_900 });
    const againAt = 199_900 + (DEFAULT_TIMING.touchAgainMs[0] ?? 0);
    expect(stepOf(failed, 200_000, { podAssigned: false })).toEqual(waitUntil(againAt));
    expect(stepOf(failed, againAt, { podAssigned: false })).toEqual({ do: "touch" });
  });

  test("is assigned first, if the earlier process did not come to that", () => {
    expect(stepOf(inherited(), 60_100, { podAssigned: false })).toEqual({ do: "touch" });
  });

  test("gets its line if the log shows no start", () => {
    const claim = inherited({
      delivery: "unsent",
      unstartedMs: POLLED + 60_200,
      item: view("starting", POLLED + 60_300),
    });
    expect(stepOf(claim, 60_400, ASSIGNED)).toEqual(DELIVER);
    expect(stepOf(claim, 60_000 + LIMITS.firstBeatTimeoutMs, ASSIGNED)).toMatchObject({ why: "StartFailed" });
  });
});

describe("5. open, lease: Operator: no line is sent without the lease", () => {
  const TTL = 180 * SECOND;
  const held = (afterMs: number, more: Partial<HeldLease> = {}): HeldLease => ({
    ...{ is: "held", state: "active", echo: "echo", ttlMs: TTL, unansweredMs: null },
    ...{ sentMs: POLLED + afterMs, sentWallMs: EPOCH + POLLED + afterMs, ...more },
  });
  const ours = (claim: Claim, lease: HeldLease | null = held(800)) =>
    withFields(claim, { journal: { ...claim.record.journal, lease: "Operator" }, lease });
  const long = { limits: { ...LIMITS, firstBeatTimeoutMs: 3_600_000 } };
  /** The lease of a heartbeat lasts until a stop that is sent then surely lands. */
  const LASTS = TTL - DEFAULT_TIMING.requestBoundMs - DEFAULT_TIMING.marginMs;

  test("sends the line while the lease surely lasts", () => {
    expect(stepOf(ours(waiting()), 1_000)).toEqual(DELIVER);
    expect(stepOf(ours(waiting()), 800 + LASTS, long)).toEqual(DELIVER);
  });

  test("waits for the next heartbeat while it may lapse, for the first line and for a repeated one", () => {
    const late = 800 + LASTS + 1;
    for (const claim of [waiting(), unstarted(view("active", POLLED + late - 10))]) {
      expect(stepOf(ours(claim), late, long)).toMatchObject({ do: "wait" });
      expect(stepOf(ours(claim, held(late - 100)), late, long)).toEqual(DELIVER);
    }
  });

  test("reads the log meanwhile", () => {
    expect(stepOf(ours(unanswered()), 800 + LASTS + 1, long)).toEqual(READ_LOG);
  });

  test("does not take its own heartbeats for those of the program", () => {
    expect(stepOf(ours(unanswered({ item: view("active", POLLED + 3_000) })), 4_000)).toEqual(READ_LOG);
    expect(stepOf(ours(inherited(), held(60_000)), 90_000, { podAssigned: true })).toEqual(READ_LOG);
  });

  test("adopts the lease of an earlier process before it sends a line", () => {
    const found = ours(inherited({ delivery: "unsent", othersUntilMs: POLLED + 60_000 }), null);
    expect(stepOf(found, 60_100, { podAssigned: true }).do).toBe("wait");
    expect(stepOf(found, 63_000, { podAssigned: true })).toEqual(LOOK);
  });

  test.each([
    ["is lost", { is: "lost", by: "refusal", message: "it went", lapsedMs: POLLED }, "LeaseLost"],
    ["was told to stop", held(800, { state: "stopping" }), "StoppedByUser"],
  ] as const)("deletes the Pod of a lease that %s, without a line", (_, lease, why) => {
    const claim = withFields(ours(waiting()), { lease });
    expect(stepOf(claim, 1_000)).toMatchObject({ do: "delete-pod", why });
  });
});

describe("5. open: a log that does not show whether an earlier process started the program", () => {
  const LATE = 60_000 + LIMITS.firstBeatTimeoutMs;
  const seen = (state: ItemView["state"]) => view(state, POLLED + 62_000);
  const byOperator = { journal: { ...unclear(null).record.journal, lease: "Operator" as const } };

  test("takes heartbeats of the worker for the start, before and after the time for the line", () => {
    expect(stepOf(unclear(seen("active")), 63_000)).toEqual({ do: "delivered", by: "item" });
    expect(stepOf(unclear(seen("active")), LATE)).toEqual({ do: "delivered", by: "item" });
  });

  test("does not end it before the item or another line shows more", () => {
    expect(stepOf(unclear(null), LATE)).toEqual(LOOK);
    expect(stepOf(unclear(seen("active"), byOperator), LATE)).not.toMatchObject({ do: "delete-pod" });
  });

  test("ends it after the time for the line if its worker has sent no heartbeat", () => {
    expect(stepOf(unclear(seen("starting")), LATE)).toEqual(DELIVER);
    const late = unclear(view("starting", POLLED + LATE));
    expect(stepOf(late, LATE)).toMatchObject({ do: "delete-pod", why: "StartFailed" });
  });
});
