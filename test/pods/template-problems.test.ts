import { expect, test } from "vitest";
import { pathText } from "../../src/api/problems.ts";
import { templateProblems } from "../../src/pods/template-problems.ts";

const problems = (spec: Record<string, unknown>) =>
  templateProblems({ spec }).map(({ path, words }) => `${pathText(path)}: ${words}`);

test.each([
  ["1", true],
  ["500m", true],
  ["1.5Gi", true],
  [".5", true],
  ["1e3", true],
  ["128974848000m", true],
  ["+1Ki", true],
  [2, true],
  ["2gb", false],
  ["2GB", false],
  ["512 Mi", false],
  ["", false],
  ["lots", false],
  [true, false],
])("%j is a quantity: %s", (memory, isOne) => {
  expect(problems({ containers: [{ resources: { requests: { memory } } }] })).toHaveLength(isOne ? 0 : 1);
});

test.each([
  ["memory", "512mb", '"512mb"; use for example 512Mi'],
  ["memory", "4 Gi", '"4 Gi"; use for example 4Gi'],
  ["memory", "lots", '"lots"; use for example 2Gi'],
  ["cpu", "2 cores", '"2 cores"; use for example 500m'],
])("suggests what %s: %s may mean", (name, amount, words) => {
  expect(problems({ containers: [{ resources: { limits: { [name]: amount } } }] })).toEqual([
    `spec.containers[0].resources.limits.${name}: invalid quantity ${words}`,
  ]);
});

test("finds quantities in every place of a Pod", () => {
  const bad = { "example.com/gpu": "x" };
  const found = problems({
    initContainers: [{ resources: { limits: bad } }],
    containers: [{ env: [{ valueFrom: { resourceFieldRef: { divisor: "x" } } }] }],
    resources: { requests: bad },
    overhead: { cpu: "x" },
    volumes: [
      { emptyDir: { sizeLimit: "1gb" } },
      { ephemeral: { volumeClaimTemplate: { spec: { resources: { requests: { storage: "1gb" } } } } } },
    ],
  });
  expect(found.map((problem) => problem.split(": ", 1)[0]).sort()).toEqual([
    "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor",
    'spec.initContainers[0].resources.limits["example.com/gpu"]',
    "spec.overhead.cpu",
    'spec.resources.requests["example.com/gpu"]',
    "spec.volumes[0].emptyDir.sizeLimit",
    "spec.volumes[1].ephemeral.volumeClaimTemplate.spec.resources.requests.storage",
  ]);
});

test("does not show a command line, which may contain a credential", () => {
  expect(problems({ containers: [{ command: "run --token=hunter2", args: [7] }] })).toEqual([
    "spec.containers[0].command: a string has the wrong type; write a list",
    "spec.containers[0].args[0]: 7 has the wrong type; write a string, in quotes",
  ]);
});
