import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";

/**
 * Where this project keeps what is expensive to make, per user and outside the tree, so that all checkouts share it.
 * The XDG base directory specification says to ignore a relative XDG_CACHE_HOME.
 */
export function cacheRoot(env: NodeJS.ProcessEnv = process.env): string {
  const xdg = env["XDG_CACHE_HOME"];
  return join(xdg && isAbsolute(xdg) ? xdg : join(homedir(), ".cache"), "berth");
}

/** The folder with all builds of the control plane. */
export function controlPlaneRoot(env?: NodeJS.ProcessEnv): string {
  return join(cacheRoot(env), "control-plane");
}
