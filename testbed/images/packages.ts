import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { MissingToolError } from "../cluster/missing.ts";
import type { TarEntry } from "./tar.ts";
import { directory, loaded, treeEntries } from "./tree.ts";

interface LockedPackage {
  readonly version?: string;
  readonly integrity?: string;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly peerDependencies?: Readonly<Record<string, string>>;
}
type LockedPackages = Readonly<Record<string, LockedPackage>>;

/** Returns the lock file paths of packages and of all their dependencies, as Node would find them. */
export function lockedClosure(locked: LockedPackages, names: readonly string[]): string[] {
  const found = new Set<string>();
  const visit = (from: string, name: string, isOptional: boolean): void => {
    const path = lookUp(locked, from, name);
    if (path === undefined && isOptional) return;
    if (path === undefined)
      throw new Error(`the lock file does not contain ${name}, which ${from || "this project"} needs`);
    if (found.has(path)) return;
    found.add(path);
    for (const needed of Object.keys(locked[path]?.dependencies ?? {})) visit(path, needed, false);
    for (const needed of Object.keys(locked[path]?.peerDependencies ?? {})) visit(path, needed, true);
  };
  for (const name of names) visit("", name, false);
  return [...found].sort();
}

/** Looks in the package's own node_modules, then in those of the folders around it. */
function lookUp(locked: LockedPackages, from: string, name: string): string | undefined {
  for (let at = from; ; at = dirname(at)) {
    if (at === ".") at = "";
    const path = join(at, "node_modules", name);
    if (path in locked) return path;
    if (at === "") return undefined;
  }
}

/**
 * Returns the packages of a checkout and all their dependencies as tar members below `at`.
 * Throws MissingToolError if the installed packages don't match the lock file.
 */
export async function packageEntries(root: string, names: readonly string[], at: string): Promise<TarEntry[]> {
  const locked = await lockedPackages(join(root, "package-lock.json"));
  const installed = await lockedPackages(join(root, "node_modules", ".package-lock.json")).catch(() => ({}));
  const entries: TarEntry[] = [directory(join(at, "node_modules"))];
  const folders = new Set<string>();
  for (const path of lockedClosure(locked, names)) {
    if ((installed as LockedPackages)[path]?.integrity !== locked[path]?.integrity) {
      throw new MissingToolError(`${path} differs from the lock file: run npm ci`);
    }
    const scope = dirname(path);
    if (scope !== "node_modules" && !folders.has(scope)) entries.push(directory(join(at, scope)));
    folders.add(scope);
    entries.push(directory(join(at, path)));
    const without = (inner: string) => inner === "node_modules";
    entries.push(...(await treeEntries(join(root, path), { at: join(at, path), without })));
  }
  return await loaded(entries);
}

async function lockedPackages(path: string): Promise<LockedPackages> {
  return (JSON.parse(await readFile(path, "utf8")) as { packages: LockedPackages }).packages;
}
