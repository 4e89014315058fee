import { describe, expect, test } from "vitest";
import { PROPERTIES } from "../../model/properties.ts";
import { CODE, FIRST } from "../../model/rules.ts";
import { CODE_SCOPES, holdingScopes, LIMITS, WEAKER, WITHOUT_A_RULE } from "../../model/scopes.ts";
import { SHELL_LIMITS, SHELL_SCOPES, WITHOUT_A_SHELL_RULE } from "../../model/shell-scopes.ts";
import { SLEEP_LIMITS, SLEEP_SCOPES, WITHOUT_A_SLEEP_RULE } from "../../model/sleep-scopes.ts";
import { VOLUME_SCOPES, WITHOUT_A_VOLUME_RULE } from "../../model/volume-scopes.ts";
import { judge, PATIENCE_MS, wordsOf } from "./judge.ts";

// Small scopes, in full: every order of steps and faults. The long run explores the large ones (test/faults/model).

const all = [...holdingScopes(CODE), ...CODE_SCOPES, WEAKER, ...SHELL_SCOPES, ...SLEEP_SCOPES, ...VOLUME_SCOPES];
const small = all.filter(({ isLarge }) => !isLarge);
const removals = [...WITHOUT_A_RULE, ...WITHOUT_A_SHELL_RULE, ...WITHOUT_A_SLEEP_RULE, ...WITHOUT_A_VOLUME_RULE];
const limits = [...LIMITS, ...SHELL_LIMITS, ...SLEEP_LIMITS];

describe("the protocol keeps its promises", () => {
  test.each(small)(
    "$name",
    (scope) => {
      const verdict = judge(scope);
      expect(verdict.fails, wordsOf(verdict)).toEqual([]);
    },
    PATIENCE_MS,
  );
});

describe("without a rule, a promise breaks", () => {
  test.each(removals)(
    "$without: $fails",
    (scope) => {
      const verdict = judge(scope);
      expect(verdict.fails, wordsOf(verdict)).toEqual([...scope.fails].sort());
      expect(scope.fails.length).toBeGreaterThan(0);
    },
    PATIENCE_MS,
  );

  test("and each promise is broken by a missing rule or a limit", () => {
    const broken = new Set([...removals, ...limits].flatMap(({ fails }) => fails));
    expect([...broken].sort()).toEqual(Object.keys(PROPERTIES).sort());
  });
});

describe("what no rule of the operator can guarantee", () => {
  test.each(limits)(
    "$without: $fails",
    (scope) => {
      const verdict = judge(scope);
      expect(verdict.fails, wordsOf(verdict)).toEqual([...scope.fails].sort());
    },
    PATIENCE_MS,
  );
});

/** State counts of another implementation of the protocol's first written version. */
const COUNTED: Readonly<Record<string, number>> = {
  "Worker: 1 operator, 1 item, 1 Pod, every server": 60_944,
  "Worker: 1 operator, 1 item, 2 Pods": 26_842,
  "Worker: 1 operator, 2 items, 1 Pod": 42_304,
  "Operator: 1 operator, 1 item, 1 Pod, every server": 53_008,
  "Operator: 1 operator, 1 item, 2 Pods": 15_360,
  "Operator: 1 operator, 2 items, 1 Pod": 33_664,
};

describe("the first written version of the protocol", () => {
  const scopes = holdingScopes(FIRST).filter(({ isLarge }) => !isLarge);
  test.each(scopes)(
    "$name: holds, in the expected number of states",
    (scope) => {
      const verdict = judge(scope);
      expect(verdict.fails, wordsOf(verdict)).toEqual([]);
      expect(verdict.states).toBe(COUNTED[scope.name]);
    },
    PATIENCE_MS,
  );
});
