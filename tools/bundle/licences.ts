import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Plugin } from "rolldown";

/** In the bundle's folder. */
export const LICENCES_FILE = "LICENCES.txt";

const TEXT = /^(licen[cs]e|notice|copying)/i;
const RULE = `\n${"-".repeat(80)}\n`;

/** Writes the full license texts of the bundled packages next to the bundle, as the licenses require. */
export function licences(): Plugin {
  return {
    name: "licences",
    async generateBundle(_options, bundle) {
      const folders = new Set<string>();
      for (const part of Object.values(bundle)) {
        for (const id of part.type === "chunk" ? part.moduleIds : []) {
          const folder = packageFolder(id);
          if (folder !== undefined) folders.add(folder);
        }
      }
      const texts = await Promise.all([...folders].sort().map(textOf));
      this.emitFile({ type: "asset", fileName: LICENCES_FILE, source: texts.join(RULE) });
    },
  };
}

/** `/x/node_modules/@a/b` for `/x/node_modules/@a/b/lib/c.js`; undefined for a file outside packages. */
export function packageFolder(path: string): string | undefined {
  return /^.*[\\/]node_modules[\\/](@[^\\/]+[\\/])?[^\\/]+/.exec(path.replace(/^\0/, ""))?.[0];
}

/** @throws {Error} a package has no license text, so it must not be shipped */
async function textOf(folder: string): Promise<string> {
  const { name, version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const files = (await readdir(folder)).filter((file) => TEXT.test(file)).sort();
  const texts = await Promise.all(files.map(async (file) => (await readFile(join(folder, file), "utf8")).trim()));
  return [`${name} ${version} (${license})`, ...texts].join("\n\n");
}
