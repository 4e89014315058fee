/** `npm run setup:node`: installs the Debian packages that a node on this machine needs. */
import { spawnSync } from "node:child_process";
import { missingPackages } from "./requirements.ts";

const missing = missingPackages();
if (missing.length === 0) {
  console.log("All packages that a node needs are installed.");
} else {
  console.log(`Installing ${missing.join(", ")}`);
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  for (const args of [["update"], ["install", "--yes", "--no-install-recommends", ...missing]]) {
    const { status, error } = spawnSync("apt-get", args, { stdio: "inherit", env });
    if (error || status !== 0) {
      console.error(
        `apt-get ${args[0]} failed${error ? `: ${error.message}` : ""}. On a system without apt-get, install`,
      );
      console.error(`what these Debian packages hold by hand: ${missing.join(", ")}`);
      process.exit(1);
    }
  }
}
