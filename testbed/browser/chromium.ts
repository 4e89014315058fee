import { accessSync, constants } from "node:fs";
import { join } from "node:path";
import { delimiter } from "node:path/posix";

/** Debian's package of Chromium. */
export const CHROMIUM_PACKAGE = "chromium";

/** The program names of Chromium and of browsers that are based on it. Debian's name comes first. */
const NAMES = ["chromium", "chromium-browser", "google-chrome"] as const;

/** Returns the path of a Chromium on this machine, or undefined if there is none. */
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
