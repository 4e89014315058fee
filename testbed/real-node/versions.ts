import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { KUBERNETES, kubernetesVersionFlags, requiredVersion, type ToolModule } from "../cluster/versions.ts";

/** The Go modules of a node's programs. Their go.mod files are the only place that states a version. */
const TOOLS_DIR = join(import.meta.dirname, "tools");

/** The names of the node binaries that are built. runc and the CNI plug-ins come from Debian (see requirements.ts). */
export const NODE_BINARIES = ["kubelet", "kube-proxy", "containerd", "containerd-shim-runc-v2", "ctr"] as const;

const CONTAINERD = "github.com/containerd/containerd/v2";
/** Snapshotters that no test-bed uses, and that would need their C libraries. */
const CONTAINERD_TAGS = "no_btrfs no_devmapper no_zfs";

/** Returns the modules to build, the small one first. */
export async function nodeModules(): Promise<ToolModule[]> {
  const [containerdDir, kubernetesDir] = [join(TOOLS_DIR, "containerd"), join(TOOLS_DIR, "kubernetes")];
  const containerdVersion = requiredVersion(await readFile(join(containerdDir, "go.mod"), "utf8"), CONTAINERD);
  const kubernetesVersion = requiredVersion(await readFile(join(kubernetesDir, "go.mod"), "utf8"), KUBERNETES);
  return [
    {
      dir: containerdDir,
      module: CONTAINERD,
      version: containerdVersion,
      commands: commandsOf(CONTAINERD, ["containerd", "containerd-shim-runc-v2", "ctr"]),
      ldflags: `-s -w -X ${CONTAINERD}/version.Version=${containerdVersion}`,
      tags: CONTAINERD_TAGS,
      cgo: true,
    },
    {
      dir: kubernetesDir,
      module: KUBERNETES,
      version: kubernetesVersion,
      commands: commandsOf(KUBERNETES, ["kubelet", "kube-proxy"]),
      ldflags: `-s -w ${kubernetesVersionFlags(kubernetesVersion)}`,
    },
  ];
}

function commandsOf(module: string, names: readonly string[]): Record<string, string> {
  return Object.fromEntries(names.map((name) => [name, `${module}/cmd/${name}`]));
}
