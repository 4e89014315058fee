import { readFileSync } from "node:fs";

/** The version of this Berth, from the package.json beside src or dist. */
export function berthVersion(): string {
  const manifest: unknown = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
  const version = typeof manifest === "object" && manifest !== null && "version" in manifest ? manifest.version : "";
  return typeof version === "string" && version !== "" ? version : "unknown";
}
