/**
 * Replaces `gh release create` in a rehearsal: it writes the release into the folder REHEARSAL_RELEASE, and refuses
 * what gh refuses.
 */
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { env } from "node:process";
import { parseArgs } from "node:util";
import type { Published } from "./rehearsal.ts";

const { values, positionals } = parseArgs({
  options: {
    "verify-tag": { type: "boolean", default: false },
    title: { type: "string", default: "" },
    "notes-file": { type: "string", default: "" },
    prerelease: { type: "boolean", default: false },
  },
  allowPositionals: true,
});
const [group, command, tag = "", ...files] = positionals;
if (group !== "release" || command !== "create") throw new Error(`gh ${group} ${command} is not known here: add it`);
if (!env["GH_TOKEN"]) throw new Error("gh: set the GH_TOKEN environment variable");

const folder = env["REHEARSAL_RELEASE"] ?? "";
await mkdir(join(folder, "files"), { recursive: true });
for (const file of files) await copyFile(file, join(folder, "files", basename(file)));
const published: Published = {
  tag,
  title: values.title,
  verifyTag: values["verify-tag"],
  prerelease: values.prerelease,
  notes: await readFile(values["notes-file"], "utf8"),
  files: files.map((file) => basename(file)),
};
await writeFile(join(folder, "release.json"), JSON.stringify(published));
