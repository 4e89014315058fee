import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { dirname, join, normalize, sep } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { ROOT } from "./lint-gate.ts";

/** `main.ts` and `operator.ts`: every other file of src is in a room. */
const MOST_LOOSE_FILES = 2;

/** A rule that is spread over many tiny files takes a reader as many lookups. */
const SMALL_FILE_LINES = 30;
const MOST_SMALL_FILES = 12;

/** Folders whose files must not import each other in a circle. */
const WITHOUT_CIRCLES = ["src", "model", "bench", "simulator", "testbed", "demo"];

interface SourceFile {
  /** From the root of the repository, with slashes. */
  readonly path: string;
  readonly lines: number;
  /** Paths of the imported files, type imports included. */
  readonly imports: readonly string[];
}

async function sourceFiles(folder: string): Promise<SourceFile[]> {
  const entries = await readdir(join(ROOT, folder), { recursive: true, withFileTypes: true });
  const paths = entries
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts") && !entry.parentPath.includes("node_modules"))
    .map((entry) => join(entry.parentPath, entry.name).slice(ROOT.length).split(sep).join("/"));
  return Promise.all(
    paths.sort().map(async (path) => {
      const text = await readFile(join(ROOT, path), "utf8");
      return { path, lines: text.split("\n").length - 1, imports: importsOf(path, text) };
    }),
  );
}

/** Static and dynamic imports, `export ... from`, and types: `import type` and `import("./x.ts").X`. */
function importsOf(path: string, text: string): string[] {
  const found = text.matchAll(/\b(?:from|import)\s*\(?\s*"(\.{1,2}\/[^"]+)"/g);
  return [...found].map(([, source = ""]) =>
    normalize(join(dirname(path), source))
      .split(sep)
      .join("/"),
  );
}

/**
 * One circle per file that closes one.
 * @returns each circle as its paths in the order of the imports, with the first one repeated at the end
 */
function circlesIn(files: readonly SourceFile[]): string[][] {
  const imports = new Map(files.map((file) => [file.path, file.imports]));
  const circles: string[][] = [];
  const finished = new Set<string>();
  const visit = (path: string, trail: readonly string[]): void => {
    const at = trail.indexOf(path);
    if (at >= 0) circles.push([...trail.slice(at), path]);
    if (at >= 0 || finished.has(path)) return;
    for (const next of imports.get(path) ?? []) visit(next, [...trail, path]);
    finished.add(path);
  };
  for (const { path } of files) visit(path, []);
  return circles;
}

describe("src", () => {
  /** Without the console's page, which runs in a browser. */
  let files: SourceFile[];
  /** For the message of a failure. */
  let total: string;
  const list = (some: readonly SourceFile[]) => some.map(({ path, lines }) => `${path} (${lines} lines)`).join(", ");

  beforeAll(async () => {
    files = (await sourceFiles("src")).filter(({ path }) => !path.startsWith("src/page/"));
    const lines = files.reduce((sum, file) => sum + file.lines, 0);
    total = `src has ${files.length} files with ${lines} lines`;
  });

  test(`has at most ${MOST_LOOSE_FILES} files outside the rooms`, () => {
    const loose = files.filter(({ path }) => path.split("/").length === 2);
    expect(loose.length, `${total}. Loose: ${list(loose)}`).toBeLessThanOrEqual(MOST_LOOSE_FILES);
  });

  test(`has at most ${MOST_SMALL_FILES} files with fewer than ${SMALL_FILE_LINES} lines`, () => {
    const small = files.filter(({ lines }) => lines < SMALL_FILE_LINES);
    const message = `${total}. Merge one into the file that uses it: ${list(small)}`;
    expect(small.length, message).toBeLessThanOrEqual(MOST_SMALL_FILES);
  });
});

test("docs/test-helpers.md lists existing test helpers", async () => {
  const page = await readFile(join(ROOT, "docs/test-helpers.md"), "utf8");
  // The first path of a row is complete, the others are in the same folder or complete, too.
  const rows = [...page.matchAll(/^\| (`test\/[^|]*) \|/gm)].map(([, cell = ""]) =>
    cell.replaceAll("`", "").split(", "),
  );
  expect(rows.length).toBeGreaterThan(20);
  const folderOf = (row: readonly string[]) => dirname(row[0] ?? "");
  const paths = rows.flatMap((row) => row.map((each) => (each.includes("/") ? each : join(folderOf(row), each))));
  const missing = paths.filter((path) => !existsSync(join(ROOT, path.replace("/*.ts", ""))));
  expect(missing).toEqual([]);
});

describe("the pages of the architecture", () => {
  let page: string;
  beforeAll(async () => {
    const pages = ["architecture.md", "architecture/paths.md"];
    page = (await Promise.all(pages.map((name) => readFile(join(ROOT, "docs", name), "utf8")))).join("\n");
  });

  test("names existing files of src", () => {
    const paths = [...page.matchAll(/`([a-z]+\/[a-z-]+\.ts)`/g)].map(([, path = ""]) => `src/${path}`);
    expect(paths.length).toBeGreaterThan(50);
    expect(paths.filter((path) => !existsSync(join(ROOT, path)))).toEqual([]);
  });

  test("names functions and classes that are in the file that it gives", async () => {
    const named = [...page.matchAll(/`([A-Za-z.]+)` \(`([a-z]+\/[a-z-]+\.ts)`/g)];
    expect(named.length).toBeGreaterThan(40);
    const missing: string[] = [];
    for (const [, name = "", path = ""] of named) {
      const text = await readFile(join(ROOT, "src", path), "utf8");
      const isThere = name.split(".").every((part) => new RegExp(`\\b${part}\\b`).test(text));
      if (!isThere) missing.push(`${name} in src/${path}`);
    }
    expect(missing).toEqual([]);
  });

  test("shows every room above the rooms that it may import", async () => {
    const picture = await readFile(join(ROOT, "docs/pictures/rooms.svg"), "utf8");
    const names = [...picture.matchAll(/<text x="\d+" y="(\d+)"[^>]* font-weight="600">([\w.]+)</g)];
    const floors = new Map(names.map(([, y, name = ""]) => [name, Number(y)]));
    const contributing = await readFile(join(ROOT, "CONTRIBUTING.md"), "utf8");
    const rows = [...contributing.matchAll(/^\| `(\w+)` \| .* \| ([^|]+) \|$/gm)];
    // The page runs in a browser, and imports nothing.
    for (const [, room = "", may = ""] of rows.filter(([, room]) => room !== "page")) {
      const floor = floors.get(room) ?? Number.NaN;
      expect(floor, room).toBeGreaterThan(0);
      const rooms = may === "nothing" || may === "every room" ? [] : may.split(", ");
      for (const below of rooms) expect(floors.get(below), `${below} below ${room}`).toBeGreaterThan(floor);
    }
  });
});

describe("imports, types included", () => {
  test.each(WITHOUT_CIRCLES)("form no circle in %s", async (folder) => {
    const files = await sourceFiles(folder);
    expect(
      circlesIn(files).map((circle) => circle.join(" -> ")),
      `${folder} has ${files.length} files`,
    ).toEqual([]);
  });

  test.each([
    ["a value", 'import { b } from "./b.ts";'],
    ["a type", 'import type { B } from "./b.ts";'],
    ["an import over several lines", 'import {\n  type B,\n  b,\n} from "./b.ts";'],
    ["an export", 'export { b } from "./b.ts";'],
    ["a dynamic import", 'const b = await import("./b.ts");'],
    ["the type of an import", 'type B = import("./b.ts").B;'],
  ])("are found in a circle: %s", (_, text) => {
    const file = (path: string, source: string) => ({ path, lines: 1, imports: importsOf(path, source) });
    const files = [file("x/a.ts", text), file("x/b.ts", 'import "../y/c.ts";'), file("y/c.ts", 'import "../x/a.ts";')];
    expect(circlesIn(files)).toEqual([["x/a.ts", "x/b.ts", "y/c.ts", "x/a.ts"]]);
  });
});
