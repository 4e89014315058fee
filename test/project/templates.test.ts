import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { ROOT } from "./lint-gate.ts";

// A forge ignores a form that breaks these rules of its documentation, and says so only to people who look for it.

interface Field {
  readonly type: string;
  readonly id?: string;
  readonly attributes: Readonly<Record<string, unknown>>;
  readonly validations?: { readonly required?: boolean };
}

const DIR = join(ROOT, ".github/ISSUE_TEMPLATE");
const names = (await readdir(DIR)).filter((name) => name !== "config.yml");
const forms = await Promise.all(
  names.map(async (name) => ({ name, form: parse(await readFile(join(DIR, name), "utf8")) })),
);

describe.each(forms)("the issue form $name", ({ form }) => {
  const fields: readonly Field[] = form.body;

  test("has a name and a description, and labels nothing with a label that may not exist", () => {
    expect(Object.keys(form).sort()).toEqual(["body", "description", "name"]);
  });

  test("has only fields that the forge knows, each with its own id", () => {
    const asked = fields.filter(({ type }) => type !== "markdown");
    expect(new Set(asked.map(({ id }) => id)).size).toBe(asked.length);
    for (const { id, type, attributes } of asked) {
      expect(["input", "textarea"]).toContain(type);
      expect(id).toMatch(/^[\w-]+$/);
      expect(attributes["label"]).toMatch(/\S/);
      expect(["label", "description", "render"]).toEqual(expect.arrayContaining(Object.keys(attributes)));
    }
    for (const { attributes } of fields.filter(({ type }) => type === "markdown"))
      expect(Object.keys(attributes)).toEqual(["value"]);
    expect(asked.some(({ validations }) => validations?.required)).toBe(true);
  });
});

test("templates name commands and files that exist", async () => {
  const { scripts } = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8"));
  const files = [...names.map((name) => join(DIR, name)), join(ROOT, ".github/PULL_REQUEST_TEMPLATE.md")];
  const text = (await Promise.all(files.map((file) => readFile(file, "utf8")))).join("\n");
  const commands = [...text.matchAll(/npm run ([\w:]+)/g)].map(([, name = ""]) => name);
  expect(commands).toEqual(["generate", "lint"]);
  for (const name of commands) expect(scripts).toHaveProperty(name);
  const named = [...text.matchAll(/\b[A-Z]+\.md\b/g)].map(([file]) => file);
  expect(new Set(named)).toEqual(new Set(["SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"]));
  for (const file of named) await expect(readFile(join(ROOT, file), "utf8")).resolves.toMatch(/^# /);
});
