import { beforeEach, describe, expect, test } from "vitest";
import { Creations } from "../../src/protocol/creations.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const BASE = 5_000;
const SECOND = 1_000;

let clock: VirtualClock;
let backoff: Creations;

beforeEach(() => {
  clock = new VirtualClock();
  const timing = { prepareBackoffBaseMs: BASE, prepareBackoffMaxMs: 300_000 };
  backoff = new Creations({ clock, timing, random: () => 1 });
  backoff.useTemplate("a1");
});

describe("a quota that refused a creation", () => {
  /** Refuses a creation this many times, each after the full pause. */
  const refusals = async (times: number) => {
    for (let n = 0; n < times; n += 1) {
      await clock.advance(Math.max(0, backoff.waitMs));
      backoff.pause("quota");
    }
  };

  test("is retried at once when a Pod has ended, and a second later", async () => {
    await refusals(4);
    expect(backoff.waitMs).toBe(8 * BASE);
    await clock.advance(SECOND);
    backoff.freed();
    expect(backoff.waitMs).toBe(0);
    backoff.pause("quota");
    expect(backoff.waitMs).toBe(SECOND);
    await clock.advance(SECOND);
    backoff.pause("quota");
    expect(backoff.waitMs, "what is left of the shortest pause").toBe(BASE - SECOND);
    await refusals(1);
    expect(backoff.waitMs, "the next pause is longer again").toBe(2 * BASE);
  });

  test("is retried soon if a Pod had ended just before", async () => {
    backoff.freed();
    await clock.advance(SECOND - 1);
    await refusals(1);
    expect(backoff.waitMs).toBe(SECOND);
  });

  test("counts as free once a Pod is created", async () => {
    await refusals(3);
    backoff.freed();
    expect(backoff.isQuotaFull).toBe(true);
    backoff.created();
    expect([backoff.isQuotaFull, backoff.waitMs <= 0]).toEqual([false, true]);
  });

  test("names the refused creation, and the next one otherwise", async () => {
    expect(backoff.refusedByQuota).toBeNull();
    await refusals(2);
    expect(backoff.refusedByQuota).toBe("quota-0");
    backoff.created();
    expect(backoff.refusedByQuota).toBeNull();
    await refusals(1);
    expect(backoff.refusedByQuota).toBe("quota-1");
  });
});

test("keeps a pause for another reason when a Pod ends", async () => {
  backoff.pause();
  backoff.freed();
  expect(backoff.waitMs).toBe(BASE);
  backoff.pause("quota");
  expect([backoff.isQuotaFull, backoff.waitMs]).toEqual([false, BASE]);
  backoff.created();
  expect(backoff.waitMs).toBe(BASE);
});

test("ends the extra tries after an ended Pod when a try fails for another reason", async () => {
  backoff.pause("quota");
  backoff.freed();
  backoff.pause();
  expect(backoff.waitMs).toBe(BASE);
});

describe("a session's volume that can't be had", () => {
  const problem = { is: "volume", message: "no answer" } as const;

  test("is still reported when another session's Pod is created and parked", () => {
    backoff.say(problem, "sesn_1");
    backoff.created("sesn_2");
    backoff.parked("a1");
    expect(backoff.problem).toEqual(problem);
  });

  test("is not reported any more once its own Pod is created", () => {
    backoff.say(problem, "sesn_1");
    backoff.created("sesn_1");
    expect(backoff.problem).toBeNull();
  });

  test("is not reported forever if its session isn't tried again", async () => {
    backoff.say(problem, "sesn_1");
    await clock.advance(90 * SECOND);
    backoff.created("sesn_2");
    expect(backoff.problem).toBeNull();
  });
});
