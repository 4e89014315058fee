import fc from "fast-check";
import { expect, test } from "vitest";
import { parseEnvironment, parseForRunning } from "../../src/api/environment.ts";
import { templateOf } from "../../src/reconcile/modes.ts";
import { hostileSpecs } from "../faults/hostile/spec-arbitrary.ts";
import { mutation, pathsOf, replaced } from "../support/malformed-values.ts";
import { podTemplate, problems, sessionsSpec, stored, workersSpec } from "./environments.ts";

const BASES = [stored(sessionsSpec()), stored(workersSpec())];

/** Problems of an object that was stored under another schema are for people: path, problem and fix. */
function expectProblems(raw: unknown): void {
  const parsed = parseEnvironment(raw);
  expect(() => parseForRunning(raw)).not.toThrow();
  if (parsed.ok) {
    // A parsed object must render: a template that throws would be retried forever, without a condition that reports
    // it.
    expect(templateOf(parsed.environment).render("berth-research-template").metadata.name).toBeDefined();
    return;
  }
  expect(parsed.problems.length).toBeGreaterThan(0);
  for (const problem of parsed.problems) expect(problem.trim().length).toBeGreaterThan(10);
}

test("parses a spec of any shape, or reports its problems", () => {
  fc.assert(
    fc.property(hostileSpecs(BASES.map(({ spec }) => spec)), fc.nat(), ({ spec }, which) => {
      expectProblems({ ...BASES[which % BASES.length], spec });
    }),
    { numRuns: 500 },
  );
});

test("parses an object with any value in one place, or reports its problems", () => {
  const base = BASES[0];
  fc.assert(
    fc.property(mutation(pathsOf(base)), ({ path, by }) => expectProblems(replaced(base, path, by))),
    { numRuns: 1_000 },
  );
});

test.each(["sessions", "workers"])("reports unknown fields of a %s template that are nested too deep", (mode) => {
  const deep = (levels: number) => JSON.parse(`${'{"a":'.repeat(levels)}1${"}".repeat(levels)}`);
  const withDepth = (levels: number) => {
    const template = podTemplate({ unknown: deep(levels) });
    return stored(mode === "sessions" ? sessionsSpec({ template }) : workersSpec({ template }));
  };
  expect(problems(withDepth(90))).toEqual([]);
  expect(problems(withDepth(9_000))).toEqual([
    `spec.${mode}.template: the template has more than 100 levels, more than any Pod; remove the field that is nested so deeply`,
  ]);
});
