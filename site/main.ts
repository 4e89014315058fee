/**
 * Builds the repository's pages as a site in site/dist, and checks every link, including anchors. With `--external`, it
 * also requests external links. Needs the packages of site/ (`npm ci --prefix site`).
 */
import { spawnSync } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { stage } from "./stage.ts";

const SITE = fileURLToPath(new URL(".", import.meta.url));

/** Runs a program of site/node_modules. Returns whether it succeeded. */
function succeeds(program: string, args: readonly string[]): boolean {
  const { status } = spawnSync(process.execPath, [`node_modules/${program}`, ...args], { cwd: SITE, stdio: "inherit" });
  return status === 0;
}

/** VitePress reports a page that it can't render, but continues without its text. */
async function pagesWithoutHeading(folder: string): Promise<string[]> {
  const found = (await readdir(folder, { recursive: true })).filter((name) => /(?<!^404)\.html$/.test(name));
  const texts = await Promise.all(found.map((name) => readFile(join(folder, name), "utf8")));
  return found.filter((_, index) => !texts[index]?.includes("<h1"));
}

async function main(args: readonly string[]): Promise<number> {
  await stage(`${SITE}.pages`, process.env["SITE_REPOSITORY"] ?? "");
  if (!succeeds("vitepress/bin/vitepress.js", ["build", "."])) return 1;
  const empty = await pagesWithoutHeading(`${SITE}dist`);
  for (const page of empty) console.error(`${page} has no heading: rendering it failed, see above`);
  if (empty.length > 0) return 1;
  const here = "(?:localhost|127\\.0\\.0\\.1)[:/]";
  const elsewhere = args.includes("--external") ? [] : ["--skip", `^https?://(?!${here})`];
  // The files are checked without a server that adds the site's path.
  const base = process.env["SITE_BASE"] || "/";
  const rewrites = ["--url-rewrite-search", `^(http://${here}\\d+)${base}`, "--url-rewrite-replace", "$1/"];
  // One page at a time: on a busy machine, the checker's own server closes connections that wait for other pages, and the
  // checker reports these pages as broken links.
  const checks = ["--recurse", "--check-fragments", "--concurrency", "1", "--verbosity", "error"];
  return succeeds("linkinator/build/src/cli.js", ["dist", ...checks, ...rewrites, ...elsewhere]) ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
