import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { type Entry, sidebar } from "../../site/navigation.ts";
import { pagesOf, replaceLinks } from "../../site/pages.ts";
import { stage } from "../../site/stage.ts";

const folders: string[] = [];
afterEach(async () => {
  await Promise.all(folders.splice(0).map((folder) => rm(folder, { recursive: true })));
});

/** Creates a folder with these files, by path. */
async function repository(files: Readonly<Record<string, string>>): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), "berth-site-"));
  folders.push(root);
  const all = { "charts/berth/README.md": "# Chart\n", "examples/README.md": "# Examples\n", ...files };
  for (const [path, text] of Object.entries(all)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text);
  }
  return root;
}

const tableOf = (...rows: string[]) =>
  `# Top\n\n## Docs\n\n| For | |\n|---|---|\n| folders | [chart](charts/berth/README.md), [examples](examples/README.md) |\n${rows.map((row) => `| ${row} |\n`).join("")}`;

function linksOf(entries: readonly Entry[]): string[] {
  return entries.flatMap(({ link, items = [] }) => [...(link === undefined ? [] : [link]), ...linksOf(items)]);
}

describe("the sidebar of the site", () => {
  test("has every page of the repository, once", async () => {
    const pages = await pagesOf();
    const links = linksOf(await sidebar(pages)).map((link) => link.replace(/\/$/, ""));
    expect(links).toEqual([...new Set(links)]);
    const addresses = pages.map((page) => `/${page.replace(/(\/README)?\.md$/, "")}`);
    expect(links).toEqual(expect.arrayContaining(addresses.filter((address) => address !== "/README")));
  });

  test("has a group for each row of the README's table, and a folder's pages below the page of the same name", async () => {
    const root = await repository({
      "README.md": tableOf(
        "using | [speed](docs/speed.md), [words](docs/speed.md#words), [records](docs/records/): why",
      ),
      "docs/speed.md": "# Speed\n",
      "docs/speed/up.md": "# Going `up`\n",
      "docs/records/1.md": "# One\n",
    });
    const [folder, using] = await sidebar(await pagesOf(root), root);
    expect(folder?.text).toBe("Folders");
    expect(using).toEqual({
      text: "Using",
      items: [
        { text: "Speed", link: "/docs/speed", collapsed: true, items: [{ text: "Going up", link: "/docs/speed/up" }] },
        { text: "Records", link: "/docs/records/", collapsed: true, items: [{ text: "One", link: "/docs/records/1" }] },
      ],
    });
  });

  test("has the title of a page that is only linked by a section", async () => {
    const root = await repository({
      "README.md": tableOf("using | [a part](docs/a.md#x)"),
      "docs/a.md": "# All of it\n",
    });
    const [, using] = await sidebar(await pagesOf(root), root);
    expect(using?.items).toEqual([{ text: "All of it", link: "/docs/a" }]);
  });

  test("fails for a page without a place in it, and reports the fix", async () => {
    const root = await repository({
      "README.md": tableOf("using | [one](docs/one.md)"),
      "docs/one.md": "# One\n",
      "docs/two.md": "# Two\n",
    });
    await expect(sidebar(await pagesOf(root), root)).rejects.toThrow(
      'no row of the README\'s table "Docs" leads to docs/two.md: add a link',
    );
  });
});

describe("pages of the site", () => {
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

  test("stage linked files and folders of the repository as pages, and copy their images", async () => {
    const root = await repository({
      "README.md": "# Top\n\n[a](docs/a.md)\n",
      "docs/a.md":
        "# A\n<!-- for writers -->\n[code](../src/x.mjs) [all](../src/) [ci](../.github/ci.yml) [top](../README.md#top) ![p](p.svg)\n",
      "docs/p.svg": "<svg/>",
      "src/x.mjs": "let x;",
      ".github/ci.yml": "a: 1\n",
    });
    const into = join(root, "staged");
    await stage(into, root);
    const staged = (path: string) => readFile(join(into, path), "utf8");
    expect(await staged("docs/a.md")).toBe(
      "# A\n[code](../src/x.mjs.md) [all](../src/index.md) [ci](../github/ci.yml.md) [top](../index.md#top) ![p](./p.svg)\n",
    );
    expect(await staged("src/x.mjs.md")).toContain("````js\nlet x;\n````");
    expect(await staged("src/index.md")).toContain("- `x.mjs`");
    expect(await staged("docs/p.svg")).toBe("<svg/>");
  });

  test("fail the build for a link to a missing file", async () => {
    const root = await repository({ "README.md": "# Top\n\n[a](docs/a.md)\n", "docs/b.md": "# B\n" });
    await expect(stage(join(root, "staged"), root)).rejects.toThrow("docs/a.md");
  });
});
