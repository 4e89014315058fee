import { cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join, posix } from "node:path";
import { addressOf, kindOf, LANDING, linksIn, pagesOf, ROOT, replaceLinks, titleOf } from "./pages.ts";

/** The branch that links to the repository show. */
const BRANCH = "main";

/**
 * Writes the input of VitePress: the landing page, every page with its links adapted to the paths in the site, and a list of the pages of each
 * folder. Links that work in a checkout or on a forge then work in the site. Other files are shown by the
 * repository on its forge; without one (`repository` is empty) they are no links.
 */
export async function stage(into: string, repository: string, root = ROOT): Promise<void> {
  await rm(into, { recursive: true, force: true });
  const pages = await pagesOf(root);
  const folders = new Set(pages.map((page) => dirname(page)).filter((folder) => folder !== "."));
  const images = new Set<string>();
  for (const page of [...pages, LANDING]) {
    const text = await readFile(join(root, page), "utf8");
    const kinds = await kindsOfTargets(page, text, root);
    const adapted = replaceLinks(page, text, ({ path, anchor }, isImage) => {
      const kind = kinds.get(path) ?? "file";
      if (isImage) images.add(path);
      else if (kind !== "page" && !folders.has(path)) return onForge(repository, path, kind);
      // VitePress looks for images from the page's own path, and for pages from its path in the site.
      const relative = isImage
        ? posix.relative(dirname(page), path)
        : posix.relative(dirname(addressOf(page)), addressOf(path));
      return (relative.startsWith(".") ? relative : `./${relative}`) + anchor;
    });
    await write(join(into, page), withoutComments(adapted));
  }
  for (const image of images) await copy(join(root, image), join(into, image));
  // A folder with its own page shows that.
  for (const folder of [...folders].filter((path) => !pages.includes(`${path}/README.md`))) {
    await write(join(into, addressOf(folder)), await folderPage(folder, pages, root));
  }
  await copy(join(root, "src/page/icon.svg"), join(into, "public/icon.svg"));
}

async function kindsOfTargets(page: string, text: string, root: string) {
  const targets = new Set(linksIn(page, text).map(({ path }) => path));
  return new Map(await Promise.all([...targets].map(async (path) => [path, await kindOf(path, root)] as const)));
}

function onForge(repository: string, path: string, kind: "file" | "folder"): string | null {
  return repository === "" ? null : `${repository}/${kind === "folder" ? "tree" : "blob"}/${BRANCH}/${path}`;
}

/** The pages of a folder, by their headings. */
async function folderPage(folder: string, pages: readonly string[], root: string): Promise<string> {
  const lines = pages
    .filter((page) => dirname(page) === folder)
    .map(async (page) => `- [${await titleOf(page, root)}](./${posix.basename(page)})`);
  const name = posix.basename(folder);
  return `---\neditLink: false\n---\n\n# ${name.charAt(0).toUpperCase()}${name.slice(1)}\n\n${(await Promise.all(lines)).join("\n")}\n`;
}

/** Comments in a page are for its authors. Comments in fences are part of an example. */
function withoutComments(text: string): string {
  return text
    .split(/(^```[\s\S]*?^```)/m)
    .map((part, index) => (index % 2 === 1 ? part : part.replaceAll(/<!--[\s\S]*?-->\n?/g, "")))
    .join("");
}

async function copy(from: string, to: string): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  await cp(from, to);
}

async function write(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
}
