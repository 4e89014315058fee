import { readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, join, posix } from "node:path";
import { fileURLToPath } from "node:url";

/** The root of the repository. */
export const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** Pages outside docs that describe a folder. */
const FOLDER_PAGES = ["charts/berth/README.md", "examples/README.md"];

/** A link of a page: its text and its target. */
export interface Link {
  /** The path from the root of the repository, without the anchor. */
  readonly path: string;
  /** With its `#`; or empty. */
  readonly anchor: string;
  readonly text: string;
}

/** Every page for readers, as a path from the root: at the top, in docs, and pages that describe a folder. Sorted. */
export async function pagesOf(root = ROOT): Promise<string[]> {
  const isPage = (name: string) => name.endsWith(".md");
  const top = (await readdir(root)).filter(isPage);
  const docs = (await readdir(join(root, "docs"), { recursive: true })).filter(isPage);
  return [...top, ...docs.map((name) => `docs/${name}`), ...FOLDER_PAGES].sort();
}

/** The path of a page, file or folder in the site. A folder shows its README.md. */
export function addressOf(path: string, kind: "page" | "file" | "folder"): string {
  if (kind === "folder") return posix.join(path, "index.md");
  // VitePress skips folders whose name begins with a dot.
  if (kind === "file") return `${path.replaceAll(/(^|\/)\./g, "$1")}.md`;
  return basename(path) === "README.md" ? posix.join(dirname(path), "index.md") : path;
}

/**
 * A fence, a link (an image has a `!` before it) whose target has no blanks, or inline code: whichever begins first.
 */
const PARTS = /^```[\s\S]*?^```|(!?)\[((?:[^\][]|\[[^\]]*\])*)\]\(([^)\s]+)\)|`[^`\n]*`/gm;

/** The text with the target of each link to the repository replaced. Text in fences or backquotes has no links. */
export function replaceLinks(page: string, text: string, replace: (link: Link, isImage: boolean) => string): string {
  return text.replaceAll(PARTS, (whole, image: string | undefined, label: string, target: string) => {
    if (image === undefined || /^[a-z]+:|^#/.test(target)) return whole;
    const [, file = "", anchor = ""] = /^([^#]*)(#.*)?$/.exec(target) ?? [];
    const path = posix.join(dirname(page), decodeURIComponent(file)).replace(/\/$/, "");
    return `${image}[${label}](${replace({ path, anchor, text: label }, image !== "")})`;
  });
}

/** The links of a page to the repository, in order. */
export function linksIn(page: string, text: string): Link[] {
  const links: Link[] = [];
  replaceLinks(page, text, (link) => {
    links.push(link);
    return "";
  });
  return links;
}

export async function kindOf(path: string, root = ROOT): Promise<"page" | "file" | "folder"> {
  const found = await stat(join(root, path));
  if (found.isDirectory()) return "folder";
  return path.endsWith(".md") ? "page" : "file";
}

/** The first heading of a page. */
export async function titleOf(page: string, root = ROOT): Promise<string> {
  const [, title] = /^# (.+)$/m.exec(await readFile(join(root, page), "utf8")) ?? [];
  if (title === undefined) throw new Error(`${page} has no heading: begin it with "# "`);
  return title.replaceAll("`", "");
}
