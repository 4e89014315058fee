import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Plugin, RolldownOptions } from "rolldown";
import { licences } from "./licences.ts";

const ROOT = join(import.meta.dirname, "..", "..");
/** The folder of all rooms. */
export const SOURCES = join(ROOT, "src");

/**
 * The entry point of the image, and the modules that the bench imports to run the same operator with its own timing and
 * to learn its addresses. The console is an entry so that it stays next to the page that it serves.
 */
const ENTRIES = ["main", "operator", "settings/config", "core/timing", "console/console"];

/**
 * What the image runs: dist/main.js with its packages, and separate files for what is loaded on demand. Names and lines
 * are kept, so that stack traces are readable; comments are removed.
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

/** Replaces undici in src by the parts that src imports. */
export function undiciInParts(): Plugin {
  return {
    name: "undici-in-parts",
    resolveId(source, importer) {
      // Packages keep their own undici imports.
      if (source !== "undici" || !importer?.startsWith(SOURCES)) return null;
      return join(import.meta.dirname, "undici.mjs");
    },
  };
}

/** The console's page, copied unchanged: a browser runs it. */
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

/** V8 keeps a script's text, at two bytes per character if any character needs two. */
export function oneByteText(): Plugin {
  const escaped = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return {
    name: "one-byte-text",
    // This must be the last step: removing comments rewrites all strings.
    generateBundle(_options, bundle) {
      for (const part of Object.values(bundle)) {
        if (part.type === "chunk") part.code = part.code.replaceAll(/[^\0-\xff]/g, escaped);
      }
    },
  };
}
