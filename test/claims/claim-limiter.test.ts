import { expect, test, vi } from "vitest";
import { ClaimLimiter, FIRST_UNDER_WAY, MOST_UNDER_WAY } from "../../src/claims/claim-limiter.ts";
import { Notifier } from "../../src/core/notifier.ts";
import type { Claim } from "../../src/protocol/claim.ts";
import { FEWEST_UNDER_WAY } from "../../src/protocol/claim-priority.ts";
import { ClaimTable } from "../../src/protocol/claim-table.ts";
import { claimOf, JOURNAL, OURS, withFields } from "../protocol/claims.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const LONGEST_MS = 5_000;

function setUp() {
  const clock = new VirtualClock();
  const changed = new Notifier();
  const claims = new ClaimTable();
  const onFull = vi.fn();
  const room = new ClaimLimiter({ clock, claims, changed, longestMs: LONGEST_MS, onFull });
  const stop = new AbortController();
  const fill = (count = FIRST_UNDER_WAY) => Array.from({ length: count }, () => begin());
  const begin = () => {
    const begun = claimOf({ name: `pod-${claims.size}`, claiming: true });
    claims.add(begun);
    room.begun(begun);
    return begun;
  };
  /** Whether a wait that begins now ends immediately. */
  const isFree = async () => {
    let free = false;
    void room.wait(stop.signal).then(() => {
      free = true;
    });
    await clock.advance(0);
    return free;
  };
  return { clock, claims, changed, room, stop, fill, begin, isFree, onFull };
}

test("admits FIRST_UNDER_WAY claims at first", async () => {
  const { fill, begin, isFree } = setUp();
  fill(FIRST_UNDER_WAY - 1);
  expect(await isFree()).toBe(true);
  begin();
  expect(await isFree()).toBe(false);
});

test.each<[string, (claim: Claim, claims: ClaimTable) => void]>([
  ["whose Pod was touched", (claim) => opened(claim, 1)],
  ["that was dropped", (claim, claims) => claims.remove(claim)],
  ["that was handed over without an answer to its acknowledgement", (claim) => withFields(claim, { claiming: false })],
  ["that an earlier process opened", (claim) => withFields(claim, { journal: { ...JOURNAL, opened: true } })],
  ["whose Pod has ended", (claim) => withFields(claim, { end: {} as Claim["observed"]["end"] })],
])("a claim %s makes room for the next", async (_what, change) => {
  const { claims, changed, room, stop, fill } = setUp();
  const [first] = fill();
  const waiting = room.wait(stop.signal);
  change(first as Claim, claims);
  changed.notify();
  await waiting;
});

test("an opened claim whose Pod is not touched yet still counts", async () => {
  const { changed, fill, isFree } = setUp();
  const [first] = fill();
  opened(first as Claim, 0);
  changed.notify();
  expect(await isFree()).toBe(false);
});

test("an acknowledged claim that was handed over still counts", async () => {
  const { changed, fill, isFree } = setUp();
  const [first] = fill();
  withFields(first as Claim, { claiming: false, acknowledgedAt: OURS });
  changed.notify();
  expect(await isFree()).toBe(false);
});

test("a claim of an item without a secret counts until the item is stopped, and doesn't change the limit", async () => {
  const { clock, claims, changed, fill, begin, isFree } = setUp();
  const refused = fill();
  for (const claim of refused) {
    withFields(claim, { claiming: false, acknowledgedAt: OURS, journal: { ...JOURNAL, use: "refusal" } });
  }
  changed.notify();
  expect(await isFree()).toBe(false);
  await clock.advance(2_001);
  for (const claim of refused) claims.remove(claim);
  expect(await isFree()).toBe(true);
  for (let n = 0; n < FIRST_UNDER_WAY; n += 1) {
    expect(await isFree()).toBe(true);
    begin();
  }
  expect(await isFree()).toBe(false);
});

test("reports once per wait that the limit is reached", async () => {
  const { changed, fill, isFree, onFull } = setUp();
  expect(await isFree()).toBe(true);
  fill();
  expect(await isFree()).toBe(false);
  changed.notify();
  expect(onFull).toHaveBeenCalledTimes(1);
});

test("a claim stops counting after the longest time, so that slow claims don't block others", async () => {
  const { clock, room, stop, begin, fill, isFree } = setUp();
  begin();
  await clock.advance(LONGEST_MS - 1);
  fill();
  const waiting = room.wait(stop.signal);
  expect(await isFree()).toBe(false);
  await clock.advance(1);
  expect(await isFree()).toBe(false);
  await clock.advance(LONGEST_MS - 1);
  await waiting;
});

test("lowers the limit when claims take longer, and raises it when they are fast", async () => {
  const { clock, claims, fill, begin, isFree } = setUp();
  const through = async (some: readonly Claim[], ms: number) => {
    await clock.advance(ms);
    for (const claim of some) claims.remove(claim);
    expect(await isFree()).toBe(true);
  };
  /** Begins claims until the limit is reached. */
  const filled = async () => {
    const some: Claim[] = [];
    while (await isFree()) some.push(begin());
    return some;
  };
  await through(fill(), 2_001);
  const fewest = await filled();
  expect(fewest).toHaveLength(FEWEST_UNDER_WAY);
  await through(fewest, 1_500);
  expect(await filled()).toHaveLength(FEWEST_UNDER_WAY);
  for (const claim of [...claims]) claims.remove(claim);
  const more = await filled();
  expect(more).toHaveLength(2 * FEWEST_UNDER_WAY);
  await through(more, 1_000);
  for (const many of [FIRST_UNDER_WAY, MOST_UNDER_WAY, MOST_UNDER_WAY]) {
    const all = await filled();
    expect(all).toHaveLength(many);
    await through(all, 1_000);
  }
});

test("ends all waits when the signal aborts", async () => {
  const { room, stop, fill } = setUp();
  fill();
  const waiting = room.wait(stop.signal);
  stop.abort();
  await waiting;
});

function opened(claim: Claim, touches: number): void {
  withFields(claim, { openingSent: true, journal: { ...claim.record.journal, opened: true }, touches });
}
