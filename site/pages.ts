import { readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, join, posix } from "node:path";
import { fileURLToPath } from "node:url";

/** The root of the repository. */
export const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** Pages outside docs that describe a folder. */
export const FOLDER_PAGES = ["charts/berth/README.md", "examples/README.md", "init/README.md"];

/** The first page of the site, which is written for it alone. */
export const LANDING = "site/landing.md";

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

/** The path in the site of a page, or of a folder's list of pages. */
export function addressOf(path: string): string {
  if (path === LANDING) return "index.md";
  if (path === "README.md") return "overview.md";
  if (!path.endsWith(".md")) return posix.join(path, "index.md");
  return basename(path) === "README.md" ? posix.join(dirname(path), "index.md") : path;
}

/**
 * A fence, a link (an image has a `!` before it) whose target has no blanks, or inline code: whichever begins first.
 */
const PARTS = /^```[\s\S]*?^```|(!?)\[((?:[^\][]|\[[^\]]*\])*)\]\(([^)\s]+)\)|`[^`\n]*`/gm;

/**
 * The text with the target of each link to the repository replaced, or without the link where the target is null. Text
 * in fences or backquotes has no links.
 */
export function replaceLinks(
  page: string,
  text: string,
  replace: (link: Link, isImage: boolean) => string | null,
): string {
  return text.replaceAll(PARTS, (whole, image: string | undefined, label: string, target: string) => {
    if (image === undefined || /^[a-z]+:|^#/.test(target)) return whole;
    const [, file = "", anchor = ""] = /^([^#]*)(#.*)?$/.exec(target) ?? [];
    const path = posix.join(dirname(page), decodeURIComponent(file)).replace(/\/$/, "");
    const replaced = replace({ path, anchor, text: label }, image !== "");
    return replaced === null ? label : `${image}[${label}](${replaced})`;
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
