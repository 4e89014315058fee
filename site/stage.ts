import { cp, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, extname, join, posix } from "node:path";
import { addressOf, kindOf, linksIn, pagesOf, ROOT, replaceLinks, titleOf } from "./pages.ts";

/** The fence language of a file extension, if it is another word. */
const LANGUAGES: Readonly<Record<string, string>> = {
  mjs: "js",
  txt: "text",
  in: "text",
  "": "text",
  Dockerfile: "docker",
};

/**
 * Writes the input of VitePress: every page with its links adapted, and a page for each file and folder of the
 * repository that a page links to. Links that work in a checkout or on a forge then work in the site.
 */
export async function stage(into: string, root = ROOT): Promise<void> {
  await rm(into, { recursive: true, force: true });
  const pages = await pagesOf(root);
  const linked = new Set<string>();
  for (const page of pages) {
    const kinds = await kindsOfTargets(page, root);
    const text = replaceLinks(page, await readFile(join(root, page), "utf8"), ({ path, anchor }, isImage) => {
      const kind = kinds.get(path) ?? "file";
      if (isImage) linked.add(`image:${path}`);
      else if (kind !== "page") linked.add(path);
      const target = isImage ? path : addressOf(path, kind);
      const relative = posix.relative(dirname(addressOf(page, "page")), target);
      return (relative.startsWith(".") ? relative : `./${relative}`) + anchor;
    });
    await write(join(into, addressOf(page, "page")), withoutComments(text));
  }
  for (const path of linked) await stageTarget(path, into, pages, root);
}

async function kindsOfTargets(page: string, root: string) {
  const targets = new Set(linksIn(page, await readFile(join(root, page), "utf8")).map(({ path }) => path));
  return new Map(await Promise.all([...targets].map(async (path) => [path, await kindOf(path, root)] as const)));
}

async function stageTarget(path: string, into: string, pages: readonly string[], root: string): Promise<void> {
  if (path.startsWith("image:")) {
    const image = path.slice("image:".length);
    await mkdir(dirname(join(into, image)), { recursive: true });
    await cp(join(root, image), join(into, image));
  } else if ((await kindOf(path, root)) === "folder") {
    // A folder with its own page shows that.
    if (!pages.includes(`${path}/README.md`)) {
      await write(join(into, addressOf(path, "folder")), await folderPage(path, pages, root));
    }
  } else {
    await write(join(into, addressOf(path, "file")), filePage(path, await readFile(join(root, path), "utf8")));
  }
}

function filePage(path: string, text: string): string {
  const ending = extname(path).slice(1) || posix.basename(path);
  const language = LANGUAGES[ending] ?? (/^[a-z]+$/.test(ending) ? ending : "text");
  return `# ${posix.basename(path)}\n\n\`${path}\` of the repository.\n\n\`\`\`\`${language}\n${text}\n\`\`\`\`\n`;
}

/** A list of names, with links to those that are pages. */
async function folderPage(path: string, pages: readonly string[], root: string): Promise<string> {
  const entries = await readdir(join(root, path), { withFileTypes: true });
  const lines = await Promise.all(
    entries
      .map((entry) => ({ name: entry.name + (entry.isDirectory() ? "/" : ""), page: `${path}/${entry.name}` }))
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .map(async ({ name, page }) =>
        pages.includes(page) ? `- [${await titleOf(page, root)}](./${name})` : `- \`${name}\``,
      ),
  );
  return `# ${posix.basename(path)}\n\n\`${path}\` of the repository:\n\n${lines.join("\n")}\n`;
}

/** Comments in a page are for its authors. Comments in fences are part of an example. */
function withoutComments(text: string): string {
  return text
    .split(/(^```[\s\S]*?^```)/m)
    .map((part, index) => (index % 2 === 1 ? part : part.replaceAll(/<!--[\s\S]*?-->\n?/g, "")))
    .join("");
}

async function write(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
}
