import { existsSync, readFileSync } from "node:fs";

/** The path of package.json, relative to the bundle in dist and to this file. */
const PLACES = ["../package.json", "../../package.json"];

/** This Berth's version, from its package.json. */
export function berthVersion(): string {
  return manifestText("version") || "unknown";
}

/** Where the forge shows this version's pages; empty in a checkout, which doesn't know its forge. A release sets it. */
export function docsUrl(): string {
  const repository = manifestText("repository");
  return repository === "" ? "" : `${repository}/blob/v${berthVersion()}`;
}

function manifestText(field: "version" | "repository"): string {
  const place = PLACES.map((path) => new URL(path, import.meta.url)).find(existsSync);
  const manifest: unknown = place && JSON.parse(readFileSync(place, "utf8"));
  const value = Object(manifest)[field];
  return typeof value === "string" ? value : "";
}
