import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { releaseNotes } from "../../tools/release-notes.ts";
import { ROOT } from "./lint-gate.ts";

const SOURCE = "https://forge.example/owner/berth";
const CHANGELOG = `# Changelog

## Unreleased

- Something else.

## 1.2.0

- Show [parking](docs/parking.md#key) and a [site](https://x.example/y).

### Fixed

- A [heading](#fixed).

## 1.2.0-rc.1

- A candidate.
`;

test("a release's notes are the changelog's section about its version, with links that work on another page", () => {
  expect(releaseNotes(CHANGELOG, "1.2.0", SOURCE)).toBe(
    `- Show [parking](${SOURCE}/blob/v1.2.0/docs/parking.md#key) and a [site](https://x.example/y).\n\n` +
      "### Fixed\n\n- A [heading](#fixed).\n",
  );
  expect(releaseNotes(CHANGELOG, "1.2.0-rc.1", SOURCE)).toBe("- A candidate.\n");
});

test("a version without a section, or with an empty one, is not released", () => {
  for (const changelog of [CHANGELOG, `${CHANGELOG}\n## 1.3.0\n\n## 1.1.0\n\n- Old.\n`])
    expect(() => releaseNotes(changelog, "1.3.0", SOURCE)).toThrow(/no section "## 1\.3\.0"/);
});

test("the project's changelog has one heading per version, as a release looks for it", async () => {
  const headings = [...(await readFile(join(ROOT, "CHANGELOG.md"), "utf8")).matchAll(/^## (.*)$/gm)];
  const names = headings.map(([, name = ""]) => name);
  expect(new Set(names).size).toBe(names.length);
  for (const name of names) expect(name).toMatch(/^(Unreleased|\d+\.\d+\.\d+(-[\w.]+)?)$/);
});
