import { join } from "node:path";
import { type BuildOptions, ensureBinaries } from "../cluster/build.ts";
import { cacheRoot } from "../cluster/cache.ts";
import { NODE_BINARIES, nodeModules } from "./versions.ts";

/**
 * Returns the folder with kubelet, kube-proxy, and containerd, from the cache, downloaded, or built.
 * @throws MissingToolError
 */
export async function findNodeBinaries(options: BuildOptions = {}): Promise<string> {
  const { dir } = await ensureBinaries(
    {
      title: "the node's programs",
      binaries: NODE_BINARIES,
      modules: await nodeModules(),
      root: join(cacheRoot(options.env), "node"),
      minutes: 5,
    },
    options,
  );
  return dir;
}
