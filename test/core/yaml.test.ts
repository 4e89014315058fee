import { describe, expect, test } from "vitest";
import { YamlError, yamlDocuments } from "../../src/core/yaml.ts";

describe("YAML", () => {
  test.each<[string, unknown[]]>([
    ["", []],
    ["---\n", [null]],
    ["a: 1\n---\nb: [2]\n", [{ a: 1 }, { b: [2] }]],
    ["a: &x 1\nb: *x\n", [{ a: 1, b: 1 }]],
  ])("reads %j", (text, documents) => {
    expect(yamlDocuments(text)).toEqual(documents);
  });

  test.each([
    ["an indent", "a: 1\n{ SECRET", /^line 2, column \d+: /],
    ["a quote", 'token: "SECRET\n', /^line \d, column \d+: missing char$/],
    ["an escape", 'token: "\\SECRET"', /^line 1, column \d+: bad dq escape$/],
    ["a stray scalar", "a: |SECRET\n  x", /^line 1, column \d+: /],
    ["a second colon", "password: SECRET: x", /^line 1, column \d+: block as implicit key$/],
    ["a stray end", "a: b\n}SECRET", /^line 2, column \d+: /],
    ["a later document", "a: 1\n---\nb: @SECRET", /^line 3, column 4: bad scalar start$/],
    ["an alias", "password: *SECRET", /^an alias has no anchor/],
  ])("reports the position of a broken document and quotes nothing: %s", (_, text, message) => {
    expect(() => yamlDocuments(text)).toThrow(YamlError);
    expect(() => yamlDocuments(text)).toThrow(message);
    expect(() => yamlDocuments(text)).not.toThrow("SECRET");
  });
});
