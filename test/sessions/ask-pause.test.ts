import { describe, expect, test } from "vitest";
import { heldBackUntilMs, noteAnswered, noteFailedAsk } from "../../src/sessions/ask-pause.ts";
import type { Claim } from "../../src/sessions/claim.ts";
import { LOOK, STOP, type Step } from "../../src/sessions/facts.ts";
import type { HeldLease } from "../../src/sessions/lease.ts";
import { isFenced } from "../../src/sessions/looking.ts";
import { DEFAULT_TIMING } from "../../src/sessions/timing.ts";
import { WorkApiError } from "../../src/work/errors.ts";
import { acknowledged, facts, GONE, JOURNAL, LIMITS, opened, over, POLLED, RUNNING } from "./claims.ts";

const ASKED_MS = 120_000;
const { requestBoundMs, marginMs, retryMaxMs, assumedTtlMs, beatIntervalMs, quietMarginMs } = DEFAULT_TIMING;
/** Its way, what is not known of clocks, and a timer that is late. */
const LANDS_MS = requestBoundMs + marginMs + 500;
const TAKE: Step = { do: "take", expected: "NO_HEARTBEAT" };

const refused = (retryAfterMs?: number) =>
  new WorkApiError({ kind: "rate-limited", call: "stop", message: "no", status: 429, retryAfterMs });

/** A claim whose step was refused `afterMs` after the poll. */
function failed(claim: Claim, step: Step, afterMs: number, error: unknown = refused(ASKED_MS)): Claim {
  noteFailedAsk(claim, step, error, POLLED + afterMs, DEFAULT_TIMING, () => 0);
  return claim;
}

/** For how long after that it is held back. */
const heldMs = (claim: Claim, step: Step, more: Parameters<typeof facts>[3] = {}) =>
  heldBackUntilMs(facts(claim, claim.end ? GONE : RUNNING, 0, more), step) - (claim.askPause?.failedMs ?? 0);

const HELD: HeldLease = {
  is: "held",
  state: "active",
  echo: "x",
  ttlMs: 180_000,
  sentMs: POLLED + 10_000,
  sentWallMs: 0,
  unansweredMs: null,
};

describe("a step that was refused with Retry-After", () => {
  test("waits as long as that, and only steps that ask the Work API do", () => {
    const claim = failed(opened(), LOOK, 10_000);
    expect(heldMs(claim, LOOK)).toBe(ASKED_MS);
    expect(heldMs(claim, STOP)).toBe(ASKED_MS);
    expect(heldBackUntilMs(facts(claim, RUNNING, 0), { do: "touch" })).toBe(Number.NEGATIVE_INFINITY);
  });

  test("comes once more while a lease that was taken for it still runs, then as asked", () => {
    const fenced = { is: "fenced", beatSentMs: POLLED + 9_000, ttlMs: 90_000 } as const;
    const claim = failed(over(POLLED + 8_000, { memory: fenced }), STOP, 10_000);
    expect(heldMs(claim, STOP)).toBe(89_000 - LANDS_MS);
    failed(claim, STOP, 99_000 - LANDS_MS);
    expect(heldMs(claim, STOP)).toBe(ASKED_MS);
  });

  test("comes early enough for what it is for, when it is a look after a fence", () => {
    const fenced = { is: "fenced", beatSentMs: POLLED + 9_000, ttlMs: 30_000 } as const;
    const claim = failed(over(POLLED + 8_000, { memory: fenced }), LOOK, 10_000);
    const answeredMs = heldBackUntilMs(facts(claim, GONE, 0), LOOK) + requestBoundMs;
    expect(isFenced(facts(claim, GONE, answeredMs - POLLED))).toBe(true);
  });

  test("waits on while beats keep the lease, and comes once more before it ends", () => {
    const claim = failed(over(POLLED + 8_000, { lease: HELD }), STOP, 10_000);
    expect(heldMs(claim, STOP)).toBe(ASKED_MS);
    claim.lease = { ...HELD, ttlMs: 60_000 };
    expect(heldMs(claim, STOP)).toBe(60_000 - LANDS_MS);
    claim.lease = { ...HELD, ttlMs: 60_000, state: "stopping" };
    expect(heldMs(claim, STOP)).toBe(ASKED_MS);
  });

  test("comes once more before an item that nobody beats goes back to the queue", () => {
    const claim = failed(over(POLLED + 8_000), LOOK, 10_000);
    const fence: Step = { do: "fence", expected: "x" };
    expect(heldMs(claim, fence)).toBe(assumedTtlMs - 2_000 - LANDS_MS);
    // From a look on its value has to stand still.
    const quietMs = beatIntervalMs + quietMarginMs;
    expect(heldMs(claim, LOOK)).toBe(assumedTtlMs - 2_000 - LANDS_MS - requestBoundMs - quietMs);
    const unopened = failed(acknowledged(), TAKE, 1_000);
    expect(heldMs(unopened, TAKE)).toBe(assumedTtlMs - 1_000 - LANDS_MS);
  });

  test("of a container that an earlier process left, before its lease ends", () => {
    const journal = { ...JOURNAL, lease: "Operator", opened: true } as const;
    const claim = failed(Object.assign(opened({ journal }), { othersUntilMs: POLLED }), TAKE, 10_000);
    expect(heldMs(claim, TAKE)).toBe(assumedTtlMs - 10_000 - LANDS_MS);
  });

  test("waits no longer than usual while the Environment is being deleted", () => {
    const claim = failed(over(POLLED + 8_000, { lease: HELD }), STOP, 10_000);
    expect(heldMs(claim, STOP, { limits: { ...LIMITS, draining: true } })).toBe(retryMaxMs);
  });
});

describe("a step that failed", () => {
  test("is held back for pauses that double, whatever else succeeds", () => {
    const claim = opened();
    const held: number[] = [];
    for (let n = 0; n < 9; n += 1) {
      failed(claim, STOP, 10_000, refused());
      held.push(heldMs(claim, STOP));
      noteAnswered(claim, LOOK);
    }
    expect(held).toEqual([250, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000]);
    noteAnswered(claim, STOP);
    expect(claim.askPause).toBeNull();
  });

  test("by what is no answer of the Work API leaves its claim alone", () => {
    expect(failed(opened(), LOOK, 10_000, new Error("no view")).askPause).toBeNull();
    expect(failed(opened(), { do: "touch" }, 10_000).askPause).toBeNull();
  });
});
