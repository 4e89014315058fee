import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type BuildOptions, ensureBinaries } from "../cluster/build.ts";
import { cacheRoot } from "../cluster/cache.ts";
import { requiredVersion, type ToolModule } from "../cluster/versions.ts";

/** The name of gVisor's RuntimeClass on a node, which is the chart's default for `isolation: gVisor`. */
export const GVISOR_CLASS = "gvisor";
/** The name of gVisor's runtime in containerd's configuration. */
export const GVISOR_HANDLER = "runsc";

const MODULE = "gvisor.dev/gvisor";
const TOOLS_DIR = join(import.meta.dirname, "tools", "gvisor");

/** gVisor's sandbox, and the program by which containerd starts it. */
export const GVISOR_BINARIES = ["runsc", "containerd-shim-runsc-v1"] as const;

/** gVisor publishes no SHA-256 of its binaries, so they are built. */
export async function gvisorModule(): Promise<ToolModule> {
  const version = requiredVersion(await readFile(join(TOOLS_DIR, "go.mod"), "utf8"), MODULE);
  return {
    dir: TOOLS_DIR,
    module: MODULE,
    version,
    commands: { runsc: `${MODULE}/runsc`, "containerd-shim-runsc-v1": `${MODULE}/shim` },
    ldflags: `-s -w -X ${MODULE}/runsc/version.version=${version}`,
    // The shim gives up if it can't lower its score, for which a process needs CAP_SYS_RESOURCE.
    patch: { file: "pkg/shim/v1/manager.go", find: "oomScoreMax = -999", replace: "oomScoreMax = 0" },
    release: () => [],
  };
}

/**
 * Returns the folder with gVisor's programs, from the cache or built.
 * @throws MissingToolError
 */
export async function findGvisor(options: BuildOptions = {}): Promise<string> {
  const { dir } = await ensureBinaries(
    {
      title: "gVisor",
      binaries: GVISOR_BINARIES,
      modules: [await gvisorModule()],
      root: join(cacheRoot(options.env), "gvisor"),
      minutes: 3,
    },
    options,
  );
  return dir;
}
