import { expect, test } from "vitest";
import { MAX_PROVEN, SenderRates } from "../../src/webhook/deliveries.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

function make() {
  const clock = new VirtualClock();
  const rates = new SenderRates({ clock, limit: { perSecond: 1, burst: 5 } });
  /** The number of 20 requests of an address that are admitted now. */
  const taken = (address: string) => Array.from({ length: 20 }, () => rates.take(address)).filter(Boolean).length;
  return { clock, rates, taken };
}

test("addresses without signed deliveries share one rate", () => {
  const { taken } = make();
  expect([taken("10.0.0.1"), taken("10.0.0.2")]).toEqual([5, 0]);
});

test("a flood from them takes nothing from an address with signed deliveries", async () => {
  const { clock, rates, taken } = make();
  rates.prove("10.0.0.1");
  expect([taken("10.0.0.2"), taken("10.0.0.1"), taken("10.0.0.3")]).toEqual([5, 5, 0]);
  await clock.advance(2_000);
  expect([taken("10.0.0.1"), taken("10.0.0.2")]).toEqual([2, 2]);
});

test("an address does not gain by sending more signed deliveries", () => {
  const { rates, taken } = make();
  rates.prove("10.0.0.1");
  expect(taken("10.0.0.1")).toBe(5);
  rates.prove("10.0.0.1");
  expect(taken("10.0.0.1")).toBe(0);
});

test("the number of known addresses is bounded, and those with the oldest deliveries share the rate again", () => {
  const { rates, taken } = make();
  for (let at = 0; at < MAX_PROVEN; at += 1) rates.prove(`10.0.0.${at}`);
  rates.prove("10.0.0.0");
  rates.prove("10.0.1.0");
  expect(taken("10.0.2.0")).toBe(5);
  expect([taken("10.0.0.0"), taken("10.0.0.1"), taken("10.0.1.0")]).toEqual([5, 0, 5]);
});
