import { join } from "node:path";

/** Where one node keeps its files, all beneath a folder that goes with it. */
export interface NodeLayout {
  readonly dir: string;
  readonly logs: string;
  /** Unix socket of the node's control. */
  readonly controlSocket: string;
  /** Unix socket that leads to the API server. */
  readonly apiSocket: string;
  /** What is written below /var lands here. */
  readonly varUpper: string;
  readonly varWork: string;
  readonly containerd: string;
  readonly containerdConfig: string;
  readonly containerdSocket: string;
  readonly cniConfig: string;
  readonly kubelet: string;
  readonly kubeletConfig: string;
  readonly kubeProxyConfig: string;
  /** Logs of containers, as kubelet lays them out. */
  readonly podLogs: string;
}

export function nodeLayout(dir: string): NodeLayout {
  return {
    dir,
    logs: join(dir, "logs"),
    controlSocket: join(dir, "control.sock"),
    apiSocket: join(dir, "api.sock"),
    varUpper: join(dir, "var-upper"),
    varWork: join(dir, "var-work"),
    containerd: join(dir, "containerd"),
    containerdConfig: join(dir, "containerd.toml"),
    containerdSocket: "/run/containerd/containerd.sock",
    cniConfig: join(dir, "cni"),
    kubelet: join(dir, "kubelet"),
    kubeletConfig: join(dir, "kubelet.yaml"),
    kubeProxyConfig: join(dir, "kube-proxy.yaml"),
    podLogs: join(dir, "pod-logs"),
  };
}
