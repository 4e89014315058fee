import { join } from "node:path";

/** Where one node keeps its files. They're all below a folder that is removed with the node. */
export interface NodeLayout {
  readonly dir: string;
  readonly logs: string;
  /** The unix socket of the node's control. */
  readonly controlSocket: string;
  /** The unix socket that leads to the API server. */
  readonly apiSocket: string;
  /** Receives everything that is written below /var. */
  readonly varUpper: string;
  readonly varWork: string;
  readonly containerd: string;
  readonly containerdConfig: string;
  readonly containerdSocket: string;
  readonly cniConfig: string;
  readonly kubelet: string;
  readonly kubeletConfig: string;
  readonly kubeProxyConfig: string;
  /** The logs of containers, as the kubelet arranges them. */
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
