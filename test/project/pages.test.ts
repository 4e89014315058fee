import { readdir, readFile, stat } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { describe, expect, test } from "vitest";
import { REASONS } from "../../src/api/condition-reasons.ts";
import { CONDITION_TYPES } from "../../src/api/condition-types.ts";
import { END_REASON_LIST, EVENT_REASONS } from "../../src/api/reasons.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { recordedBlocks } from "../../tools/recorded-blocks.ts";
import { ROOT } from "./lint-gate.ts";

const read = (path: string) => readFile(join(ROOT, path), "utf8");

/** Every page for people: those at the top, those that explain a folder, and everything in docs. */
const pages = [
  "charts/berth/README.md",
  "examples/README.md",
  ...(await readdir(ROOT)).filter((name) => name.endsWith(".md")),
  ...(await readdir(join(ROOT, "docs"), { recursive: true }))
    .filter((name) => name.endsWith(".md"))
    .map((name) => join("docs", name)),
];

/** Returns GitHub's anchor of a heading. */
const anchorOf = (heading: string) =>
  heading
    .toLowerCase()
    .replaceAll(/[^a-z0-9 _-]/g, "")
    .replaceAll(" ", "-");

/** Removes code blocks: examples are neither links nor headings. */
const prose = (text: string) => text.replaceAll(/^```[\s\S]*?^```/gm, "");

interface Link {
  /** Relative to the root. */
  readonly path: string;
  readonly anchor: string | undefined;
}

async function links(page: string): Promise<Link[]> {
  const targets = [...prose(await read(page)).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = ""]) => target);
  return targets
    .filter((target) => !/^[a-z]+:/.test(target))
    .map((target) => {
      const [file = "", anchor] = target.split("#");
      return { path: file === "" ? page : join(dirname(page), decodeURIComponent(file)), anchor };
    });
}

describe.each(pages)("%s", (page) => {
  test("has only working links", async () => {
    for (const { path, anchor } of await links(page)) {
      const there = await stat(join(ROOT, path)).catch(() => undefined);
      expect(there, path).toBeDefined();
      if (anchor === undefined) continue;
      const headings = [...prose(await read(path)).matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
        anchorOf(heading),
      );
      expect(headings, `${path}#${anchor}`).toContain(anchor);
    }
  });

  test("names only existing metrics", async () => {
    const known = new Set(
      createMetrics()
        .registry.getMetricsAsArray()
        .map(({ name }) => name),
    );
    // The changelog lists the names of metrics that are gone.
    const text = (await read(page)).replace(/^\| metric \|.*$/gm, "");
    const named = [...text.matchAll(/\bberth_[a-z_]+[a-z]\b/g)].map(([name]) => name);
    const bare = (name: string) => (known.has(name) ? name : name.replace(/_(count|sum|bucket)$/, ""));
    expect(named.filter((name) => !known.has(bare(name)))).toEqual([]);
  });
});

test("the README leads to every page by links", async () => {
  const reached = new Set(["README.md"]);
  for (const page of reached) {
    if (!page.endsWith(".md")) {
      // A link to a folder shows its pages.
      for (const other of pages) if (dirname(other) === relative("", page)) reached.add(other);
      continue;
    }
    for (const { path } of await links(page)) reached.add(path.replace(/\/$/, ""));
  }
  expect(pages.filter((page) => !reached.has(page))).toEqual([]);
});

describe("docs/session-life.md", () => {
  test("has the recorded texts of every stage", async () => {
    const blocks = recordedBlocks(await read("docs/session-life.md"));
    expect([...blocks.keys()]).toEqual(["warm", "running", "sleeping", "awake", "metrics"]);
    for (const [name, text] of blocks) expect(text.split("\n").length, name).toBeGreaterThan(5);
  });

  test("shows Events and conditions of the closed sets", async () => {
    const blocks = recordedBlocks(await read("docs/session-life.md"));
    const shown = [...(blocks.get("sleeping") ?? "").matchAll(/^2m +\w+ +(\w+) +Pod\//gm)].map(
      ([, reason = ""]) => reason,
    );
    const known = new Set<string>([...END_REASON_LIST, ...Object.keys(EVENT_REASONS), "Scheduled"]);
    expect(shown).toEqual(["Scheduled", "SessionStarted", "SessionAsleep", "Completed"]);
    expect(shown.filter((reason) => !known.has(reason))).toEqual([]);
  });
});

describe("docs/spec/environment.md", () => {
  test("explains every condition, reason, Event and end", async () => {
    const page = await read("docs/spec/environment.md");
    const all = [...CONDITION_TYPES, ...Object.keys(REASONS), ...END_REASON_LIST, ...Object.keys(EVENT_REASONS)];
    expect(all.filter((word) => !new RegExp(`^\\| \`${word}\` \\|`, "m").test(page))).toEqual([]);
  });
});

test("docs/faults.md has a row for every folder of test/faults", async () => {
  const entries = await readdir(join(ROOT, "test/faults"), { withFileTypes: true });
  const folders = entries.filter((entry) => entry.isDirectory() && entry.name !== "support").map(({ name }) => name);
  const rows = [...(await read("docs/faults.md")).matchAll(/^\| `([\w-]+)` \|/gm)].map(([, name = ""]) => name);
  expect(folders.filter((name) => !rows.includes(name))).toEqual([]);
  // No folder has two rows.
  expect(rows).toEqual([...new Set(rows)]);
});
