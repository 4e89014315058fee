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
/** An instant this long after the last answered heartbeat was sent, on both clocks. */
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

describe("an answered heartbeat", () => {
  test("extends the lease from its sending by the server's TTL, and its value is echoed byte for byte", () => {
    const value = "2030-01-01T00:02:10.000001+00:00";
    expect(learn(answered("active", 30_000, { last_heartbeat: value }), later(30_200))).toEqual(
      held({ echo: value, ttlMs: 60_000, sentMs: SENT + 30_000, sentWallMs: WALL + SENT + 30_000 }),
    );
  });

  test("clears the doubt about earlier unanswered ones", () => {
    const doubted = held({ unansweredMs: SENT + 20_000 });
    expect(learn(answered("active", 30_000), later(30_200), doubted)).toMatchObject({ unansweredMs: null });
  });

  test("with state stopping keeps the lease for the stop", () => {
    expect(learn(answered("stopping", 30_000), later(30_200))).toMatchObject({ is: "held", state: "stopping" });
  });

  test("with state stopped ends the lease", () => {
    expect(learn(answered("stopped", 30_000), later(30_200))).toEqual({ is: "over" });
    expect(learn(answered("stopped", 30_000), later(TTL + 1))).toEqual({ is: "over" });
  });

  test("of an active item without an extension loses the lease", () => {
    const result = answered("active", 30_000, { lease_extended: false });
    expect(learn(result, later(30_200))).toMatchObject({ is: "lost", by: "refusal" });
  });

  test.each(["queued", "starting"] as const)("with state %s loses the lease", (state) => {
    expect(learn(answered(state, 30_000), later(30_200))).toMatchObject({ is: "lost", by: "refusal" });
  });

  test("that a process reads a TTL after the previous one, because it slept, loses the lease", () => {
    expect(learn(answered("active", 89_000), later(TTL))).toMatchObject({ is: "lost", by: "silence" });
  });

  test("that the server handled before our stop does not undo it", () => {
    const stopping = held({ state: "stopping" });
    expect(learn(answered("active", 30_000), later(30_200), stopping)).toMatchObject({ state: "stopping" });
  });
});

describe("a refused heartbeat", () => {
  test("loses a lease whose heartbeats were all answered, whatever the value", () => {
    expect(learn(refused("active"), later(30_000))).toMatchObject({ is: "lost", by: "refusal" });
  });

  describe("after an unanswered one", () => {
    const doubted = held({ unansweredMs: SENT + 30_000 });

    test("adopts the shown value, and the lease keeps its start", () => {
      expect(learn(refused("active", "its value"), later(40_000), doubted)).toEqual(
        held({ echo: "its value", adoptedMs: SENT + 30_000 }),
      );
    });

    test("an adopted lease lapses by silence only after the time that the unanswered heartbeat gained", () => {
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
      ["adopts the value up to a second before the lease can have lapsed", TTL - 1_000, "held"],
      ["loses the lease later than that", TTL - 999, "lost"],
    ] as const)("%s", (_, ms, is) => {
      expect(learn(refused("active", "its value"), later(ms), doubted).is).toBe(is);
    });

    test("does not adopt a value after a sleep, which only the wall clock shows", () => {
      expect(learn(refused("active"), later(40_000, TTL), doubted)).toMatchObject({ is: "lost" });
    });

    test.each(["queued", "starting"] as const)("loses the lease when the item is %s", (state) => {
      expect(learn(refused(state), later(40_000), doubted)).toMatchObject({ is: "lost", by: "refusal" });
    });

    test("loses the lease when the server shows the value that we sent, or none", () => {
      expect(learn(refused("active", ECHO), later(40_000), doubted)).toMatchObject({ is: "lost" });
      expect(learn(refused("active", null), later(40_000), doubted)).toMatchObject({ is: "lost" });
      expect(learn({ is: "refused", current: null }, later(40_000), doubted)).toMatchObject({ is: "lost" });
    });
  });

  test("keeps the lease of an item that was told to stop while we held it", () => {
    const stopping = held({ state: "stopping" });
    expect(learn(refused("stopping"), later(30_000), stopping)).toEqual(stopping);
    expect(learn(refused("stopping"), later(30_000))).toEqual(stopping);
  });

  test("ends the lease of a stopped item", () => {
    expect(learn(refused("stopped"), later(30_000))).toEqual({ is: "over" });
  });
});

describe("silence", () => {
  const unanswered: BeatResult = { is: "unanswered", sentMs: SENT + 60_000 };

  test("an unanswered heartbeat keeps the lease unchanged, with a doubt", () => {
    expect(learn(unanswered, later(61_500))).toEqual(held({ unansweredMs: SENT + 60_000 }));
  });

  test("a heartbeat without effect leaves no doubt", () => {
    expect(learn({ is: "failed" }, later(61_500))).toEqual(held());
  });

  test.each([
    ["failed", { is: "failed" }],
    ["unanswered", unanswered],
    ["refused", refused("active")],
  ] as [string, BeatResult][])("a whole TTL without a success loses the lease: %s", (_, result) => {
    expect(learn(result, later(TTL - 1)).is === "lost").toBe(result.is === "refused");
    expect(learn(result, later(TTL))).toMatchObject({ is: "lost", by: "silence" });
  });

  test("the latest possible lapse counts from the last unanswered heartbeat", () => {
    const { requestBoundMs, marginMs } = TIMING;
    const late = { is: "unanswered", sentMs: SENT + 89_000 } as const;
    expect(learn(late, later(TTL))).toMatchObject({ lapsedMs: SENT + 89_000 + requestBoundMs + TTL + marginMs });
    expect(learn({ is: "failed" }, later(TTL))).toMatchObject({ lapsedMs: SENT + requestBoundMs + TTL + marginMs });
  });

  test("silence never loses a stopping item, since no other client can get it", () => {
    const stopping = held({ state: "stopping" });
    expect(leaseEndMs(stopping)).toBe(Number.POSITIVE_INFINITY);
    expect(learn({ is: "failed" }, later(10 * TTL), stopping)).toEqual(stopping);
  });
});

describe("the time for a stop", () => {
  const { requestBoundMs, marginMs } = TIMING;
  const lastMs = TTL - requestBoundMs - marginMs;

  test.each([
    ["allows it in time", lastMs, lastMs, true],
    ["denies it too late", lastMs + 1, lastMs + 1, false],
    ["denies it too late by the wall clock, after a sleep", 1_000, lastMs + 1, false],
    ["denies it too late by the monotonic clock, after the wall clock was set back", lastMs + 1, -5_000, false],
  ])("%s", (_, ms, wallMs, may) => {
    expect(maySendStop(held(), later(ms, wallMs), TIMING)).toBe(may);
  });

  test("has no limit for a stopping item", () => {
    expect(maySendStop(held({ state: "stopping" }), later(10 * TTL), TIMING)).toBe(true);
  });
});

test.each([
  [1_000, 1_000],
  [2_000, 1_000],
  [20_000, 10_000],
  [60_000, 30_000],
  [600_000, 30_000],
])("a lease of %d ms gets a heartbeat at least every %d ms", (ttlMs, intervalMs) => {
  expect(beatIntervalMs({ ttlMs }, TIMING)).toBe(intervalMs);
});

describe("taking a lease", () => {
  const take = (state: WorkState, more: Partial<Heartbeat> = {}) => leaseOf(beat(state, more), SENT, WALL + SENT);

  test("holds an active item whose lease was extended", () => {
    expect(take("active")).toEqual(held({ echo: "next", ttlMs: 60_000 }));
  });

  test("holds a stopping item", () => expect(take("stopping")).toMatchObject({ is: "held", state: "stopping" }));
  test("ends with a stopped item", () => expect(take("stopped")).toEqual({ is: "over" }));

  test.each([
    ["active", false],
    ["queued", false],
    ["starting", true],
  ] as const)("fails in state %s with lease_extended %s", (state, lease_extended) => {
    expect(take(state, { lease_extended })).toBeNull();
  });
});
