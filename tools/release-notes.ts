/**
 * `node tools/release-notes.ts --source URL --output FILE`: writes the changelog's section about package.json's version.
 * Its links lead to the repository at that version, because a release's page has no files next to it.
 */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/**
 * The section of a version, without its heading.
 * @param source the repository's address
 * @throws {Error} the changelog has no section of that version, or an empty one
 */
export function releaseNotes(changelog: string, version: string, source: string): string {
  const section = changelog.split(/^## /m).find((part) => part.split("\n", 1)[0] === version);
  const text = section?.slice(version.length).trim();
  if (!text) throw new Error(`CHANGELOG.md has no section "## ${version}": use the version as the heading`);
  return `${text.replaceAll(/\]\((?![a-z]+:|#)/g, `](${source}/blob/v${version}/`)}\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({ options: { source: { type: "string" }, output: { type: "string" } } });
  if (!values.source || !values.output)
    throw new Error("--source and --output are needed: name the repository and a file");
  const { version } = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8")) as { version: string };
  const changelog = await readFile(join(ROOT, "CHANGELOG.md"), "utf8");
  await writeFile(values.output, releaseNotes(changelog, version, values.source));
}
