import { beforeEach, describe, expect, test } from "vitest";
import { Breaker, FAILURES_TO_OPEN } from "../../src/sessions/breaker.ts";

const MINUTE = 60_000;
const HASH = "a1";

let breaker: Breaker;

beforeEach(() => {
  breaker = new Breaker({ probeFirstMs: MINUTE, probeMaxMs: 30 * MINUTE });
  breaker.watch(HASH);
});

const fail = (nowMs: number, times = 1) => {
  for (let n = 0; n < times; n += 1) breaker.failed(HASH, `failure ${n + 1}`, nowMs);
};

/** A probe that is admitted, claimed, and fails, all at `nowMs`. */
const failedProbe = (nowMs: number) => {
  expect(breaker.admits(HASH, nowMs)).toBe(true);
  breaker.claimed(HASH);
  fail(nowMs);
};

describe("opening", () => {
  test("two failures in a row stop nothing", () => {
    fail(0, FAILURES_TO_OPEN - 1);
    expect(breaker.isOpen).toBe(false);
    expect(breaker.admits(HASH, 0)).toBe(true);
  });

  test("the third failure in a row stops all claims, with the last message", () => {
    fail(0, FAILURES_TO_OPEN);
    expect(breaker.isOpen).toBe(true);
    expect(breaker.message).toBe("failure 3");
    expect(breaker.admits(HASH, MINUTE - 1)).toBe(false);
  });

  test("a success in between starts the count anew", () => {
    fail(0, 2);
    breaker.succeeded(HASH);
    fail(0, 2);
    expect(breaker.isOpen).toBe(false);
    expect(breaker.hasServed).toBe(true);
  });

  test("a claim that came to nothing counts neither way", () => {
    fail(0, 2);
    breaker.released(HASH);
    fail(0);
    expect(breaker.isOpen).toBe(true);
  });

  test("before anything has served, no more claims are under way than failures open it", () => {
    for (const claim of ["a", "b", "c"]) {
      expect(breaker.admits(HASH, 0)).toBe(true);
      breaker.claimed(HASH, claim);
    }
    expect(breaker.admits(HASH, 0)).toBe(false);
    breaker.released(HASH, "a");
    expect(breaker.admits(HASH, 0)).toBe(true);
    breaker.failed(HASH, "no", 0, "b");
    breaker.claimed(HASH, "d");
    expect(breaker.admits(HASH, 0), "one failed, two are under way").toBe(false);
    breaker.succeeded(HASH);
    for (let claim = 0; claim < 50; claim += 1) breaker.claimed(HASH, `later ${claim}`);
    expect(breaker.admits(HASH, 0)).toBe(true);
  });

  test("a new template has to prove itself anew", () => {
    breaker.succeeded(HASH);
    breaker.watch("b2");
    for (const claim of ["a", "b", "c"]) breaker.claimed("b2", claim);
    expect(breaker.admits("b2", 0)).toBe(false);
    expect(breaker.admits(HASH, 0), "Pods of the older one").toBe(true);
  });

  test("failures of an older template do not count", () => {
    breaker.watch("b2");
    fail(0, 5);
    expect(breaker.failures).toBe(0);
  });

  test("an older template's Pods may be claimed while the breaker is open", () => {
    fail(0, 3);
    expect(breaker.admits("older", 0)).toBe(true);
  });
});

describe("probing", () => {
  beforeEach(() => fail(0, FAILURES_TO_OPEN));

  test("probes come after 1, 2, 4, 8, 16, then every 30 minutes", () => {
    let nowMs = 0;
    const gaps: number[] = [];
    for (let n = 0; n < 8; n += 1) {
      const at = breaker.nextProbeAtMs;
      expect(breaker.admits(HASH, at - 1)).toBe(false);
      gaps.push((at - nowMs) / MINUTE);
      nowMs = at;
      failedProbe(nowMs);
    }
    expect(gaps).toEqual([1, 2, 4, 8, 16, 30, 30, 30]);
  });

  test("only one probe at a time", () => {
    expect(breaker.admits(HASH, MINUTE)).toBe(true);
    breaker.claimed(HASH);
    expect(breaker.admits(HASH, 100 * MINUTE)).toBe(false);
  });

  test("asking does not use the probe up: only claiming does", () => {
    expect(breaker.admits(HASH, MINUTE)).toBe(true);
    expect(breaker.admits(HASH, MINUTE)).toBe(true);
  });

  test("a probe that came to nothing may be tried again at once", () => {
    breaker.claimed(HASH);
    breaker.released(HASH);
    expect(breaker.admits(HASH, MINUTE)).toBe(true);
  });

  test("a probe that serves closes it, and the next trouble begins with one minute again", () => {
    failedProbe(MINUTE);
    breaker.claimed(HASH);
    breaker.succeeded(HASH);
    expect(breaker.isOpen).toBe(false);
    expect(breaker.admits(HASH, 0)).toBe(true);
    expect([breaker.message, breaker.nextProbeAtMs]).toEqual(["", 0]);
    fail(0, FAILURES_TO_OPEN);
    expect(breaker.nextProbeAtMs).toBe(MINUTE);
  });

  // Thirty sessions may be starting when the third one fails: they are no probes.
  test("claims under way when it opened do not put the first probe off", () => {
    fail(5_000, 27);
    expect(breaker.nextProbeAtMs).toBe(MINUTE);
    expect(breaker.failures).toBe(FAILURES_TO_OPEN + 27);
    expect(breaker.admits(HASH, MINUTE)).toBe(true);
    failedProbe(MINUTE);
    expect(breaker.nextProbeAtMs).toBe(3 * MINUTE);
  });

  test("another template starts closed, and so does the old one when it comes back", () => {
    expect(breaker.watch("b2")).toBe(true);
    expect([breaker.isOpen, breaker.failures, breaker.message]).toEqual([false, 0, ""]);
    expect(breaker.admits("b2", 0)).toBe(true);
    breaker.watch(HASH);
    expect(breaker.isOpen).toBe(false);
  });

  test("the same template watched again stays as it is", () => {
    expect(breaker.watch(HASH)).toBe(false);
    expect(breaker.isOpen).toBe(true);
  });

  test("another template has not served yet", () => {
    breaker.succeeded(HASH);
    breaker.watch("b2");
    expect(breaker.hasServed).toBe(false);
  });
});
