import { existsSync, readFileSync } from "node:fs";

/** Where package.json is, as seen from the bundle in dist and from this file. */
const PLACES = ["../package.json", "../../package.json"];

/** The version of this Berth, from its package.json. */
export function berthVersion(): string {
  const place = PLACES.map((path) => new URL(path, import.meta.url)).find(existsSync);
  const manifest: unknown = place && JSON.parse(readFileSync(place, "utf8"));
  const version = typeof manifest === "object" && manifest !== null && "version" in manifest ? manifest.version : "";
  return typeof version === "string" && version !== "" ? version : "unknown";
}
