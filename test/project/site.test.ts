import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { type Entry, sidebars } from "../../site/navigation.ts";
import { addressOf, FOLDER_PAGES, linksIn, pagesOf, ROOT, replaceLinks } from "../../site/pages.ts";
import { stage } from "../../site/stage.ts";

const folders: string[] = [];
afterEach(async () => {
  await Promise.all(folders.splice(0).map((folder) => rm(folder, { recursive: true })));
});

/** Creates a folder with these files, by path. */
async function repository(files: Readonly<Record<string, string>>): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), "berth-site-"));
  folders.push(root);
  const all = { ...Object.fromEntries(FOLDER_PAGES.map((page) => [page, "# Folder\n"])), ...files };
  for (const [path, text] of Object.entries(all)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text);
  }
  return root;
}

function linksOf(entries: readonly Entry[]): string[] {
  return entries.flatMap(({ link, items = [] }) => [...(link === undefined ? [] : [link]), ...linksOf(items)]);
}

describe("the sidebars of the site", () => {
  test("have every page of the repository, once", async () => {
    const pages = await pagesOf();
    const all = await sidebars(pages);
    const links = [...new Set(Object.values(all))].flatMap(linksOf);
    expect(links).toEqual([...new Set(links)]);
    expect(links).toEqual(
      expect.arrayContaining(pages.map((page) => `/${addressOf(page)}`.replace(/(index)?\.md$/, ""))),
    );
  });

  test("of users and of maintainers have different pages", async () => {
    const all = await sidebars(await pagesOf());
    const forUsers = linksOf(all["/"] ?? []);
    for (const name of ["architecture", "model", "faults", "soak", "e2e", "decisions/"]) {
      const sidebar = all[`/docs/${name}`] ?? [];
      expect(linksOf(sidebar)).toContain(`/docs/${name}`);
      expect(forUsers).not.toContain(`/docs/${name}`);
      expect(linksOf(sidebar)).not.toContain("/docs/quick-start");
    }
  });

  test("have a group for each list, and a folder's pages below the folder or the page of its name", async () => {
    const root = await repository({
      "README.md": "# Top\n",
      "docs/speed.md": "# Speed\n",
      "docs/speed/up.md": "# Going `up`\n",
      "docs/records/1.md": "# One\n",
      "docs/code.md": "# Code\n",
    });
    const users = {
      Start: [["README.md", "Overview"] as const, ...FOLDER_PAGES],
      Use: ["docs/speed.md", ["docs/records", "Records"] as const],
    };
    const all = await sidebars(await pagesOf(root), users, { Contribute: ["docs/code.md"] }, root);
    expect(Object.keys(all)).toEqual(["/docs/code", "/"]);
    expect(all["/"]).toMatchObject([
      { text: "Start", collapsed: false },
      { text: "Use", collapsed: true },
    ]);
    expect(all["/"]?.[0]?.items?.[0]).toEqual({ text: "Overview", link: "/overview" });
    expect(all["/"]?.[1]?.items).toEqual([
      { text: "Speed", link: "/docs/speed", collapsed: true, items: [{ text: "Going up", link: "/docs/speed/up" }] },
      { text: "Records", link: "/docs/records/", collapsed: true, items: [{ text: "One", link: "/docs/records/1" }] },
    ]);
  });

  test("fail for a page without a place, and report the fix", async () => {
    const root = await repository({ "docs/two.md": "# Two\n" });
    const users = { Start: FOLDER_PAGES };
    await expect(sidebars(await pagesOf(root), users, {}, root)).rejects.toThrow(
      "site/navigation.ts has no place for docs/two.md: add it to a group",
    );
  });
});

describe("pages of the site", () => {
  test("link to no page that the site lacks", async () => {
    const pages = await pagesOf();
    const lacking = pages.map(async (page) =>
      linksIn(page, await readFile(join(ROOT, page), "utf8"))
        .filter(({ path }) => path.endsWith(".md") && !pages.includes(path))
        .map(({ path }) => `${page}: ${path}`),
    );
    expect((await Promise.all(lacking)).flat()).toEqual([]);
  });

  test.each([
    ["a page", "see [x](../README.md#a)", "see [x](README.md#a)"],
    ["text in backquotes", "[`x`](x.mjs)", "[`x`](docs/x.mjs)"],
    ["an image", "![x](x.svg)", "![x](docs/x.svg)"],
    ["an address elsewhere", "[x](https://example.com/x.md)", "[x](https://example.com/x.md)"],
    ["an anchor of its own page", "[x](#a)", "[x](#a)"],
    ["code", "`[x](y.md)`", "`[x](y.md)`"],
    ["a fence", "```\n[x](y.md)\n```", "```\n[x](y.md)\n```"],
  ])("links: %s", (_, text, expected) => {
    expect(replaceLinks("docs/page.md", text, ({ path, anchor }) => path + anchor)).toBe(expected);
  });

  test("lose a link without a target", () => {
    expect(
      replaceLinks("docs/page.md", "see [the `code`](../src/x.ts), [y](y.md)", ({ path }) =>
        path.endsWith("y.md") ? path : null,
      ),
    ).toBe("see the `code`, [y](docs/y.md)");
  });

  const linked = {
    "README.md": "# Top\n\n[a](docs/a.md)\n",
    "docs/a.md":
      "# A\n<!-- for writers -->\n[code](../src/x.mjs) [all](../src/) [b](b/) [top](../README.md#top) ![p](p.svg)\n",
    "docs/b/c.md": "# C\n",
    "docs/p.svg": "<svg/>",
    "src/x.mjs": "let x;",
    "site/landing.md": "[a](../docs/a.md) ![p](../docs/p.svg)\n",
    "src/page/icon.svg": "<svg/>",
  };

  test.each([
    ["no link without a forge", "", "code all"],
    [
      "a link to the forge",
      "https://git.example.com/b",
      "[code](https://git.example.com/b/blob/main/src/x.mjs) [all](https://git.example.com/b/tree/main/src)",
    ],
  ])("have %s to source files, and their images and lists", async (_, forge, expected) => {
    const root = await repository(linked);
    const into = join(root, "staged");
    await stage(into, forge, root);
    const staged = (path: string) => readFile(join(into, path), "utf8");
    expect(await staged("docs/a.md")).toBe(
      `# A\n${expected} [b](./b/index.md) [top](../overview.md#top) ![p](./p.svg)\n`,
    );
    expect(await staged("docs/b/index.md")).toContain("# B\n\n- [C](./c.md)");
    expect(await staged("docs/p.svg")).toBe("<svg/>");
    expect(await staged("site/landing.md")).toBe("[a](./docs/a.md) ![p](../docs/p.svg)\n");
    expect((await readdir(into)).sort()).toEqual(["README.md", "charts", "docs", "examples", "init", "public", "site"]);
  });

  test("fail the build for a link to a missing file", async () => {
    const root = await repository({ "README.md": "# Top\n\n[a](docs/a.md)\n", "docs/b.md": "# B\n" });
    await expect(stage(join(root, "staged"), "", root)).rejects.toThrow("docs/a.md");
  });
});
