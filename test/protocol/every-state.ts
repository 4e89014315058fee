import { beforeAll, describe, expect, test } from "vitest";
import type { Facts } from "../../src/protocol/facts.ts";
import type { Step } from "../../src/protocol/step.ts";

/** What the operator knows of a claim, and the step that it decides on. */
export interface Decided {
  readonly facts: Facts;
  readonly step: Step;
}

/** Whether a step keeps the rule. A rule says nothing about most steps, and all of them keep it. */
export type Rule = (facts: Facts, step: Step) => boolean;

/** A rule: every wait ends, and later than now. */
export const isFiniteWait: Rule = ({ nowMs }, step) =>
  step.do !== "wait" || (Number.isFinite(step.untilMs) && step.untilMs !== null && step.untilMs > nowMs);

/** Of each rule, this many steps that break it are shown. */
const SHOWN = 3;

/**
 * Tests that every step keeps every rule. The many states are made once for each time.
 * @param times milliseconds after the poll
 * @param rules by what they say
 */
export function testRules(
  times: readonly number[],
  all: (afterMs: number) => Iterable<Decided>,
  rules: Readonly<Record<string, Rule>>,
): void {
  describe.each(times)("%d ms after the poll", (afterMs) => {
    const broken = new Map<string, Decided[]>();
    beforeAll(() => {
      for (const decided of all(afterMs))
        for (const [rule, isKept] of Object.entries(rules)) {
          if (isKept(decided.facts, decided.step)) continue;
          const shown = broken.get(rule) ?? [];
          if (shown.length < SHOWN) broken.set(rule, [...shown, decided]);
        }
    });

    test.each(Object.keys(rules))("%s", (rule) => {
      expect(broken.get(rule) ?? []).toEqual([]);
    });
  });
}
