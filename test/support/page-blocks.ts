/** The YAML examples of the pages. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";
import { pagesOf } from "../../site/pages.ts";
import type { Json } from "../api/environments.ts";
import { ROOT } from "../project/lint-gate.ts";

/** One document of a page's YAML examples, or of a file for users to copy. */
export interface Example {
  /** The page and the line of the block, or the file. */
  readonly where: string;
  readonly value: Json;
}

/** Folders whose files the pages tell users to apply. */
const FOLDERS = ["examples/environments", "examples/cluster"];

/** Every YAML document in the fences of all pages and in the files that pages tell users to apply. */
export async function yamlExamples(): Promise<Example[]> {
  const pages = (await pagesOf()).map(async (page) => blocksOf(page, await readFile(join(ROOT, page), "utf8")));
  const folders = FOLDERS.map(async (folder) => {
    const names = (await readdir(join(ROOT, folder))).filter((name) => name.endsWith(".yaml"));
    return Promise.all(
      names.map(async (name) => documents(`${folder}/${name}`, await readFile(join(ROOT, folder, name), "utf8"))),
    );
  });
  return [...(await Promise.all(pages)), ...(await Promise.all(folders)).flat()].flat();
}

function blocksOf(page: string, text: string): Example[] {
  return [...text.matchAll(/^```ya?ml\n([\s\S]*?)^```/gm)].flatMap(({ 1: block = "", index }) =>
    documents(`${page}:${text.slice(0, index).split("\n").length}`, block),
  );
}

function documents(where: string, text: string): Example[] {
  return parseAllDocuments(text).map((document) => {
    if (document.errors.length > 0) throw new Error(`${where}: ${document.errors[0]?.message}`);
    return { where, value: document.toJS() as Json };
  });
}
