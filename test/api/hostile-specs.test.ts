import fc from "fast-check";
import { expect, test } from "vitest";
import { parseEnvironment, parseForRunning } from "../../src/api/environment.ts";
import { templateOf } from "../../src/reconcile/modes.ts";
import { hostileSpecs } from "../faults/hostile/spec-arbitrary.ts";
import { mutation, pathsOf, replaced } from "../support/odd-values.ts";
import { podTemplate, problems, sessionsSpec, stored, workersSpec } from "./environments.ts";

const BASES = [stored(sessionsSpec()), stored(workersSpec())];

/** What is said of an object that was stored under another schema is for people: where, what, and the mend. */
function expectProblems(raw: unknown): void {
  const parsed = parseEnvironment(raw);
  expect(() => parseForRunning(raw)).not.toThrow();
  if (parsed.ok) {
    // What is read can be rendered: a template that throws would be tried again for ever, and no condition would say so.
    expect(templateOf(parsed.environment).render("berth-research-template").metadata.name).toBeDefined();
    return;
  }
  expect(parsed.problems.length).toBeGreaterThan(0);
  for (const problem of parsed.problems) expect(problem.trim().length).toBeGreaterThan(10);
}

test("a spec of any shape is read, or refused in words", () => {
  fc.assert(
    fc.property(hostileSpecs(BASES.map(({ spec }) => spec)), fc.nat(), ({ spec }, which) => {
      expectProblems({ ...BASES[which % BASES.length], spec });
    }),
    { numRuns: 500 },
  );
});

test("an object with anything in the place of one part is read, or refused in words", () => {
  const base = BASES[0];
  fc.assert(
    fc.property(mutation(pathsOf(base)), ({ path, by }) => expectProblems(replaced(base, path, by))),
    { numRuns: 1_000 },
  );
});

test.each(["sessions", "workers"])("a template of %s whose unknown parts have no end is refused in words", (mode) => {
  const deep = (levels: number) => JSON.parse(`${'{"a":'.repeat(levels)}1${"}".repeat(levels)}`);
  const withDepth = (levels: number) => {
    const template = podTemplate({ unknown: deep(levels) });
    return stored(mode === "sessions" ? sessionsSpec({ template }) : workersSpec({ template }));
  };
  expect(problems(withDepth(90))).toEqual([]);
  expect(problems(withDepth(9_000))).toEqual([
    `spec.${mode}.template: the template is nested deeper than 100 levels, which no field of a Pod is: remove what it is that goes so deep`,
  ]);
});
