import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type HashGroup, type SplitInput, splitReplicas } from "../../src/workers/split.ts";

const group = (hash: string, replicas: number, over: Partial<HashGroup> = {}): HashGroup => ({
  hash,
  replicas,
  kept: 0,
  ready: replicas,
  createdAtMs: 0,
  isForbidden: false,
  ...over,
});

const split = (over: Partial<SplitInput>) =>
  Object.fromEntries(splitReplicas({ total: 5, maxReplicas: 10, hash: "new", mayGrow: true, groups: [], ...over }));

describe("splitReplicas", () => {
  test.each<[string, Partial<SplitInput>, Record<string, number>]>([
    ["the first Deployment gets all", {}, { new: 5 }],
    ["nothing is wanted", { total: 0, groups: [group("new", 3)] }, { new: 0 }],
    ["a template that is not accepted makes no worker", { mayGrow: false }, { new: 0 }],
    ["one that is no longer accepted only shrinks", { mayGrow: false, groups: [group("new", 3)] }, { new: 3 }],
    ["a new template comes beside the old one, a quarter at a time", { groups: [group("old", 5)] }, { old: 5, new: 2 }],
    ["old ones go as new ones get Ready", { groups: [group("old", 5), group("new", 2)] }, { old: 3, new: 4 }],
    [
      "new ones that do not get Ready keep the old ones",
      { groups: [group("old", 5), group("new", 2, { ready: 0 })] },
      { old: 5, new: 2 },
    ],
    ["all places are taken: a quarter gives way", { maxReplicas: 5, groups: [group("old", 5)] }, { old: 3, new: 2 }],
    [
      "all places are taken by busy ones: the new ones wait",
      { maxReplicas: 5, groups: [group("old", 5, { kept: 5 })] },
      { old: 5, new: 0 },
    ],
    [
      "a busy old one stays, and counts",
      { groups: [group("old", 3, { kept: 2 }), group("new", 3)] },
      { old: 2, new: 3 },
    ],
    [
      "new ones that start stay when an old one that had seemed idle may be busy again",
      { total: 2, groups: [group("old", 1, { kept: 1 }), group("new", 2, { ready: 1 })] },
      { old: 1, new: 2 },
    ],
    [
      "no more of them than a quarter",
      { total: 2, groups: [group("old", 1, { kept: 1 }), group("new", 4, { ready: 1 })] },
      { old: 1, new: 2 },
    ],
    [
      "and none where there is no room for them",
      { total: 2, maxReplicas: 2, groups: [group("old", 1, { kept: 1 }), group("new", 2, { ready: 1 })] },
      { old: 1, new: 1 },
    ],
    ["one worker changes its template", { total: 1, maxReplicas: 1, groups: [group("old", 1)] }, { old: 0, new: 1 }],
    [
      "idle ones of the newest old template stay longest",
      {
        total: 4,
        maxReplicas: 6,
        groups: [group("older", 2, { createdAtMs: 1 }), group("old", 2, { createdAtMs: 2 }), group("new", 1)],
      },
      { older: 1, old: 2, new: 2 },
    ],
    [
      "a template that is refused takes no place from workers that do serve",
      { mayGrow: false, groups: [group("old", 5)] },
      { old: 5, new: 0 },
    ],
    [
      "idle old ones that the policy forbids go at once, busy ones stay",
      { groups: [group("old", 5, { kept: 2, isForbidden: true })] },
      { old: 2, new: 3 },
    ],
    [
      "also where the new template may not be used either",
      { mayGrow: false, groups: [group("old", 5, { kept: 2, isForbidden: true }), group("older", 2)] },
      { old: 2, older: 2, new: 0 },
    ],
    [
      "fewer are wanted: idle old ones go first",
      { total: 1, groups: [group("old", 4, { kept: 1 })] },
      { old: 1, new: 0 },
    ],
  ])("%s", (_name, input, expected) => {
    expect(split(input)).toEqual(expected);
  });

  const groups = fc.uniqueArray(fc.constantFrom("new", "a", "b", "c"), { maxLength: 4 }).chain((hashes) =>
    fc.tuple(
      ...hashes.map((hash) =>
        fc
          .record({ replicas: fc.nat(12), kept: fc.nat(14), ready: fc.nat(12), createdAtMs: fc.nat(9) })
          .map((numbers) => ({
            hash,
            isForbidden: false,
            ...numbers,
            ready: Math.min(numbers.ready, numbers.replicas),
          })),
      ),
    ),
  );

  test("never ends a kept one, never lets an old one grow, never plans more than the maximum beyond what is kept", () => {
    fc.assert(
      fc.property(
        groups,
        fc.nat(20),
        fc.integer({ min: 1, max: 20 }),
        fc.boolean(),
        (all, total, maxReplicas, mayGrow) => {
          const targets = splitReplicas({ total, maxReplicas, hash: "new", mayGrow, groups: all });
          let kept = 0;
          let sum = 0;
          for (const each of all) {
            const keptHere = Math.min(each.kept, each.replicas);
            const target = targets.get(each.hash) ?? 0;
            kept += keptHere;
            expect(target).toBeGreaterThanOrEqual(keptHere);
            if (each.hash !== "new" || !mayGrow) expect(target).toBeLessThanOrEqual(each.replicas);
          }
          for (const target of targets.values()) sum += target;
          const before = all.reduce((total, each) => total + each.replicas, 0);
          expect(sum).toBeLessThanOrEqual(Math.max(maxReplicas, kept, before));
        },
      ),
    );
  });

  test("whatever it begins with, it comes to the new template alone once all are idle and get Ready", () => {
    fc.assert(
      fc.property(groups, fc.nat(12), fc.integer({ min: 12, max: 20 }), (begin, total, maxReplicas) => {
        let all: HashGroup[] = begin.map((each) => ({ ...each, kept: 0 }));
        for (let round = 0; round < 60; round += 1) {
          const targets = splitReplicas({ total, maxReplicas, hash: "new", mayGrow: true, groups: all });
          all = [...targets].map(([hash, replicas]) => group(hash, replicas));
        }
        expect(
          Object.fromEntries(all.filter(({ replicas }) => replicas > 0).map((each) => [each.hash, each.replicas])),
        ).toEqual(total === 0 ? {} : { new: total });
      }),
    );
  });
});
