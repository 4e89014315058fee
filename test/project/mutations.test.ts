import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { CODE } from "../../model/rules.ts";
import { MUTATIONS } from "../../tools/mutate/list.ts";
import { problems } from "../../tools/mutate/main.ts";
import { breaksModelRule, type Mutation, mutated } from "../../tools/mutate/mutation.ts";
import type { Result } from "../../tools/mutate/worker.ts";
import { ROOT } from "./lint-gate.ts";

/** Settings of a run of the model, which are no rules of the protocol. */
const SETTING = new Set([
  ...["operators", "items", "pods", "acknowledgements", "lease", "oneSession", "deletion", "userStops", "strict"],
  ...["secondAck", "lapsed", "lapsedStopping", "unbeaten", "stamp", "beatOnQueued", "lateAck", "worker", "sigterm"],
  ...["onPodFailure", "parking", "lateLine", "secretDeletion", "turns", "reruns", "lateRequests"],
  ...["volumes", "volumeDeletion", "newVolumes", "latePods", "volumeLoss", "isTrace"],
]);

describe("the list of mutations", () => {
  test("applies to the current code, and names existing test files", () => {
    const wrong = MUTATIONS.flatMap((each) => {
      try {
        mutated(readFileSync(join(ROOT, each.file), "utf8"), each);
      } catch (error) {
        return [String(error)];
      }
      return each.tests.filter((test) => !existsSync(join(ROOT, test)));
    });
    expect(wrong).toEqual([]);
  });

  test("has unique names for each file, and changes something", () => {
    const names = MUTATIONS.map(({ file, name }) => `${file}: ${name}`);
    expect(names.filter((name, at) => names.indexOf(name) !== at)).toEqual([]);
    expect(MUTATIONS.filter(({ find, replace }) => find === replace)).toEqual([]);
    expect(MUTATIONS.filter(({ tests }) => tests.length === 0)).toEqual([]);
  });

  test("breaks every rule of the protocol's model", () => {
    const broken = new Set(MUTATIONS.map(({ guard }) => String(guard)));
    const rules = Object.keys(CODE).filter((name) => !SETTING.has(name));
    expect(rules.filter((rule) => !broken.has(rule))).toEqual([]);
  });
});

describe("a run", () => {
  const of = (guard: Mutation["guard"]): Mutation => ({
    name: guard,
    file: "",
    guard,
    find: "",
    replace: "",
    tests: [],
  });
  const found = (...results: [Mutation["guard"], Result["is"]][]) =>
    problems(
      results.map(([guard, is]) => ({ mutation: of(guard), result: { is, by: "", why: "it failed" } as Result })),
    );
  const killed = Array.from({ length: 19 }, () => ["bound", "killed"] as [Mutation["guard"], Result["is"]]);

  test("fails when a mutation of a protocol rule survives", () => {
    expect(breaksModelRule(of("versions"))).toBe(true);
    expect(found(...killed, ["versions", "survived"])).toEqual([expect.stringContaining("versions")]);
  });

  test("lets a twentieth of the others survive, and no more", () => {
    expect(found(...killed, ["bound", "survived"])).toEqual([]);
    expect(found(...killed.slice(1), ["bound", "survived"])).toHaveLength(1);
  });

  test("fails when a mutation no longer applies", () => {
    expect(found(...killed, ["bound", "invalid"])).toEqual(["bound: it failed"]);
  });

  test("refuses a text that does not occur exactly once", () => {
    const mutation = { ...of("bound"), find: "a", replace: "b" };
    expect(mutated("xay", mutation)).toBe("xby");
    expect(() => mutated("aa", mutation)).toThrow("occurs 2 times");
    expect(() => mutated("x", mutation)).toThrow("occurs 0 times");
  });
});
