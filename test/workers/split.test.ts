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
    ["gives the first Deployment all workers", {}, { new: 5 }],
    ["wants no worker", { total: 0, groups: [group("new", 3)] }, { new: 0 }],
    ["creates no worker of a template that is not accepted", { mayGrow: false }, { new: 0 }],
    [
      "only shrinks the Deployment of a template that is no longer accepted",
      { mayGrow: false, groups: [group("new", 3)] },
      { new: 3 },
    ],
    ["adds a new template beside the old one, a quarter at a time", { groups: [group("old", 5)] }, { old: 5, new: 2 }],
    [
      "removes old workers as new ones become Ready",
      { groups: [group("old", 5), group("new", 2)] },
      { old: 3, new: 4 },
    ],
    [
      "keeps old workers while new ones do not become Ready",
      { groups: [group("old", 5), group("new", 2, { ready: 0 })] },
      { old: 5, new: 2 },
    ],
    [
      "replaces a quarter at a time without spare room",
      { maxReplicas: 5, groups: [group("old", 5)] },
      { old: 3, new: 2 },
    ],
    [
      "makes new workers wait if busy ones use all the room",
      { maxReplicas: 5, groups: [group("old", 5, { kept: 5 })] },
      { old: 5, new: 0 },
    ],
    [
      "keeps and counts a busy old worker",
      { groups: [group("old", 3, { kept: 2 }), group("new", 3)] },
      { old: 2, new: 3 },
    ],
    [
      "keeps starting new workers if an old one that seemed idle may be busy again",
      { total: 2, groups: [group("old", 1, { kept: 1 }), group("new", 2, { ready: 1 })] },
      { old: 1, new: 2 },
    ],
    [
      "keeps no more of them than a quarter",
      { total: 2, groups: [group("old", 1, { kept: 1 }), group("new", 4, { ready: 1 })] },
      { old: 1, new: 2 },
    ],
    [
      "keeps none of them without room",
      { total: 2, maxReplicas: 2, groups: [group("old", 1, { kept: 1 }), group("new", 2, { ready: 1 })] },
      { old: 1, new: 1 },
    ],
    ["replaces a single worker", { total: 1, maxReplicas: 1, groups: [group("old", 1)] }, { old: 0, new: 1 }],
    [
      "keeps idle workers of the newest old template longest",
      {
        total: 4,
        maxReplicas: 6,
        groups: [group("older", 2, { createdAtMs: 1 }), group("old", 2, { createdAtMs: 2 }), group("new", 1)],
      },
      { older: 1, old: 2, new: 2 },
    ],
    [
      "gives a refused template no room of workers that serve",
      { mayGrow: false, groups: [group("old", 5)] },
      { old: 5, new: 0 },
    ],
    [
      "removes idle old workers that the policy forbids at once, and keeps busy ones",
      { groups: [group("old", 5, { kept: 2, isForbidden: true })] },
      { old: 2, new: 3 },
    ],
    [
      "does the same if the new template is not allowed either",
      { mayGrow: false, groups: [group("old", 5, { kept: 2, isForbidden: true }), group("older", 2)] },
      { old: 2, older: 2, new: 0 },
    ],
    [
      "removes idle old workers first if fewer are wanted",
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

  test("never ends a kept worker, never grows an old Deployment, and never exceeds the maximum beyond what is kept", () => {
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

  test("reaches the new template alone from any start once all workers are idle and become Ready", () => {
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
