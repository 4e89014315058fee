import { join } from "node:path";
import { type BuildOptions, buildOnce } from "../cluster/build.ts";
import { cacheRoot } from "../cluster/cache.ts";
import { NODE_BINARIES, nodeModules } from "./versions.ts";

/**
 * Returns the folder with kubelet, kube-proxy, and containerd, from an earlier build or newly built. @throws
 * MissingToolError
 */
export async function findNodeBinaries(options: BuildOptions = {}): Promise<string> {
  const { dir } = await buildOnce(
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
