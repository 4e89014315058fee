import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { REMOVED_NAMES } from "../../src/api/removed-names.ts";

const ROOT = new URL("../../", import.meta.url);
const read = (path: string) => readFile(new URL(path, ROOT), "utf8");

/** A part of the schema of the chart's values. */
interface Schema {
  readonly const?: unknown;
  readonly properties?: Readonly<Record<string, Schema>>;
}

/** The rows of the table in CHANGELOG.md: kind, name, text. */
const rows = [...(await read("CHANGELOG.md")).matchAll(/^\| (\w[\w ]*) \| `([^`]+)` \| (.+) \|$/gm)].map(
  ([, kind = "", name = "", text = ""]) => ({ kind, name, text }),
);

test("CHANGELOG.md has a row with the same text for each removed field, flag and command", () => {
  const listed = rows.filter(({ kind }) => ["field", "flag", "command"].includes(kind));
  expect(Object.fromEntries(listed.map(({ name, text }) => [name, text]))).toEqual(REMOVED_NAMES);
});

test("the chart's schema refuses removed values with the text in CHANGELOG.md", async () => {
  const schema: Schema = JSON.parse(await read("charts/berth/values.schema.json"));
  const listed = rows.filter(({ kind }) => kind === "chart value");
  const refused = (part: Schema, path: string): [string, unknown][] =>
    "const" in part
      ? [[path, part.const]]
      : Object.entries(part.properties ?? {}).flatMap(([key, below]) =>
          refused(below, path === "" ? key : `${path}.${key}`),
        );
  expect(Object.fromEntries(refused(schema, ""))).toEqual(
    Object.fromEntries(listed.map(({ name, text }) => [name, text])),
  );
});
