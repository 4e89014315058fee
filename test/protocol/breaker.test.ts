import { beforeEach, describe, expect, test } from "vitest";
import { Breaker, type EarlierStarts, FAILURES_TO_OPEN } from "../../src/protocol/breaker.ts";

const MINUTE = 60_000;
const HASH = "a1";

let breaker: Breaker;

beforeEach(() => {
  breaker = new Breaker({ probeFirstMs: MINUTE, probeMaxMs: 30 * MINUTE });
  breaker.watch(HASH, 0);
});

const startOf = (openedMs: number, claim = "", hash = HASH) => ({ hash, claim, openedMs });

const fail = (nowMs: number, times = 1) => {
  for (let n = 0; n < times; n += 1) breaker.failed(startOf(nowMs), `failure ${n + 1}`, nowMs);
};

const serve = (openedMs: number, claim = "") => breaker.succeeded(startOf(openedMs, claim));

const resume = (row: EarlierStarts["row"], nowMs: number) => breaker.resume(HASH, { row, hasServed: false }, nowMs);

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
    serve(1);
    fail(2, 2);
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
    breaker.failed(startOf(0, "b"), "no", 0);
    breaker.claimed(HASH, "d");
    expect(breaker.admits(HASH, 0), "one failed, two are under way").toBe(false);
    serve(1, "c");
    for (let claim = 0; claim < 50; claim += 1) breaker.claimed(HASH, `later ${claim}`);
    expect(breaker.admits(HASH, 0)).toBe(true);
  });

  test("a new template has to prove itself", () => {
    serve(0);
    breaker.watch("b2", 0);
    for (const claim of ["a", "b", "c"]) breaker.claimed("b2", claim);
    expect(breaker.admits("b2", 0)).toBe(false);
  });

  test("failures of an older template do not count", () => {
    breaker.watch("b2", 0);
    fail(0, 5);
    expect(breaker.failures).toBe(0);
  });
});

describe("the Pods of a template that was replaced", () => {
  const NEXT = "b2";
  const replace = () => breaker.watch(NEXT, 10, () => [HASH]);
  /** Whether they are trusted, and whether one may be claimed now. */
  const claimable = (nowMs = 10) => [breaker.trusts(HASH), breaker.admits(HASH, nowMs)];

  test("are claimed where it served, whatever becomes of the next one", () => {
    serve(0);
    replace();
    expect(claimable()).toEqual([true, true]);
    for (let n = 0; n < FAILURES_TO_OPEN; n += 1) breaker.failed(startOf(20, "", NEXT), "no", 20);
    expect([breaker.isOpen, ...claimable()]).toEqual([true, true, true]);
  });

  test("are claimed after single failures, until there are three in a row", () => {
    serve(0);
    fail(5, FAILURES_TO_OPEN - 1);
    replace();
    expect(claimable()).toEqual([true, true]);
    fail(6);
    expect(claimable()).toEqual([false, false]);
    expect(breaker.isOpen, "the next template").toBe(false);
  });

  test("are never claimed where the breaker was open, not even for a probe", () => {
    serve(0);
    fail(5, FAILURES_TO_OPEN);
    replace();
    expect(claimable(60 * MINUTE)).toEqual([false, false]);
  });

  test("are never claimed where none had served, not even after one that was under way does", () => {
    breaker.claimed(HASH, "a");
    replace();
    expect(claimable()).toEqual([false, false]);
    serve(5, "a");
    expect(claimable()).toEqual([false, false]);
  });

  test("are not claimed where nothing is known of it", () => {
    expect([breaker.trusts("late"), breaker.admits("late", 0)]).toEqual([false, false]);
  });

  test("are claimed again when it comes back, by what is known of it", () => {
    fail(5, FAILURES_TO_OPEN);
    replace();
    expect(breaker.watch(HASH, 20, () => [NEXT, HASH])).toEqual([]);
    expect([breaker.isOpen, breaker.message]).toEqual([true, "failure 3"]);
    expect([breaker.admits(HASH, 20), breaker.admits(HASH, 5 + MINUTE)]).toEqual([false, true]);
  });

  test("are known of by their template for as long as there are any", () => {
    expect(breaker.watch(NEXT, 10, () => [HASH, "older", HASH])).toEqual([NEXT, "older"]);
    fail(15, 2);
    expect([HASH, "older", NEXT].map((hash) => breaker.failuresOf(hash))).toEqual([2, 0, 0]);
    expect(breaker.watch("c3", 20, () => [NEXT])).toEqual(["c3"]);
    expect([HASH, "older", NEXT].map((hash) => breaker.failuresOf(hash))).toEqual([null, null, 0]);
  });

  test("of an earlier process are claimed where its finished Pods say that it served: three at a time at first", () => {
    breaker.watch(NEXT, 10, () => ["served", "failed", "silent"]);
    breaker.resume("served", { row: null, hasServed: true }, 10);
    breaker.resume("failed", { row: { failures: 3, message: "no", openedMs: 0 }, hasServed: true }, 10);
    breaker.resume("silent", { row: null, hasServed: false }, 10);
    expect(["served", "failed", "silent"].map((hash) => breaker.admits(hash, 60 * MINUTE))).toEqual([
      true,
      false,
      false,
    ]);
    for (const claim of ["a", "b", "c"]) breaker.claimed("served", claim);
    expect([breaker.admits("served", 10), breaker.isAwaited("a")]).toEqual([false, true]);
    expect(breaker.succeeded(startOf(11, "a", "served"))).toBe(true);
    expect([breaker.admits("served", 11), breaker.holdsBack]).toEqual([true, true]);
  });
});

describe("a row is one of starts", () => {
  test("what was opened before all failures says nothing of them, however late it is seen to serve", () => {
    serve(0, "old");
    fail(10, FAILURES_TO_OPEN);
    serve(9, "older than they");
    expect([breaker.isOpen, breaker.failures, breaker.message]).toEqual([true, 3, "failure 3"]);
    serve(10, "opened with them");
    expect([breaker.isOpen, breaker.failures, breaker.message]).toEqual([false, 0, ""]);
  });

  test("of failures that are known before an earlier start serves, the later ones are left", () => {
    for (const openedMs of [40, 10, 20, 30]) breaker.failed(startOf(openedMs), `of ${openedMs}`, 50);
    serve(25, "between them");
    expect([breaker.isOpen, breaker.failures, breaker.message]).toEqual([false, 2, "of 30"]);
    fail(60);
    expect(breaker.isOpen).toBe(true);
  });

  test("a failure that is known late does not count after a later start that served", () => {
    serve(100);
    fail(99, FAILURES_TO_OPEN);
    expect(breaker.failures).toBe(0);
    fail(100, FAILURES_TO_OPEN);
    expect(breaker.isOpen).toBe(true);
  });

  test("one that was opened before the template was watched proves nothing of later ones", () => {
    breaker.watch("b2", 100);
    breaker.succeeded(startOf(99, "found", "b2"));
    expect([breaker.hasServed, breaker.holdsBack]).toEqual([true, true]);
    for (const claim of ["a", "b", "c"]) breaker.claimed("b2", claim);
    expect(breaker.admits("b2", 100)).toBe(false);
    breaker.succeeded(startOf(100, "a", "b2"));
    expect([breaker.holdsBack, breaker.admits("b2", 100)]).toEqual([false, true]);
  });

  test("others wait for the first of a new template, and for the probe", () => {
    breaker.claimed(HASH, "a");
    expect([breaker.isAwaited("a"), breaker.isAwaited("found")]).toEqual([true, false]);
    serve(5);
    expect(breaker.isAwaited("a")).toBe(false);
    fail(10, FAILURES_TO_OPEN);
    breaker.claimed(HASH, "probe");
    expect([breaker.isAwaited("probe"), breaker.isAwaited("a")]).toEqual([true, false]);
  });

  test("one that serves and proves nothing of the others makes room among those that have not served yet", () => {
    for (const claim of ["a", "b"]) breaker.claimed(HASH, claim);
    breaker.failed(startOf(10, "b"), "no", 20);
    serve(5, "a");
    expect(breaker.hasServed).toBe(false);
    breaker.claimed(HASH, "c");
    expect(breaker.admits(HASH, 20)).toBe(true);
    breaker.claimed(HASH, "d");
    expect(breaker.admits(HASH, 20)).toBe(false);
  });

  test("a probe counts, whatever fails while it starts", () => {
    fail(0, FAILURES_TO_OPEN);
    breaker.claimed(HASH, "probe");
    fail(MINUTE + 1);
    serve(MINUTE, "probe");
    expect([breaker.isOpen, breaker.hasServed]).toEqual([false, true]);
  });

  test("a row that an earlier process knew of goes on, and what was opened since breaks it", () => {
    resume({ failures: 2, message: "before", openedMs: -50 }, 0);
    expect([breaker.failuresOf(HASH), breaker.failuresOf("b2"), breaker.message]).toEqual([2, null, "before"]);
    fail(10);
    expect([breaker.isOpen, breaker.nextProbeAtMs]).toEqual([true, 10 + MINUTE]);
    serve(-60, "older than they");
    expect(breaker.isOpen).toBe(true);
    serve(-40, "opened since");
    expect(breaker.failures).toBe(1);
  });

  test("one that was open already gets a probe after a minute", () => {
    resume({ failures: 20, message: "before", openedMs: -50 }, 5);
    expect([breaker.isOpen, breaker.failures, breaker.nextProbeAtMs]).toEqual([true, 20, 5 + MINUTE]);
  });

  test("a template that comes back is not held to what served before", () => {
    serve(100);
    breaker.watch("b2", 0);
    breaker.watch(HASH, 0);
    fail(50, FAILURES_TO_OPEN);
    expect(breaker.isOpen).toBe(true);
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
    serve(MINUTE);
    expect(breaker.isOpen).toBe(false);
    expect(breaker.admits(HASH, 0)).toBe(true);
    expect([breaker.message, breaker.nextProbeAtMs]).toEqual(["", 0]);
    fail(MINUTE, FAILURES_TO_OPEN);
    expect(breaker.nextProbeAtMs).toBe(2 * MINUTE);
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

  test("lets one probe through at once when the fault may be fixed, and its pauses begin small again", () => {
    failedProbe(MINUTE);
    breaker.probeNow(2 * MINUTE);
    expect(breaker.admits(HASH, 2 * MINUTE)).toBe(true);
    failedProbe(2 * MINUTE);
    expect(breaker.admits(HASH, 2 * MINUTE)).toBe(false);
    expect(breaker.nextProbeAtMs).toBe(3 * MINUTE);
  });

  test("another template starts closed, and so does the old one that comes back when there are no Pods of it", () => {
    expect(breaker.watch("b2", 0)).toEqual(["b2"]);
    expect([breaker.isOpen, breaker.failures, breaker.message]).toEqual([false, 0, ""]);
    expect(breaker.admits("b2", 0)).toBe(true);
    breaker.watch(HASH, 0);
    expect(breaker.isOpen).toBe(false);
  });

  test("the same template watched again stays as it is", () => {
    expect(breaker.watch(HASH, 0)).toEqual([]);
    expect(breaker.isOpen).toBe(true);
  });

  test("another template has not served yet", () => {
    serve(0);
    breaker.watch("b2", 0);
    expect(breaker.hasServed).toBe(false);
  });
});
