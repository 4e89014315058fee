/**
 * `npm run setup:node` installs the Debian packages that a node on this machine needs, and the browser for the
 * console's tests. It also unpacks Prometheus's packages for the tests of alerts, and a registry for `npm run rehearse`.
 */
import { spawnSync } from "node:child_process";
import { CHROMIUM_PACKAGE, findChromium } from "../browser/chromium.ts";
import { findMonitoringTools } from "../monitoring/tools.ts";
import { findRegistry } from "../rehearsal/programs.ts";
import { missingPackages } from "./requirements.ts";

const missing = [...missingPackages(), ...(findChromium() === undefined ? [CHROMIUM_PACKAGE] : [])];
if (missing.length === 0) {
  console.log("All packages that a node and the tests need are installed.");
} else {
  console.log(`Installing ${missing.join(", ")}`);
  apt("update");
  apt("install", "--yes", "--no-install-recommends", ...missing);
}

const unpack = async () => {
  await findMonitoringTools();
  await findRegistry();
};
try {
  await unpack();
} catch {
  // apt's package lists may be old, or missing as in most images.
  apt("update");
  try {
    await unpack();
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exit(1);
  }
}
console.log("Prometheus, Alertmanager and a registry are there for the tests.");

function apt(...args: readonly string[]): void {
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const { status, error } = spawnSync("apt-get", args, { stdio: "inherit", env });
  if (!error && status === 0) return;
  console.error(`apt-get ${args[0]} failed${error ? `: ${error.message}` : ""}. On a system without apt-get, install`);
  console.error(`what these Debian packages hold by hand: ${[...missing, "prometheus"].join(", ")}`);
  process.exit(1);
}
