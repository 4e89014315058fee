import { describe, expect, test } from "vitest";
import { CODE, type Protocol, type Rules } from "../../model/rules.ts";
import { WITHOUT_A_RULE } from "../../model/scopes.ts";
import { WITHOUT_A_SHELL_RULE } from "../../model/shell-scopes.ts";
import { WITHOUT_A_SLEEP_RULE } from "../../model/sleep-scopes.ts";
import { type Standing, VALUES } from "../../model/values.ts";
import { WITHOUT_A_VOLUME_RULE } from "../../model/volume-scopes.ts";
import { judge, PATIENCE_MS, wordsOf } from "./judge.ts";

interface Value {
  readonly rule: keyof Protocol;
  readonly value: string;
  readonly standing: Standing;
}

const ALL: readonly Value[] = Object.entries(VALUES).flatMap(([rule, values]) =>
  Object.entries(values).map(([value, standing]) => ({ rule: rule as keyof Protocol, value, standing })),
);

const standingOf = (rule: keyof Protocol, value: unknown) =>
  ALL.find((each) => each.rule === rule && each.value === String(value))?.standing;

/** The rules removed in a variant: those whose value keeps no promise. */
function takenAway(rules: Rules): string[] {
  const isGone = (rule: keyof Protocol) => {
    const standing = standingOf(rule, rules[rule]);
    return standing === "removed" || (typeof standing === "object" && "behind" in standing);
  };
  return (Object.keys(VALUES) as (keyof Protocol)[]).filter(isGone).map((rule) => `${rule}: ${rules[rule]}`);
}

const variants = [
  ...WITHOUT_A_RULE,
  ...WITHOUT_A_SHELL_RULE,
  ...WITHOUT_A_SLEEP_RULE,
  ...WITHOUT_A_VOLUME_RULE,
].flatMap((broken) => broken.variants);

/** The values that remove a rule, each with what must be removed with it: nothing, or the rule that backs it up. */
const removals = ALL.flatMap(({ rule, value, standing }) => {
  if (standing === "removed") return [{ rule, value, goes: [`${rule}: ${value}`] }];
  if (typeof standing === "string" || !("behind" in standing)) return [];
  const behind = ALL.filter((other) => other.rule === standing.behind && isBehind(other.standing, rule));
  return behind.map((other) => ({ rule, value, goes: [`${rule}: ${value}`, `${other.rule}: ${other.value}`] }));
});

function isBehind(standing: Standing, rule: keyof Protocol): boolean {
  return typeof standing === "object" && "behind" in standing && standing.behind === rule;
}

describe("every rule is removed on its own", () => {
  test.each(removals)("$rule: $value", ({ goes }) => {
    expect(variants.map((rules) => takenAway(rules).sort())).toContainEqual([...goes].sort());
  });

  test("has the code's value once for each rule, and a removal or a reason for having none", () => {
    const of = (rule: string, standing: Standing) =>
      ALL.filter((each) => each.rule === rule && each.standing === standing);
    for (const rule of Object.keys(VALUES)) expect(of(rule, "ours"), rule).toHaveLength(1);
    expect(takenAway(CODE)).toEqual([]);
    const kept = Object.keys(VALUES).filter((rule) => !removals.some((removal) => removal.rule === rule));
    expect(kept).toEqual(["inHand", "nextTurn", "podTakes"]);
  });
});

/**
 * Two operators, where the second one's acknowledgement may come late; one operator with two Pods and a deletion.
 */
const TWO: Partial<Rules> = { operators: 2, acknowledgements: 1, secondAck: "accepted" };
const ONE: Partial<Rules> = { pods: 2, deletion: true };

/** Three turns of a Pod. */
const SLEEPING: Partial<Rules> = { parking: "Shell", turns: 3, oneSession: true };

/** The setting in which a rule matters. */
const SETTINGS: Partial<Record<keyof Protocol, Partial<Rules>>> = {
  ...{ window: TWO, olderAck: TWO },
  ...{ nextTurn: SLEEPING, podTakes: { volumes: 1 } },
};

const holding = ALL.flatMap(({ rule, value, standing }) => (typeof standing === "object" ? [{ rule, value }] : []));

describe("a value that removes no rule, or one with a backup, breaks no promise", () => {
  test.each(holding)(
    "$rule: $value",
    ({ rule, value }) => {
      const setting = SETTINGS[rule] ?? ONE;
      const leases = ["Worker", "Operator"] as const;
      const verdict = judge({
        name: `${rule}: ${value}`,
        variants: leases.map((lease) => ({ ...CODE, ...setting, lease, [rule]: value })),
      });
      expect(verdict.fails, wordsOf(verdict)).toEqual([]);
    },
    PATIENCE_MS,
  );
});
