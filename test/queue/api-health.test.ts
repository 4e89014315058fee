import { beforeEach, describe, expect, test } from "vitest";
import { Backoff } from "../../src/core/backoff.ts";
import { ApiHealth, type JudgedCall } from "../../src/queue/api-health.ts";
import { WorkApiError, type WorkErrorKind } from "../../src/work/errors.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const RETRY_MS = 1_000;
const NOT_FOUND_PAUSE_MS = 30_000;
const KEY_RETRY_MS = 600_000;

let clock: VirtualClock;
let health: ApiHealth;
let changes: number;

beforeEach(() => {
  clock = new VirtualClock();
  changes = 0;
  health = new ApiHealth({
    clock,
    random: () => 1,
    timing: { notFoundPauseMs: NOT_FOUND_PAUSE_MS, retryMaxMs: 30_000, rejectedKeyRetryMs: KEY_RETRY_MS },
    onChange: () => {
      changes += 1;
    },
  });
});

function backoff(): Backoff {
  return new Backoff({ baseMs: RETRY_MS, maxMs: RETRY_MS }, () => 1);
}

function error(kind: WorkErrorKind, message: string = kind, retryAfterMs?: number): WorkApiError {
  return new WorkApiError({ kind, call: "poll", message, retryAfterMs });
}

function fail(call: JudgedCall, kind: WorkErrorKind, message: string = kind): number {
  return health.attempt(call).failed(error(kind, message), backoff());
}

function answer(call: JudgedCall): void {
  health.attempt(call).answered();
}

test("reports unchecked key and queue before the first answer", () => {
  expect(health.key.reason).toBe("KeyUnchecked");
  expect(health.queue.reason).toBe("QueueUnchecked");
  answer("stats");
  expect(health.key.reason).toBe("KeyAccepted");
  expect(health.queue.reason).toBe("Reachable");
  expect(changes).toBe(1);
});

describe("a malformed item", () => {
  test("is reported the second time, even if other calls succeed, until it was not seen for a minute", () => {
    answer("poll");
    health.unreadable(error("bad-item", "item x"));
    answer("poll");
    expect(health.queue.reason).toBe("Reachable");
    health.unreadable(error("bad-item", "item x"));
    expect(health.queue).toEqual({ reason: "BadReply", message: "item x" });
    answer("poll");
    answer("stats");
    expect(health.queue.reason).toBe("BadReply");
    health.unreadable(error("bad-item", "item x"));
    clock.pause(60_000);
    answer("poll");
    expect(health.queue.reason).toBe("BadReply");
    clock.pause(1);
    answer("poll");
    expect(health.queue.reason).toBe("Reachable");
  });

  test("yields to a more severe problem", () => {
    for (let time = 0; time < 2; time += 1) health.unreadable(error("bad-item"));
    fail("stats", "not-found");
    expect(health.queue.reason).toBe("EnvironmentNotFound");
  });
});

describe("the queue", () => {
  test("is unreachable after the second lost request, not the first, until the next answer", () => {
    answer("poll");
    fail("poll", "network");
    expect(health.queue.reason).toBe("Reachable");
    fail("poll", "timeout", "no answer");
    expect(health.queue).toEqual({ reason: "Unreachable", message: "no answer" });
    answer("poll");
    expect(health.queue.reason).toBe("Reachable");
    expect(changes).toBe(3);
  });

  test.each<[WorkErrorKind, string]>([
    ["network", "Unreachable"],
    ["timeout", "Unreachable"],
    ["server", "Unreachable"],
    ["rate-limited", "RateLimited"],
    ["protocol", "BadReply"],
    ["bad-request", "BadReply"],
    ["not-found", "EnvironmentNotFound"],
  ])("gives failures of kind %s the reason %s", (kind, reason) => {
    fail("stats", kind);
    fail("stats", kind);
    expect(health.queue.reason).toBe(reason);
  });

  test("stays unreachable while every poll fails, even if statistics arrive", () => {
    for (let round = 0; round < 3; round += 1) {
      fail("poll", "server");
      answer("stats");
    }
    expect(health.queue.reason).toBe("Unreachable");
    expect(health.key.reason).toBe("KeyAccepted");
    answer("poll");
    expect(health.queue.reason).toBe("Reachable");
  });

  test("forgets a failing call that is long overdue when another call succeeds", async () => {
    fail("poll", "network");
    fail("poll", "network");
    await clock.advance(60_000);
    answer("stats");
    expect(health.queue.reason).toBe("Unreachable");
    await clock.advance(2_000);
    answer("stats");
    expect(health.queue.reason).toBe("Reachable");
  });

  test("shows one of two calls that fail differently, without alternating", () => {
    const seen = new Set<string>();
    for (let round = 0; round < 4; round += 1) {
      fail("stats", "network", "stats: refused");
      fail("poll", "network", "poll: refused");
      if (round > 0) seen.add(health.queue.message);
    }
    expect([...seen]).toEqual(["poll: refused"]);
    expect(changes).toBe(1);
  });

  test("keeps the first message of an alternating cause, and shows a lasting one", () => {
    for (const words of ["reset", "refused", "reset", "refused", "reset"]) fail("poll", "network", words);
    expect(health.queue.message).toBe("refused");
    fail("poll", "network", "no such host");
    expect(health.queue.message).toBe("refused");
    fail("poll", "network", "no such host");
    expect(health.queue.message).toBe("no such host");
    expect(changes).toBe(1);
  });

  test("shows an unknown environment at once, and rarely retries it", () => {
    expect(fail("stats", "not-found")).toBe(NOT_FOUND_PAUSE_MS);
    expect(health.queue.reason).toBe("EnvironmentNotFound");
  });

  test("waits as long as Retry-After says", () => {
    const waitMs = health.attempt("poll").failed(error("rate-limited", "429", 20_000), backoff());
    expect(waitMs).toBeGreaterThanOrEqual(20_000);
  });

  test("counts an error from outside the client as unreachable", () => {
    for (let round = 0; round < 2; round += 1) health.attempt("poll").failed(new TypeError("odd"), backoff());
    expect(health.queue).toEqual({ reason: "Unreachable", message: "odd" });
  });
});

describe("the key", () => {
  test("stays rejected until the answer to the next one", () => {
    answer("stats");
    fail("poll", "auth", "401");
    expect(health.keyRejected).toBe(true);
    expect(health.key).toEqual({ reason: "KeyRejected", message: "401" });
    expect(health.queue.reason).toBe("Reachable");
    health.keyChanged();
    expect(health.keyRejected).toBe(false);
    expect(health.key).toEqual({ reason: "KeyRejected", message: "401" });
    answer("stats");
    expect(health.key.reason).toBe("KeyAccepted");
  });

  test("ignores a 401 for the old key after the key changed", () => {
    const old = health.attempt("poll");
    health.keyChanged();
    old.failed(error("auth"), backoff());
    expect(health.keyRejected).toBe(false);
  });

  test("does not accept the new key because of an answer to the old one", () => {
    const old = health.attempt("poll");
    health.keyChanged();
    old.answered();
    expect(health.key.reason).toBe("KeyUnchecked");
    expect(health.queue.reason).toBe("Reachable");
  });
});

describe("a rejected key that does not change", () => {
  test("is not retried before its time, and then once", async () => {
    fail("poll", "auth", "poll: 401");
    expect(health.retryKey()).toBe(false);
    await clock.advance(KEY_RETRY_MS - 1);
    expect(health.retryKey()).toBe(false);
    expect(health.keyRejected).toBe(true);
    await clock.advance(1);
    expect(health.retryKey()).toBe(true);
    expect(health.keyRejected).toBe(false);
    fail("stats", "auth", "stats: 401");
    expect(health.keyRejected).toBe(true);
    expect(health.retryKey()).toBe(false);
  });

  test("keeps its message until an answer says otherwise, without a second notification", async () => {
    fail("poll", "auth", "poll: 401");
    expect(changes).toBe(1);
    await clock.advance(KEY_RETRY_MS);
    health.retryKey();
    expect(health.key).toEqual({ reason: "KeyRejected", message: "poll: 401" });
    fail("stats", "auth", "stats: 401");
    expect(health.key.message).toBe("poll: 401");
    expect(changes).toBe(1);
    await clock.advance(KEY_RETRY_MS);
    health.retryKey();
    answer("stats");
    expect(health.key.reason).toBe("KeyAccepted");
    expect(changes).toBe(2);
  });

  test("is never due for a retry if it was accepted", async () => {
    answer("poll");
    await clock.advance(KEY_RETRY_MS);
    expect(health.retryKey()).toBe(false);
  });
});

test("does not accept a rejected key for an answer to an earlier call", () => {
  const poll = health.attempt("poll");
  fail("stats", "auth", "401");
  poll.answered();
  expect(health.key.reason).toBe("KeyRejected");
  expect(health.keyRejected).toBe(true);
  answer("stats");
  expect(health.key.reason).toBe("KeyAccepted");
});
