import { accessSync, constants } from "node:fs";
import { join } from "node:path";
import { delimiter } from "node:path/posix";

/** Debian's package of it. */
export const CHROMIUM_PACKAGE = "chromium";

/** Names that Chromium, or the browser that is made of it, is installed under; Debian's first. */
const NAMES = ["chromium", "chromium-browser", "google-chrome"] as const;

/** Path of a Chromium on this machine; undefined: there is none. */
export function findChromium(path: string = process.env["PATH"] ?? ""): string | undefined {
  const candidates = path.split(delimiter).flatMap((dir) => NAMES.map((name) => join(dir, name)));
  return candidates.find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
