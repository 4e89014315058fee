import { readFile } from "node:fs/promises";
import { join } from "node:path";
import {
  KUBERNETES,
  kubernetesRelease,
  kubernetesVersionFlags,
  type ReleaseFile,
  requiredVersion,
  type ToolModule,
} from "../cluster/versions.ts";

/** The Go modules of a node's programs. Their go.mod files are the only place that states a version. */
const TOOLS_DIR = join(import.meta.dirname, "tools");

const KUBERNETES_BINARIES = ["kubelet", "kube-proxy"] as const;
const CONTAINERD_BINARIES = ["containerd", "containerd-shim-runc-v2", "ctr"] as const;
/**
 * The names of the node binaries that are downloaded or built. runc and the CNI plug-ins come from Debian (see
 * requirements.ts).
 */
export const NODE_BINARIES = [...KUBERNETES_BINARIES, ...CONTAINERD_BINARIES] as const;

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
      commands: commandsOf(CONTAINERD, CONTAINERD_BINARIES),
      ldflags: `-s -w -X ${CONTAINERD}/version.Version=${containerdVersion}`,
      tags: CONTAINERD_TAGS,
      cgo: true,
      release: (arch) => [containerdRelease(containerdVersion, arch)],
    },
    {
      dir: kubernetesDir,
      module: KUBERNETES,
      version: kubernetesVersion,
      commands: commandsOf(KUBERNETES, KUBERNETES_BINARIES),
      ldflags: `-s -w ${kubernetesVersionFlags(kubernetesVersion)}`,
      release: (arch) => kubernetesRelease(kubernetesVersion, KUBERNETES_BINARIES, arch),
    },
  ];
}

/** The static archive, because the other one needs the C library of a newer system than some that run tests. */
function containerdRelease(version: string, arch: string): ReleaseFile {
  const name = `containerd-static-${version.replace(/^v/, "")}-linux-${arch}.tar.gz`;
  const address = `github.com/containerd/containerd/releases/download/${version}/${name}`;
  return { address, checksums: `${address}.sha256sum`, members: CONTAINERD_BINARIES.map((binary) => `bin/${binary}`) };
}

function commandsOf(module: string, names: readonly string[]): Record<string, string> {
  return Object.fromEntries(names.map((name) => [name, `${module}/cmd/${name}`]));
}
