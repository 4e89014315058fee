import { describe, expect, test } from "vitest";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { Claim } from "../../src/protocol/claim.ts";
import { isFenced } from "../../src/protocol/facts.ts";
import { afterFailure } from "../../src/protocol/failing-steps.ts";
import type { HeldLease } from "../../src/protocol/lease.ts";
import { LOOK, STOP, type Step } from "../../src/protocol/step.ts";
import { forgetPauses, heldBackUntilMs, stepNameOf } from "../../src/sessions/ask-pause.ts";
import { WorkApiError } from "../../src/work/errors.ts";
import {
  acknowledged,
  facts,
  GONE,
  JOURNAL,
  LIMITS,
  opened,
  over,
  POLLED,
  RUNNING,
  withFields,
} from "../protocol/claims.ts";

const ASKED_MS = 120_000;
const { requestBoundMs, marginMs, retryMaxMs, assumedTtlMs, beatIntervalMs, quietMarginMs } = DEFAULT_TIMING;
/** The request's time limit, the uncertainty of the clocks, and a late timer. */
const LANDS_MS = requestBoundMs + marginMs + 500;
const TAKE: Step = { do: "take", expected: "NO_HEARTBEAT" };

const refused = (retryAfterMs?: number) =>
  new WorkApiError({ kind: "rate-limited", call: "stop", message: "no", status: 429, retryAfterMs });

/** Records that a step of the claim was refused `afterMs` after the poll. */
function failed(claim: Claim, step: Step, afterMs: number, error: unknown = refused(ASKED_MS)): Claim {
  const name = stepNameOf(step) ?? "look";
  const context = { timing: DEFAULT_TIMING, random: () => 0 };
  claim.failing ??= new Map();
  claim.failing.set(name, afterFailure(claim.failing.get(name), name, { error }, POLLED + afterMs, context));
  return claim;
}

/** When the last of the claim's requests failed. */
const failedMs = ({ failing }: Claim) => Math.max(...[...(failing?.values() ?? [])].map((each) => each.failedMs));

/** How long after that failure the step is held back. */
const heldMs = (claim: Claim, step: Step, more: Parameters<typeof facts>[3] = {}) =>
  heldBackUntilMs(facts(claim, claim.observed.end ? GONE : RUNNING, 0, more), step) - failedMs(claim);

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
  test("holds back all requests to the Work API for that time, and nothing else", () => {
    const claim = failed(opened(), LOOK, 10_000);
    expect(heldMs(claim, LOOK)).toBe(ASKED_MS);
    expect(heldMs(claim, STOP)).toBe(ASKED_MS);
    expect(heldBackUntilMs(facts(claim, RUNNING, 0), { do: "touch" })).toBe(Number.NEGATIVE_INFINITY);
  });

  test("is sent again before the lease that was taken for it ends, then after the requested pause", () => {
    const fenced = { is: "fenced", beatSentMs: POLLED + 9_000, ttlMs: 90_000 } as const;
    const claim = failed(over(POLLED + 8_000, { memory: fenced }), STOP, 10_000);
    expect(heldMs(claim, STOP)).toBe(89_000 - LANDS_MS);
    failed(claim, STOP, 99_000 - LANDS_MS);
    expect(heldMs(claim, STOP)).toBe(ASKED_MS);
  });

  test("lists an item after a fence early enough for the stop", () => {
    const fenced = { is: "fenced", beatSentMs: POLLED + 9_000, ttlMs: 30_000 } as const;
    const claim = failed(over(POLLED + 8_000, { memory: fenced }), LOOK, 10_000);
    const answeredMs = heldBackUntilMs(facts(claim, GONE, 0), LOOK) + requestBoundMs;
    expect(isFenced(facts(claim, GONE, answeredMs - POLLED))).toBe(true);
  });

  test("waits while heartbeats keep the lease, and is sent again before the lease ends", () => {
    const claim = failed(over(POLLED + 8_000, { lease: HELD }), STOP, 10_000);
    expect(heldMs(claim, STOP)).toBe(ASKED_MS);
    withFields(claim, { lease: { ...HELD, ttlMs: 60_000 } });
    expect(heldMs(claim, STOP)).toBe(60_000 - LANDS_MS);
    withFields(claim, { lease: { ...HELD, ttlMs: 60_000, state: "stopping" } });
    expect(heldMs(claim, STOP)).toBe(ASKED_MS);
  });

  test("is sent again before an item without heartbeats is requeued", () => {
    const claim = failed(over(POLLED + 8_000), LOOK, 10_000);
    const fence: Step = { do: "fence", expected: "x" };
    expect(heldMs(claim, fence)).toBe(assumedTtlMs - 2_000 - LANDS_MS);
    // After the list, the value must stay unchanged for a quiet interval.
    const quietMs = beatIntervalMs + quietMarginMs;
    expect(heldMs(claim, LOOK)).toBe(assumedTtlMs - 2_000 - LANDS_MS - requestBoundMs - quietMs);
    const unopened = failed(acknowledged(), TAKE, 1_000);
    expect(heldMs(unopened, TAKE)).toBe(assumedTtlMs - 1_000 - LANDS_MS);
  });

  test("adopts the container of an earlier process before its lease ends", () => {
    const journal = { ...JOURNAL, lease: "Operator", opened: true } as const;
    const claim = failed(withFields(opened({ journal }), { othersUntilMs: POLLED }), TAKE, 10_000);
    expect(heldMs(claim, TAKE)).toBe(assumedTtlMs - 10_000 - LANDS_MS);
  });

  test("does not wait longer than usual while the Environment is being deleted", () => {
    const claim = failed(over(POLLED + 8_000, { lease: HELD }), STOP, 10_000);
    expect(heldMs(claim, STOP, { limits: { ...LIMITS, draining: true } })).toBe(retryMaxMs);
  });
});

describe("a step that failed", () => {
  test("is held back for doubling pauses, whatever else succeeds", () => {
    const claim = opened();
    const held: number[] = [];
    for (let n = 0, atMs = 100_000; n < 9; n += 1) {
      failed(claim, STOP, atMs, refused());
      const pauseMs = heldMs(claim, STOP);
      held.push(pauseMs);
      atMs += pauseMs;
      // The answer to a list does not lift the pause of a refused stop.
      failed(claim, LOOK, atMs - 1, refused());
      claim.failing?.delete("look");
    }
    // One try falls at the end of the patience of 45 s.
    expect(held).toEqual([250, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 14_250, 15_000]);
  });

  test("holds back only itself when it is a request to the API server", () => {
    const claim = failed(opened(), { do: "settled", because: "stopped" }, 10_000, new Error("no leave"));
    expect(heldMs(claim, { do: "settled", because: "stopped" })).toBe(250);
    expect(heldBackUntilMs(facts(claim, RUNNING, 0), STOP)).toBe(Number.NEGATIVE_INFINITY);
  });

  test("is retried immediately with a new key, unless the server requested a pause", () => {
    const claim = failed(opened(), LOOK, 10_000, refused());
    forgetPauses(claim);
    expect(heldMs(claim, LOOK)).toBe(0);
    failed(claim, LOOK, 11_000);
    forgetPauses(claim);
    expect(heldMs(claim, LOOK)).toBe(ASKED_MS);
  });
});
