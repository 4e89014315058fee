import { describe, expect, test } from "vitest";
import { DEFAULT_TIMING as TIMING } from "../../src/core/timing.ts";
import {
  afterBeat,
  type BeatResult,
  beatIntervalMs,
  type HeldLease,
  type Instant,
  leaseEndMs,
  leaseOf,
  maySendStop,
  newestSentMs,
} from "../../src/protocol/lease.ts";
import type { Heartbeat, LeaseState, WorkState } from "../../src/work/types.ts";

const SENT = 100_000;
const WALL = 1_900_000_000_000;
const TTL = 90_000;
const ECHO = "2030-01-01T00:01:40.123456Z";

const held = (more: Partial<HeldLease> = {}): HeldLease => ({
  is: "held",
  state: "active",
  echo: ECHO,
  ttlMs: TTL,
  sentMs: SENT,
  sentWallMs: WALL + SENT,
  unansweredMs: null,
  ...more,
});
/** So long after the last answered beat was sent, on both clocks. */
const later = (ms: number, wallMs = ms): Instant => ({ nowMs: SENT + ms, wallMs: WALL + SENT + wallMs });
const beat = (state: WorkState, more: Partial<Heartbeat> = {}): Heartbeat => ({
  state,
  last_heartbeat: "next",
  lease_extended: state === "active",
  ttl_seconds: 60,
  ...more,
});
const answered = (state: WorkState, sentAfterMs: number, more: Partial<Heartbeat> = {}): BeatResult => ({
  is: "answered",
  beat: beat(state, more),
  sentMs: SENT + sentAfterMs,
  sentWallMs: WALL + SENT + sentAfterMs,
});
const refused = (state: WorkState, value: string | null = "another"): BeatResult => {
  const current: LeaseState = { state, last_heartbeat: value, ttl_seconds: 90 };
  return { is: "refused", current };
};
const learn = (result: BeatResult, now: Instant, lease = held()) => afterBeat(lease, result, now, TIMING);

describe("an answered beat", () => {
  test("buys the server's time from its sending, and is echoed byte for byte", () => {
    const value = "2030-01-01T00:02:10.000001+00:00";
    expect(learn(answered("active", 30_000, { last_heartbeat: value }), later(30_200))).toEqual(
      held({ echo: value, ttlMs: 60_000, sentMs: SENT + 30_000, sentWallMs: WALL + SENT + 30_000 }),
    );
  });

  test("ends the doubt of those before it that were not", () => {
    const doubted = held({ unansweredMs: SENT + 20_000 });
    expect(learn(answered("active", 30_000), later(30_200), doubted)).toMatchObject({ unansweredMs: null });
  });

  test("stopping: still ours, to be ended", () => {
    expect(learn(answered("stopping", 30_000), later(30_200))).toMatchObject({ is: "held", state: "stopping" });
  });

  test("stopped: over", () => {
    expect(learn(answered("stopped", 30_000), later(30_200))).toEqual({ is: "over" });
    expect(learn(answered("stopped", 30_000), later(TTL + 1))).toEqual({ is: "over" });
  });

  test("active but not extended: lost", () => {
    const result = answered("active", 30_000, { lease_extended: false });
    expect(learn(result, later(30_200))).toMatchObject({ is: "lost", by: "refusal" });
  });

  test.each(["queued", "starting"] as const)("%s: lost", (state) => {
    expect(learn(answered(state, 30_000), later(30_200))).toMatchObject({ is: "lost", by: "refusal" });
  });

  test("that a sleeping process reads a TTL after the one before is none: lost", () => {
    expect(learn(answered("active", 89_000), later(TTL))).toMatchObject({ is: "lost", by: "silence" });
  });

  test("of a beat that was handled before our stop changes nothing of it", () => {
    const stopping = held({ state: "stopping" });
    expect(learn(answered("active", 30_000), later(30_200), stopping)).toMatchObject({ state: "stopping" });
  });
});

describe("a refused beat", () => {
  test("of a lease whose beats were all answered: lost, whatever the value", () => {
    expect(learn(refused("active"), later(30_000))).toMatchObject({ is: "lost", by: "refusal" });
  });

  describe("after one that was not answered", () => {
    const doubted = held({ unansweredMs: SENT + 30_000 });

    test("shows its value: adopted, and what was bought before still counts from then", () => {
      expect(learn(refused("active", "its value"), later(40_000), doubted)).toEqual(
        held({ echo: "its value", adoptedMs: SENT + 30_000 }),
      );
    });

    test("adopted, and silence after it: lapsed only when what that beat bought is over", () => {
      const adopted = learn(refused("active", "its value"), later(40_000), doubted);
      if (adopted.is !== "held") throw new Error("not adopted");
      expect(newestSentMs(adopted)).toBe(SENT + 30_000);
      const lost = learn({ is: "failed" }, later(TTL), adopted);
      const lapsedMs = SENT + 30_000 + TIMING.requestBoundMs + TTL + TIMING.marginMs;
      expect(lost).toMatchObject({ is: "lost", by: "silence", lapsedMs });
      const answeredSince = learn(answered("active", 41_000), later(41_200), adopted);
      expect(answeredSince.is === "held" && newestSentMs(answeredSince)).toBe(SENT + 41_000);
    });

    test.each([
      ["up to a second before the lease can have lapsed", TTL - 1_000, "held"],
      ["later", TTL - 999, "lost"],
    ] as const)("%s", (_, ms, is) => {
      expect(learn(refused("active", "its value"), later(ms), doubted).is).toBe(is);
    });

    test("by the wall clock too: a machine that slept does not adopt what came meanwhile", () => {
      expect(learn(refused("active"), later(40_000, TTL), doubted)).toMatchObject({ is: "lost" });
    });

    test.each(["queued", "starting"] as const)("shows that the item is %s: lost", (state) => {
      expect(learn(refused(state), later(40_000), doubted)).toMatchObject({ is: "lost", by: "refusal" });
    });

    test("shows the value that we sent, or none: lost", () => {
      expect(learn(refused("active", ECHO), later(40_000), doubted)).toMatchObject({ is: "lost" });
      expect(learn(refused("active", null), later(40_000), doubted)).toMatchObject({ is: "lost" });
      expect(learn({ is: "refused", current: null }, later(40_000), doubted)).toMatchObject({ is: "lost" });
    });
  });

  test("of an item that was told to stop while it was ours: it still is", () => {
    const stopping = held({ state: "stopping" });
    expect(learn(refused("stopping"), later(30_000), stopping)).toEqual(stopping);
    expect(learn(refused("stopping"), later(30_000))).toEqual(stopping);
  });

  test("of a stopped item: over", () => {
    expect(learn(refused("stopped"), later(30_000))).toEqual({ is: "over" });
  });
});

describe("silence", () => {
  const unanswered: BeatResult = { is: "unanswered", sentMs: SENT + 60_000 };

  test("a beat without an answer leaves the lease as it was, and the doubt that it landed", () => {
    expect(learn(unanswered, later(61_500))).toEqual(held({ unansweredMs: SENT + 60_000 }));
  });

  test("a beat that took no effect leaves no doubt", () => {
    expect(learn({ is: "failed" }, later(61_500))).toEqual(held());
  });

  test.each([
    ["failed", { is: "failed" }],
    ["unanswered", unanswered],
    ["refused", refused("active")],
  ] as [string, BeatResult][])("no success for a whole TTL is the loss of the lease: %s", (_, result) => {
    expect(learn(result, later(TTL - 1)).is === "lost").toBe(result.is === "refused");
    expect(learn(result, later(TTL))).toMatchObject({ is: "lost", by: "silence" });
  });

  test("how long what was sent can keep the lease alive counts from the last beat without an answer", () => {
    const { requestBoundMs, marginMs } = TIMING;
    const late = { is: "unanswered", sentMs: SENT + 89_000 } as const;
    expect(learn(late, later(TTL))).toMatchObject({ lapsedMs: SENT + 89_000 + requestBoundMs + TTL + marginMs });
    expect(learn({ is: "failed" }, later(TTL))).toMatchObject({ lapsedMs: SENT + requestBoundMs + TTL + marginMs });
  });

  test("a stopping item cannot go to anybody else: no silence loses it", () => {
    const stopping = held({ state: "stopping" });
    expect(leaseEndMs(stopping)).toBe(Number.POSITIVE_INFINITY);
    expect(learn({ is: "failed" }, later(10 * TTL), stopping)).toEqual(stopping);
  });
});

describe("the time for a stop", () => {
  const { requestBoundMs, marginMs } = TIMING;
  const lastMs = TTL - requestBoundMs - marginMs;

  test.each([
    ["in time", lastMs, lastMs, true],
    ["too late", lastMs + 1, lastMs + 1, false],
    ["too late by the wall clock: the machine slept", 1_000, lastMs + 1, false],
    ["too late by the monotonic clock: the wall clock was set back", lastMs + 1, -5_000, false],
  ])("%s", (_, ms, wallMs, may) => {
    expect(maySendStop(held(), later(ms, wallMs), TIMING)).toBe(may);
  });

  test("a stopping item may be stopped at any time", () => {
    expect(maySendStop(held({ state: "stopping" }), later(10 * TTL), TIMING)).toBe(true);
  });
});

test.each([
  [1_000, 1_000],
  [2_000, 1_000],
  [20_000, 10_000],
  [60_000, 30_000],
  [600_000, 30_000],
])("a lease of %d ms is beaten every %d ms at the latest", (ttlMs, intervalMs) => {
  expect(beatIntervalMs({ ttlMs }, TIMING)).toBe(intervalMs);
});

describe("a lease that is taken", () => {
  const take = (state: WorkState, more: Partial<Heartbeat> = {}) => leaseOf(beat(state, more), SENT, WALL + SENT);

  test("active and extended: held", () => {
    expect(take("active")).toEqual(held({ echo: "next", ttlMs: 60_000 }));
  });

  test("stopping: held, to be ended", () => expect(take("stopping")).toMatchObject({ is: "held", state: "stopping" }));
  test("stopped: over", () => expect(take("stopped")).toEqual({ is: "over" }));

  test.each([
    ["active", false],
    ["queued", false],
    ["starting", true],
  ] as const)("%s, extended %s: none", (state, lease_extended) => {
    expect(take(state, { lease_extended })).toBeNull();
  });
});
