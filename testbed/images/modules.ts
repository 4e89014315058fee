import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { TarEntry } from "./tar.ts";
import { directory, file } from "./tree.ts";

/** The parts of a program. */
export interface Modules {
  /** The contents of its own files, by path from the root of the checkout. */
  readonly files: ReadonlyMap<string, Buffer>;
  /** The packages that these files import. */
  readonly packages: readonly string[];
}

/** Matches `import ... from "x"` and `export ... from "x"`, even over several lines. */
const IMPORT = /^(?:import|export)\b(?:[^"';]*?\bfrom\s+)?\s*"([^"]+)"/gm;
/** Node removes type imports when it strips types, so their targets don't need to exist. */
const TYPE_IMPORT = /^(?:import|export)\s+type\b[^;]*;/gm;

/** Finds the files and packages that a program imports, directly or indirectly. Only follows static imports. */
export async function importedModules(root: string, entry: string): Promise<Modules> {
  const files = new Map<string, Buffer>();
  const packages = new Set<string>();
  const visit = async (path: string): Promise<void> => {
    if (files.has(path)) return;
    const content = await readFile(join(root, path));
    files.set(path, content);
    for (const [, specifier = ""] of content.toString().replace(TYPE_IMPORT, "").matchAll(IMPORT)) {
      if (specifier.startsWith(".")) await visit(join(dirname(path), specifier));
      else if (!specifier.startsWith("node:")) packages.add(packageName(specifier));
    }
  };
  await visit(entry);
  return { files, packages: [...packages].sort() };
}

/** Returns tar members for these files below `at`. */
export function moduleEntries(modules: Modules, at: string): TarEntry[] {
  const folders = new Set<string>();
  for (const path of modules.files.keys()) {
    for (let folder = dirname(path); folder !== "."; folder = dirname(folder)) folders.add(folder);
  }
  return [
    ...[...folders].map((path) => directory(join(at, path))),
    ...[...modules.files].map(([path, content]) => file(join(at, path), content)),
  ];
}

function packageName(specifier: string): string {
  return specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/");
}
