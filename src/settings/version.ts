import { existsSync, readFileSync } from "node:fs";

/** The path of package.json, relative to the bundle in dist and to this file. */
const PLACES = ["../package.json", "../../package.json"];

/** This Berth's version, from its package.json. */
export function berthVersion(): string {
  return manifestText("version") || "unknown";
}

/** Where this version's docs are published, without a slash at the end; empty while that is not known. */
export function docsUrl(): string {
  return manifestText("homepage").replace(/\/+$/, "");
}

function manifestText(field: "version" | "homepage"): string {
  const place = PLACES.map((path) => new URL(path, import.meta.url)).find(existsSync);
  const manifest: unknown = place && JSON.parse(readFileSync(place, "utf8"));
  const value = Object(manifest)[field];
  return typeof value === "string" ? value : "";
}
