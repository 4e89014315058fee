import { describe, expect, it } from "vitest";
import { Backoff } from "../../src/core/backoff.ts";
import { MAX_RETRY_AFTER_MS, parseRetryAfter, retryDelayMs, WorkApiError } from "../../src/work/errors.ts";

const NOW = Date.UTC(2026, 3, 1, 10);

describe("a Retry-After header", () => {
  it.each([
    ["0", 0],
    ["5", 5_000],
    [" 5 ", 5_000],
    ["Wed, 01 Apr 2026 10:00:20 GMT", 20_000],
    ["Wednesday, 01-Apr-26 10:00:20 GMT", 20_000],
    ["Wed, 01 Apr 2026 09:00:00 GMT", 0],
    ["99999999999999999999", MAX_RETRY_AFTER_MS],
    ["Wed, 01 Apr 2126 10:00:00 GMT", MAX_RETRY_AFTER_MS],
    ["", undefined],
    ["later", undefined],
    ["-1", undefined],
    ["1e3", undefined],
    ["Infinity", undefined],
    ["2026", 300_000],
    ["Wed, tomorrow", undefined],
    [undefined, undefined],
  ])("%j", (header, expected) => {
    expect(parseRetryAfter(header, NOW)).toBe(expected);
  });
});

describe("the delay before a retry", () => {
  const error = (retryAfterMs?: number) =>
    new WorkApiError({ kind: "rate-limited", call: "poll", message: "m", retryAfterMs });
  const backoff = () => new Backoff({ baseMs: 1_000, maxMs: 60_000 }, () => 0.5);

  it("is the growing delay of the backoff", () => {
    const growing = backoff();
    expect([1, 2, 3].map(() => retryDelayMs(error(), growing))).toEqual([750, 1_500, 3_000]);
    expect(retryDelayMs(new Error("anything"), growing)).toBe(6_000);
  });

  it("is at least the server's Retry-After, plus jitter", () => {
    expect(retryDelayMs(error(20_000), backoff(), () => 0)).toBe(20_000);
    expect(retryDelayMs(error(20_000), backoff(), () => 0.5)).toBe(20_500);
  });

  it("is the backoff's delay if that is longer", () => {
    const grown = backoff();
    for (let i = 0; i < 6; i += 1) grown.next();
    expect(retryDelayMs(error(1_000), grown, () => 0)).toBe(45_000);
  });
});
