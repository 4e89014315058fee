import { describe, expect, test } from "vitest";
import { CHECKS, type CheckResult, resultsOf } from "../../src/doctor/checks.ts";
import { problemsOf, reportOf } from "../../src/doctor/report.ts";
import { reportText } from "../../src/doctor/report-text.ts";
import { paintFor } from "../../src/observe/terminal.ts";

const environment = (name: string) => `environment agents/${name}`;
const key = (name: string) =>
  resultsOf("runtime-class", environment(name)).fail("Secret key is missing", "Create it.", "KeyMissing");
const down = resultsOf("operator", "deployment berth-system/berth-operator").fail(
  "0 of 2 replicas are available",
  "See its log.",
);

describe("the problems of a fleet", () => {
  const warning = (name: string) => resultsOf("cluster-dns", `namespace ${name}`).warn("no level", `Label ${name}.`);

  test("are listed once each, with everything that has them, and causes come first", () => {
    const results = [key("a"), warning("x"), key("b"), warning("y"), down, resultsOf("crd", "cluster").pass("fine")];
    expect(problemsOf(results)).toEqual([
      { ...withoutAbout(down), about: [down.about] },
      { ...withoutAbout(key("a")), about: [environment("a"), environment("b")] },
      { ...withoutAbout(warning("x")), about: ["namespace x", "namespace y"] },
    ]);
  });

  test("are ordered as the checks are, failures before warnings", () => {
    const all = Object.keys(CHECKS) as (keyof typeof CHECKS)[];
    const results = all.toReversed().map((check) => resultsOf(check, "cluster").fail(`${check} failed`, "Fix it."));
    expect(problemsOf(results).map(({ check }) => check)).toEqual(all);
    expect(all.indexOf("operator")).toBeLessThan(all.indexOf("conditions"));
  });
});

describe("the text", () => {
  const well = resultsOf("conditions", environment("a")).pass("it fits the schema");
  const report = reportOf("1.2.3", "https://10.0.0.1", [well, key("a"), key("b"), down]);
  const paint = paintFor({}, undefined);

  test("begins with the problems, each once, and then lists what is well", () => {
    expect(reportText(report, paint, { onlyProblems: false }).split("\n")).toEqual([
      "FAIL operator         0 of 2 replicas are available",
      "                      deployment berth-system/berth-operator",
      "                      -> See its log.",
      "FAIL runtime-class    Secret key is missing",
      "                      2 objects: environment agents/a, environment agents/b",
      "                      -> Create it.",
      "",
      "environment agents/a",
      "  ok   conditions       it fits the schema",
      "",
      "Berth 1.2.3 at https://10.0.0.1: 3 failed, 0 warned, 1 ok, 0 not checked",
      "",
    ]);
  });

  test("of many objects names some", () => {
    const many = Array.from({ length: 20 }, (_, index) => key(`e${index}`));
    const text = reportText(reportOf("1", "https://10.0.0.1", many), paint, { onlyProblems: true });
    expect(text).toContain(
      "20 objects: environment agents/e0, environment agents/e1, environment agents/e2 and 17 more\n",
    );
  });

  test("with --problems has nothing else", () => {
    const text = reportText(report, paint, { onlyProblems: true });
    expect(text).not.toContain("it fits the schema");
    expect(text).toContain("FAIL runtime-class");
    const clean = reportText(reportOf("1", "https://10.0.0.1", [well]), paint, { onlyProblems: true });
    expect(clean).toBe("Berth 1 at https://10.0.0.1: 0 failed, 0 warned, 1 ok, 0 not checked\n");
  });
});

function withoutAbout({ about: _about, ...rest }: CheckResult) {
  return rest;
}
