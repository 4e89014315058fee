import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Action, filled, holds, runJob, type Step } from "../../../testbed/rehearsal/workflow.ts";

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "berth-workflow-"));
});
afterEach(() => rm(dir, { recursive: true }));

const VALUES = new Map([
  ["github.actor", "someone"],
  ["vars.ID", "7"],
]);

/** An expression of a workflow. */
const value = (path: string) => `$\{{ ${path} }}`;

function run(steps: readonly Step[], actions: Readonly<Record<string, Action>> = {}) {
  const env = { PATH: process.env["PATH"] };
  return runJob({ permissions: {}, steps }, { workspace: dir, temp: dir, env, actions, values: VALUES });
}

describe("a job", () => {
  test("passes a step's outputs to later scripts and actions", async () => {
    const seen: (string | undefined)[] = [];
    const { values } = await run(
      [
        { id: "one", run: 'echo "name=a=b" >> "$GITHUB_OUTPUT"' },
        { id: "two", uses: "some/action@v1", with: { text: `<${value("steps.one.outputs.name")}>`, flag: true } },
        {
          run: 'printf %s "$TOLD" > told',
          env: { TOLD: `${value("steps.two.outputs.answer")}, ${value("github.actor")}` },
        },
      ],
      {
        "some/action": async (inputs) => {
          seen.push(inputs.need("text"), inputs.need("flag"), inputs.read("other"));
          return { answer: "yes" };
        },
      },
    );
    expect(seen).toEqual(["<a=b>", "true", undefined]);
    expect(await readFile(join(dir, "told"), "utf8")).toBe("yes, someone");
    expect(values.get("steps.two.outputs.answer")).toBe("yes");
  });

  test("skips a step whose condition doesn't hold", async () => {
    const steps = [
      { name: "with", if: "vars.ID != ''", run: "touch with" },
      { name: "without", if: "vars.OTHER != ''", run: "exit 1" },
    ];
    const { done } = await run(steps);
    expect(done.map(({ title, skipped }) => [title, skipped])).toEqual([
      ["with", false],
      ["without", true],
    ]);
  });

  test.each<[string, Step, RegExp]>([
    [
      "a failing command",
      { name: "it", run: "echo told; false; touch after" },
      /^step "it": bash ended with 1\ntold\n/,
    ],
    [
      "an output that no step has",
      { run: "true", env: { A: value("steps.x.outputs.y") } },
      /steps\.x\.outputs\.y.* no value/,
    ],
    ["an unknown action", { uses: "other/action@v1" }, /there is no replacement for other\/action/],
    ["an input that an action doesn't have", { uses: "some/action@v1", with: { text: "a", txt: "b" } }, /no input txt/],
    ["a missing input", { uses: "some/action@v1" }, /the input text is missing/],
    ["an output of several lines", { run: 'printf "a<<E\\n1\\nE\\n" >> "$GITHUB_OUTPUT"' }, /is not KEY=VALUE/],
  ])("ends at %s", async (_name, step, message) => {
    const actions: Readonly<Record<string, Action>> = {
      "some/action": async (inputs) => ({ text: inputs.need("text") }),
    };
    await expect(run([step, { run: "touch next" }], actions)).rejects.toThrow(message);
    for (const name of ["next", "after"]) await expect(readFile(join(dir, name))).rejects.toThrow("ENOENT");
  });
});

test("an expression that isn't known is an error, not an empty text", () => {
  expect(filled(`${value("github.actor")}-${value("vars.ID")}`, VALUES)).toBe("someone-7");
  expect(() => filled(value("vars.ID || 'x'"), VALUES)).toThrow(/has no value/);
  expect(holds("vars.ID == '7'", VALUES)).toBe(true);
  expect(holds("vars.ID != '7'", VALUES)).toBe(false);
  expect(() => holds("always()", VALUES)).toThrow(/not known/);
});
