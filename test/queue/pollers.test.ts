import { describe, expect, test } from "vitest";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { type OwnPollers, Pollers } from "../../src/queue/pollers.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const LASTS_MS = DEFAULT_TIMING.pollersLastMs;
const GAP_MS = 30_000;

function setup(own: Partial<OwnPollers> = {}, expected = 0) {
  const clock = new VirtualClock();
  const now: { own: OwnPollers; expected: number } = { own: { most: 1, shouldPoll: false, ...own }, expected };
  const pollers = new Pollers({ clock, timing: DEFAULT_TIMING, own: () => now.own, expected: () => now.expected });
  /** Reads this number of pollers for as long as a difference must last. */
  const readFor = async (polling: number | null) => {
    for (let ms = 0; ms <= LASTS_MS; ms += GAP_MS) {
      pollers.noteReading(polling);
      if (ms < LASTS_MS) await clock.advance(GAP_MS);
    }
    return pollers.verdict.reason;
  };
  return { clock, now, pollers, readFor };
}

describe("pollers", () => {
  test("are unknown before the first reading, and if the Work API does not report them", async () => {
    const { pollers, readFor } = setup();
    expect(pollers.verdict.reason).toBe("PollersUnknown");
    expect(await readFor(1)).toBe("PollersExpected");
    expect(await readFor(null)).toBe("PollersUnknown");
  });

  test("beyond the own one are reported once they last, and no longer than they are counted", async () => {
    const { pollers, clock, readFor } = setup();
    pollers.noteReading(1);
    pollers.noteReading(2);
    await clock.advance(LASTS_MS - 1);
    pollers.noteReading(2);
    expect(pollers.verdict.reason).toBe("PollersExpected");
    await clock.advance(1);
    pollers.noteReading(2);
    expect(pollers.verdict.reason).toBe("OtherPollers");
    pollers.noteReading(1);
    expect(pollers.verdict.reason).toBe("PollersExpected");
    expect(await readFor(3)).toBe("OtherPollers");
  });

  test("of an earlier process, which are counted for a while, are not reported", async () => {
    const { pollers, clock } = setup();
    for (const polling of [2, 2, 1, 2, 2]) {
      pollers.noteReading(polling);
      await clock.advance(GAP_MS);
      expect(pollers.verdict.reason).not.toBe("OtherPollers");
    }
  });

  test("that are expected are not reported, but more of them are", async () => {
    const { now, readFor } = setup({}, 2);
    expect(await readFor(3)).toBe("PollersExpected");
    expect(await readFor(4)).toBe("OtherPollers");
    now.expected = 3;
    expect(await readFor(4)).toBe("PollersExpected");
  });

  test("that are missing are reported only if one of the own should poll", async () => {
    const { now, readFor } = setup({ most: 3 });
    expect(await readFor(0)).toBe("PollersExpected");
    now.own = { most: 3, shouldPoll: true };
    expect(await readFor(0)).toBe("NoPollers");
    expect(await readFor(1)).toBe("PollersExpected");
  });
});
