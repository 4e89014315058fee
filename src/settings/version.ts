import { existsSync, readFileSync } from "node:fs";

/** The path of package.json, relative to the bundle in dist and to this file. */
const PLACES = ["../package.json", "../../package.json"];

/** This Berth's version, from its package.json. */
export function berthVersion(): string {
  const place = PLACES.map((path) => new URL(path, import.meta.url)).find(existsSync);
  const manifest: unknown = place && JSON.parse(readFileSync(place, "utf8"));
  const version = typeof manifest === "object" && manifest !== null && "version" in manifest ? manifest.version : "";
  return typeof version === "string" && version !== "" ? version : "unknown";
}
