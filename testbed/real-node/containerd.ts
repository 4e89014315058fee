import { GVISOR_HANDLER } from "./gvisor.ts";
import type { NodeLayout } from "./layout.ts";
import { CNI_PLUGINS } from "./requirements.ts";

/** The sandbox image of every Pod. No registry has it. */
export const PAUSE_IMAGE = "localhost/berth-pause:e2e";

/**
 * Returns containerd's configuration, in TOML version 3.
 * @param gvisor whether its programs are on containerd's PATH
 */
export function containerdConfig(layout: NodeLayout, gvisor: boolean): string {
  return `version = 3
root = "${layout.containerd}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]

[grpc]
  address = "${layout.containerdSocket}"

[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "${PAUSE_IMAGE}"

[plugins.'io.containerd.cri.v1.runtime']
  # A container of a process without CAP_SYS_RESOURCE may not lower its score: take what is allowed.
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["${CNI_PLUGINS}"]
    conf_dir = "${layout.cniConfig}"
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
${gvisor ? GVISOR : ""}`;
}

const GVISOR = `    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.${GVISOR_HANDLER}]
      runtime_type = "io.containerd.runsc.v1"
`;
