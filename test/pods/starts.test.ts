import { beforeEach, describe, expect, test } from "vitest";
import { type EarlierStarts, FAILURES_TO_OPEN, Starts } from "../../src/pods/starts.ts";

const MINUTE = 60_000;
const HASH = "a1";

let starts: Starts;

beforeEach(() => {
  starts = new Starts({ probeFirstMs: MINUTE, probeMaxMs: 30 * MINUTE });
  starts.watch(HASH, 0);
});

let sessions = 0;

/** A start of a new session, by default each of another one. */
const startOf = (openedMs: number, claim = "", hash = HASH, session = `session ${++sessions}`) => ({
  ...{ hash, claim, openedMs, session },
  wakes: false,
});

const fail = (nowMs: number, times = 1) => {
  for (let n = 0; n < times; n += 1) starts.failed(startOf(nowMs), `failure ${n + 1}`, nowMs);
};

const serve = (openedMs: number, claim = "") => starts.succeeded(startOf(openedMs, claim));

const resume = (row: EarlierStarts["row"], nowMs: number) => starts.resume(HASH, { row, hasServed: false }, nowMs);

/** Admits a probe, claims it, and lets it fail, all at `nowMs`. */
const failedProbe = (nowMs: number) => {
  expect(starts.admits(HASH, nowMs)).toBe(true);
  starts.claimed(HASH);
  fail(nowMs);
};

describe("opening", () => {
  test("stays closed after two consecutive failures", () => {
    fail(0, FAILURES_TO_OPEN - 1);
    expect(starts.isOpen).toBe(false);
    expect(starts.admits(HASH, 0)).toBe(true);
  });

  test("stops all claims at the third consecutive failure, and keeps its message", () => {
    fail(0, FAILURES_TO_OPEN);
    expect(starts.isOpen).toBe(true);
    expect(starts.message).toBe("failure 3");
    expect(starts.admits(HASH, MINUTE - 1)).toBe(false);
  });

  test("restarts the count after a success", () => {
    fail(0, 2);
    serve(1);
    fail(2, 2);
    expect(starts.isOpen).toBe(false);
    expect(starts.hasServed).toBe(true);
  });

  test("ignores a claim that was released", () => {
    fail(0, 2);
    starts.released(HASH);
    fail(0);
    expect(starts.isOpen).toBe(true);
  });

  test("limits the claims under way to the failures that open it, until a session has served", () => {
    for (const claim of ["a", "b", "c"]) {
      expect(starts.admits(HASH, 0)).toBe(true);
      starts.claimed(HASH, claim);
    }
    expect(starts.admits(HASH, 0)).toBe(false);
    starts.released(HASH, "a");
    expect(starts.admits(HASH, 0)).toBe(true);
    starts.failed(startOf(0, "b"), "no", 0);
    starts.claimed(HASH, "d");
    expect(starts.admits(HASH, 0), "one failed, two are under way").toBe(false);
    serve(1, "c");
    for (let claim = 0; claim < 50; claim += 1) starts.claimed(HASH, `later ${claim}`);
    expect(starts.admits(HASH, 0)).toBe(true);
  });

  test("requires proof of a new template", () => {
    serve(0);
    starts.watch("b2", 0);
    for (const claim of ["a", "b", "c"]) starts.claimed("b2", claim);
    expect(starts.admits("b2", 0)).toBe(false);
  });

  test("ignores failures of an older template", () => {
    starts.watch("b2", 0);
    fail(0, 5);
    expect(starts.failures).toBe(0);
  });
});

describe("the Pods of a replaced template", () => {
  const NEXT = "b2";
  const replace = () => starts.watch(NEXT, 10, () => [HASH]);
  /** Whether the template is trusted, and whether a Pod of it may be claimed now. */
  const claimable = (nowMs = 10) => [starts.trusts(HASH), starts.admits(HASH, nowMs)];

  test("are claimed if the template served, whatever happens to the next one", () => {
    serve(0);
    replace();
    expect(claimable()).toEqual([true, true]);
    for (let n = 0; n < FAILURES_TO_OPEN; n += 1) starts.failed(startOf(20, "", NEXT), "no", 20);
    expect([starts.isOpen, ...claimable()]).toEqual([true, true, true]);
  });

  test("are claimed after single failures, until there are three in a row", () => {
    serve(0);
    fail(5, FAILURES_TO_OPEN - 1);
    replace();
    expect(claimable()).toEqual([true, true]);
    fail(6);
    expect(claimable()).toEqual([false, false]);
    expect(starts.isOpen, "the next template").toBe(false);
  });

  test("are never claimed if the starts was open, not even for a probe", () => {
    serve(0);
    fail(5, FAILURES_TO_OPEN);
    replace();
    expect(claimable(60 * MINUTE)).toEqual([false, false]);
  });

  test("are never claimed if none had served, not even when one under way serves later", () => {
    starts.claimed(HASH, "a");
    replace();
    expect(claimable()).toEqual([false, false]);
    serve(5, "a");
    expect(claimable()).toEqual([false, false]);
  });

  test("are not claimed if the template is unknown", () => {
    expect([starts.trusts("late"), starts.admits("late", 0)]).toEqual([false, false]);
  });

  test("are judged by the remembered record when the template returns", () => {
    fail(5, FAILURES_TO_OPEN);
    replace();
    expect(starts.watch(HASH, 20, () => [NEXT, HASH])).toEqual([]);
    expect([starts.isOpen, starts.message]).toEqual([true, "failure 3"]);
    expect([starts.admits(HASH, 20), starts.admits(HASH, 5 + MINUTE)]).toEqual([false, true]);
  });

  test("keep the record of their template while any of them exists", () => {
    expect(starts.watch(NEXT, 10, () => [HASH, "older", HASH])).toEqual([NEXT, "older"]);
    fail(15, 2);
    expect([HASH, "older", NEXT].map((hash) => starts.failuresOf(hash))).toEqual([2, 0, 0]);
    expect(starts.watch("c3", 20, () => [NEXT])).toEqual(["c3"]);
    expect([HASH, "older", NEXT].map((hash) => starts.failuresOf(hash))).toEqual([null, null, 0]);
  });

  test("of an earlier process are claimed if finished Pods prove the template, at first three at a time", () => {
    starts.watch(NEXT, 10, () => ["served", "failed", "silent"]);
    starts.resume("served", { row: null, hasServed: true }, 10);
    starts.resume("failed", { row: { failures: 3, message: "no", openedMs: 0 }, hasServed: true }, 10);
    starts.resume("silent", { row: null, hasServed: false }, 10);
    expect(["served", "failed", "silent"].map((hash) => starts.admits(hash, 60 * MINUTE))).toEqual([
      true,
      false,
      false,
    ]);
    for (const claim of ["a", "b", "c"]) starts.claimed("served", claim);
    expect([starts.admits("served", 10), starts.isAwaited("a")]).toEqual([false, true]);
    expect(starts.succeeded(startOf(11, "a", "served"))).toBe(true);
    expect([starts.admits("served", 11), starts.holdsBack]).toEqual([true, true]);
  });
});

describe("counting consecutive failures", () => {
  test("a start before all failures does not break the row, however late it serves", () => {
    serve(0, "old");
    fail(10, FAILURES_TO_OPEN);
    serve(9, "older than they");
    expect([starts.isOpen, starts.failures, starts.message]).toEqual([true, 3, "failure 3"]);
    serve(10, "opened with them");
    expect([starts.isOpen, starts.failures, starts.message]).toEqual([false, 0, ""]);
  });

  test("a start between failures removes only the earlier ones", () => {
    for (const openedMs of [40, 10, 20, 30]) starts.failed(startOf(openedMs), `of ${openedMs}`, 50);
    serve(25, "between them");
    expect([starts.isOpen, starts.failures, starts.message]).toEqual([false, 2, "of 30"]);
    fail(60);
    expect(starts.isOpen).toBe(true);
  });

  test("a failure that is reported late does not count after a later start that served", () => {
    serve(100);
    fail(99, FAILURES_TO_OPEN);
    expect(starts.failures).toBe(0);
    fail(100, FAILURES_TO_OPEN);
    expect(starts.isOpen).toBe(true);
  });

  test("a start from before the template was watched proves nothing about later ones", () => {
    starts.watch("b2", 100);
    starts.succeeded(startOf(99, "found", "b2"));
    expect([starts.hasServed, starts.holdsBack]).toEqual([true, true]);
    for (const claim of ["a", "b", "c"]) starts.claimed("b2", claim);
    expect(starts.admits("b2", 100)).toBe(false);
    starts.succeeded(startOf(100, "a", "b2"));
    expect([starts.holdsBack, starts.admits("b2", 100)]).toEqual([false, true]);
  });

  test("others wait for the first session of a new template, and for the probe", () => {
    starts.claimed(HASH, "a");
    expect([starts.isAwaited("a"), starts.isAwaited("found")]).toEqual([true, false]);
    serve(5);
    expect(starts.isAwaited("a")).toBe(false);
    fail(10, FAILURES_TO_OPEN);
    starts.claimed(HASH, "probe");
    expect([starts.isAwaited("probe"), starts.isAwaited("a")]).toEqual([true, false]);
  });

  test("a session that serves without proving its template frees a place among the unproven ones", () => {
    for (const claim of ["a", "b"]) starts.claimed(HASH, claim);
    starts.failed(startOf(10, "b"), "no", 20);
    serve(5, "a");
    expect(starts.hasServed).toBe(false);
    starts.claimed(HASH, "c");
    expect(starts.admits(HASH, 20)).toBe(true);
    starts.claimed(HASH, "d");
    expect(starts.admits(HASH, 20)).toBe(false);
  });

  test("a probe counts despite failures while it starts", () => {
    fail(0, FAILURES_TO_OPEN);
    starts.claimed(HASH, "probe");
    fail(MINUTE + 1);
    serve(MINUTE, "probe");
    expect([starts.isOpen, starts.hasServed]).toEqual([false, true]);
  });

  test("a row of an earlier process continues, and later starts that serve break it", () => {
    resume({ failures: 2, message: "before", openedMs: -50 }, 0);
    expect([starts.failuresOf(HASH), starts.failuresOf("b2"), starts.message]).toEqual([2, null, "before"]);
    fail(10);
    expect([starts.isOpen, starts.nextProbeAtMs]).toEqual([true, 10 + MINUTE]);
    serve(-60, "older than they");
    expect(starts.isOpen).toBe(true);
    serve(-40, "opened since");
    expect(starts.failures).toBe(1);
  });

  test("a starts that was open before the restart allows a probe after a minute", () => {
    resume({ failures: 20, message: "before", openedMs: -50 }, 5);
    expect([starts.isOpen, starts.failures, starts.nextProbeAtMs]).toEqual([true, 20, 5 + MINUTE]);
  });

  test("a template that returns does not keep its earlier successes", () => {
    serve(100);
    starts.watch("b2", 0);
    starts.watch(HASH, 0);
    fail(50, FAILURES_TO_OPEN);
    expect(starts.isOpen).toBe(true);
  });
});

describe("probing", () => {
  beforeEach(() => fail(0, FAILURES_TO_OPEN));

  test("probes follow after 1, 2, 4, 8 and 16 minutes, then every 30", () => {
    let nowMs = 0;
    const gaps: number[] = [];
    for (let n = 0; n < 8; n += 1) {
      const at = starts.nextProbeAtMs;
      expect(starts.admits(HASH, at - 1)).toBe(false);
      gaps.push((at - nowMs) / MINUTE);
      nowMs = at;
      failedProbe(nowMs);
    }
    expect(gaps).toEqual([1, 2, 4, 8, 16, 30, 30, 30]);
  });

  test("admits one probe at a time", () => {
    expect(starts.admits(HASH, MINUTE)).toBe(true);
    starts.claimed(HASH);
    expect(starts.admits(HASH, 100 * MINUTE)).toBe(false);
  });

  test("uses up the probe when it is claimed, not when it is admitted", () => {
    expect(starts.admits(HASH, MINUTE)).toBe(true);
    expect(starts.admits(HASH, MINUTE)).toBe(true);
  });

  test("retries a released probe immediately", () => {
    starts.claimed(HASH);
    starts.released(HASH);
    expect(starts.admits(HASH, MINUTE)).toBe(true);
  });

  test("closes after a probe that serves, and starts again with one minute at the next failure", () => {
    failedProbe(MINUTE);
    starts.claimed(HASH);
    serve(MINUTE);
    expect(starts.isOpen).toBe(false);
    expect(starts.admits(HASH, 0)).toBe(true);
    expect(starts.message).toBe("");
    fail(MINUTE, FAILURES_TO_OPEN);
    expect(starts.nextProbeAtMs).toBe(2 * MINUTE);
  });

  // Up to thirty sessions may be starting when the third one fails. They are not probes.
  test("claims under way at the opening do not delay the first probe", () => {
    fail(5_000, 27);
    expect(starts.nextProbeAtMs).toBe(MINUTE);
    expect(starts.failures).toBe(FAILURES_TO_OPEN + 27);
    expect(starts.admits(HASH, MINUTE)).toBe(true);
    failedProbe(MINUTE);
    expect(starts.nextProbeAtMs).toBe(3 * MINUTE);
  });

  test("starts closed for a new template, and for an old one without Pods", () => {
    expect(starts.watch("b2", 0)).toEqual(["b2"]);
    expect([starts.isOpen, starts.failures, starts.message]).toEqual([false, 0, ""]);
    expect(starts.admits("b2", 0)).toBe(true);
    starts.watch(HASH, 0);
    expect(starts.isOpen).toBe(false);
  });

  test("stays open when the same template is watched again", () => {
    expect(starts.watch(HASH, 0)).toEqual([]);
    expect(starts.isOpen).toBe(true);
  });

  test("treats another template as unproven", () => {
    serve(0);
    starts.watch("b2", 0);
    expect(starts.hasServed).toBe(false);
  });
});

describe("counting by session", () => {
  const failOf = (session: string, openedMs: number) =>
    starts.failed(startOf(openedMs, "", HASH, session), "no", openedMs);

  test("failures of one session hold none, once another one has served", () => {
    serve(0);
    for (let nowMs = 1; nowMs < 6; nowMs += 1) failOf("a", nowMs);
    expect([starts.isOpen, starts.isFailing(HASH), starts.admits(HASH, 6, "a")]).toEqual([false, true, true]);
    // The next process must not count more.
    expect(starts.failuresOf(HASH)).toBe(2);
    failOf("b", 6);
    expect([starts.isOpen, starts.admits(HASH, 6, "c"), starts.heldSession]).toEqual([true, false, null]);
    failOf("a", 7);
    failOf("a", 8);
    expect(starts.isOpen, "however often one of them fails again").toBe(true);
  });

  test("failures of one session hold only that session, while none has served", () => {
    for (let nowMs = 0; nowMs < 3; nowMs += 1) failOf("a", nowMs);
    expect([starts.isOpen, starts.heldSession, starts.nextProbeAtMs]).toEqual([true, "a", 2 + MINUTE]);
    expect([starts.admits(HASH, 3, "a"), starts.admits(HASH, 3, "b"), starts.admits(HASH, 3)]).toEqual([
      ...[false, true, true],
    ]);
    starts.claimed(HASH, "of b", { session: "b", wakes: false });
    expect(starts.admits(HASH, 3, "c"), "one at a time").toBe(false);
    expect(starts.admits(HASH, 2 + MINUTE, "a"), "it is no probe").toBe(true);
    starts.failed(startOf(4, "of b", HASH, "b"), "no", 5);
    expect([starts.heldSession, starts.admits(HASH, 6, "c"), starts.nextProbeAtMs]).toEqual([
      ...[null, false, 5 + 2 * MINUTE],
    ]);
  });
});

describe("a session that wakes", () => {
  const NEXT = "b2";
  const wake = (openedMs: number, claim = "") => ({ ...startOf(openedMs, claim), wakes: true });
  const waking = (nowMs: number, hash = HASH) => starts.wakes(hash, "sleeper", nowMs);
  const claim = (name: string) => starts.claimed(HASH, name, { session: "sleeper", wakes: true });

  test("waits while the starts is open, except for one probe", () => {
    fail(0, FAILURES_TO_OPEN);
    expect([waking(MINUTE - 1), waking(MINUTE)]).toEqual(["waits", "wakes"]);
    claim("probe");
    expect([waking(MINUTE), starts.admits(HASH, MINUTE)]).toEqual(["waits", false]);
    starts.failed(wake(MINUTE, "probe"), "no", MINUTE + 1);
    expect(starts.nextProbeAtMs).toBe(3 * MINUTE + 1);
  });

  test("shows that others can wake, but nothing about new Pods", () => {
    fail(0, FAILURES_TO_OPEN);
    claim("probe");
    starts.succeeded(wake(MINUTE, "probe"));
    expect([waking(MINUTE), starts.isOpen]).toEqual(["wakes", true]);
    // The next probe is a new session's.
    expect(starts.admits(HASH, MINUTE)).toBe(true);
    serve(MINUTE, "new");
    expect(starts.isOpen).toBe(false);
  });

  test("counts like a new one, and closes a starts that only such sessions opened", () => {
    serve(0);
    for (const openedMs of [1, 2, 3]) starts.failed(wake(openedMs), "no", 4);
    expect([starts.isOpen, waking(5), starts.admits(HASH, 5)]).toEqual([true, "waits", false]);
    starts.succeeded(wake(4));
    expect([starts.isOpen, waking(5), starts.admits(HASH, 5)]).toEqual([false, "wakes", true]);
    starts.failed(wake(3), "late", 6);
    expect(starts.failures, "reported late").toBe(0);
  });

  test("is one of three at a time until one has served, or a new session", () => {
    for (const name of ["a", "b", "c"]) claim(name);
    expect(waking(0)).toBe("waits");
    starts.succeeded(wake(1, "a"));
    expect([waking(1), starts.holdsBack]).toEqual(["wakes", true]);
  });

  test("wakes in a Pod of an earlier template, or of one that is not known", () => {
    starts.watch(NEXT, 10, () => [HASH]);
    expect([waking(10), waking(10, "unknown")]).toEqual(["wakes", "wakes"]);
  });

  test("moves from a held earlier template, one a minute until the current one has served", () => {
    fail(5, FAILURES_TO_OPEN);
    starts.watch(NEXT, 10, () => [HASH]);
    expect(waking(10)).toBe("moves");
    starts.moved(10);
    expect([waking(11), waking(10 + MINUTE)]).toEqual(["waits", "moves"]);
    starts.succeeded(startOf(12, "", NEXT));
    expect(waking(13)).toBe("moves");
    for (const openedMs of [14, 15, 16]) starts.failed(startOf(openedMs, "", NEXT), "no", 16);
    expect(waking(17), "the current one is held, too").toBe("waits");
  });
});

test("says whether the operator's requests were refused at the last failure", () => {
  starts.failed(startOf(0), "no", 0, true);
  expect(starts.isRefused).toBe(true);
  fail(1);
  expect(starts.isRefused).toBe(false);
});
