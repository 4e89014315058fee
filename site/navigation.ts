import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { addressOf, kindOf, linksIn, ROOT, titleOf } from "./pages.ts";

/** An entry of VitePress's sidebar. */
export interface Entry {
  readonly text: string;
  /** From the root of the site, without an extension. */
  readonly link?: string;
  readonly collapsed?: boolean;
  readonly items?: readonly Entry[];
}

/** A page's name in the sidebar, and where its entry was found. */
interface Named {
  readonly path: string;
  readonly text: string;
}

/**
 * The sidebar: the rows of the README's table of pages, with their links in order. A page is below an entry if its
 * folder has that entry, or if the entry's page has the folder's name (docs/performance/x.md and docs/performance.md).
 * @throws Error naming the pages without a place
 */
export async function sidebar(pages: readonly string[], root = ROOT): Promise<Entry[]> {
  const groups = await tableOf(await readFile(join(root, "README.md"), "utf8"), pages, root);
  const placed = new Set(groups.flatMap(({ entries }) => entries.map(({ path }) => path)));
  const below = (path: string) =>
    pages.filter((page) => !placed.has(page) && [path, path.replace(/\.md$/, "")].includes(dirname(page)));
  const lost = pages.filter(
    (page) => page !== "README.md" && !placed.has(page) && ![...placed].some((path) => below(path).includes(page)),
  );
  if (lost.length > 0) {
    throw new Error(`no row of the README's table "Docs" leads to ${lost.join(", ")}: add a link to one of them`);
  }
  return Promise.all(
    groups.map(async ({ name, entries }) => ({
      text: capitalized(name),
      items: await Promise.all(entries.map((entry) => entryOf(entry, below(entry.path), root))),
    })),
  );
}

async function entryOf({ path, text }: Named, below: readonly string[], root: string): Promise<Entry> {
  const entry = { text: capitalized(text), link: await linkOf(path, root) };
  if (below.length === 0) return entry;
  const items = below.map(async (page) => ({ text: await titleOf(page, root), link: await linkOf(page, root) }));
  return { ...entry, collapsed: true, items: await Promise.all(items) };
}

async function linkOf(path: string, root: string): Promise<string> {
  return `/${addressOf(path, await kindOf(path, root))}`.replace(/(index)?\.md$/, "");
}

/**
 * The rows of the table under the heading "Docs": a name, and the pages and folders that it links to, once each. A link
 * to an anchor counts only if no other link leads to the page.
 */
async function tableOf(readme: string, pages: readonly string[], root: string) {
  const [, section = ""] = /^## Docs\n([\s\S]*?)(?=^## |(?![\s\S]))/m.exec(readme) ?? [];
  const rows = [...section.matchAll(/^\| ([^|]*?) *\| (.*) \|$/gm)].map(([, name = "", cell = ""]) => ({
    name,
    links: linksIn("README.md", cell),
  }));
  const whole = new Set(
    rows.flatMap(({ links }) => links.filter(({ anchor }) => anchor === "").map(({ path }) => path)),
  );
  const seen = new Set<string>();
  const groups: { name: string; entries: Named[] }[] = [];
  for (const { name, links } of rows) {
    const entries: Named[] = [];
    for (const { path, text, anchor } of links) {
      const isEntry = (await kindOf(path, root)) === "folder" || pages.includes(path);
      if (!isEntry || seen.has(path) || (anchor !== "" && whole.has(path))) continue;
      seen.add(path);
      entries.push({ path, text: anchor === "" ? text.replaceAll("`", "") : await titleOf(path, root) });
    }
    if (entries.length > 0) groups.push({ name, entries });
  }
  return groups;
}

function capitalized(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
