import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Plugin, RolldownOptions } from "rolldown";
import { licences } from "./licences.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const SOURCES = join(ROOT, "src");

/**
 * What is run, and what the bench starts the same operator by, to give it timers of its own and to learn its addresses. The
 * console has its place beside the page that it serves.
 */
const ENTRIES = ["main", "operator", "settings/config", "core/timing", "console/console"];

/**
 * What the image runs: dist/main.js with its packages in it, and in files of their own what is loaded only when needed.
 * Names and lines stay, so that a stack trace can be read; comments go.
 */
const options: RolldownOptions = {
  cwd: ROOT,
  input: Object.fromEntries(ENTRIES.map((name) => [name, join(SOURCES, `${name}.ts`)])),
  platform: "node",
  output: {
    dir: join(ROOT, "dist"),
    format: "esm",
    entryFileNames: "[name].js",
    cleanDir: true,
    comments: false,
    keepNames: true,
  },
  plugins: [undiciInParts(), oneByteText(), page(), licences()],
};

export default options;

function undiciInParts(): Plugin {
  return {
    name: "undici-in-parts",
    resolveId(source, importer) {
      // Not for packages, which have uses of their own.
      if (source !== "undici" || !importer?.startsWith(SOURCES)) return null;
      return join(import.meta.dirname, "undici.mjs");
    },
  };
}

/** The page of the console, as it is: a browser runs it. */
function page(): Plugin {
  return {
    name: "page",
    async generateBundle() {
      const folder = join(SOURCES, "page");
      const files = (await readdir(folder)).filter((name) => name !== "tsconfig.json");
      for (const name of files) {
        this.emitFile({ type: "asset", fileName: `page/${name}`, source: await readFile(join(folder, name)) });
      }
    },
  };
}

/** V8 keeps the text of a script, with two bytes for every character where a single one needs two. */
function oneByteText(): Plugin {
  const escaped = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return {
    name: "one-byte-text",
    // Not earlier: taking the comments out writes all strings anew.
    generateBundle(_options, bundle) {
      for (const part of Object.values(bundle)) {
        if (part.type === "chunk") part.code = part.code.replaceAll(/[^\0-\xff]/g, escaped);
      }
    },
  };
}
