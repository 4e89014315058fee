import { readFile } from "node:fs/promises";

/** The page's files: src/page, or the folder `page` that the build puts next to the bundle. */
const FOLDER = new URL("../page/", import.meta.url);

const HTML = "text/html; charset=utf-8";
const SCRIPT = "text/javascript; charset=utf-8";

/** Every file of the page, by URL path, with its content type. */
export const PAGE_FILES = {
  "/": { file: "index.html", type: HTML },
  "/style.css": { file: "style.css", type: "text/css; charset=utf-8" },
  "/icon.svg": { file: "icon.svg", type: "image/svg+xml" },
  "/page.js": { file: "page.js", type: SCRIPT },
  "/detail.js": { file: "detail.js", type: SCRIPT },
  "/elements.js": { file: "elements.js", type: SCRIPT },
  "/empty.js": { file: "empty.js", type: SCRIPT },
  "/environments.js": { file: "environments.js", type: SCRIPT },
  "/lane.js": { file: "lane.js", type: SCRIPT },
  "/lanes.js": { file: "lanes.js", type: SCRIPT },
  "/problems.js": { file: "problems.js", type: SCRIPT },
  "/state.js": { file: "state.js", type: SCRIPT },
  "/summary.js": { file: "summary.js", type: SCRIPT },
  "/text.js": { file: "text.js", type: SCRIPT },
} as const;

/** One file in memory. */
export interface PageFile {
  readonly type: string;
  readonly bytes: Buffer;
}

/** Reads the page's files once: about 50 kB. */
export async function readPage(): Promise<ReadonlyMap<string, PageFile>> {
  const entries = Object.entries(PAGE_FILES).map(
    async ([path, { file, type }]) => [path, { type, bytes: await readFile(new URL(file, FOLDER)) }] as const,
  );
  return new Map(await Promise.all(entries));
}
