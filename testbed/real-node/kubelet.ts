import { stringify } from "yaml";
import type { NodeLayout } from "./layout.ts";
import { NODE_ADDRESS, POD_CIDR } from "./network.ts";

/** In the range of Services' addresses; the usual place of a cluster's DNS. */
const CLUSTER_DNS = "10.0.0.10";

export interface KubeletOptions {
  readonly kubeconfig: string;
  readonly nodeName: string;
  /** Control group beneath which all of the node's Pods are, with a leading slash. */
  readonly cgroupRoot: string;
  /** Over the usual settings. */
  readonly settings?: Readonly<Record<string, unknown>>;
}

/** kubelet's configuration (kubelet.config.k8s.io/v1beta1). */
export function kubeletConfig(layout: NodeLayout, options: KubeletOptions): string {
  return stringify({
    apiVersion: "kubelet.config.k8s.io/v1beta1",
    kind: "KubeletConfiguration",
    address: "0.0.0.0",
    // Nobody outside of the node's network namespace reaches it.
    authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
    authorization: { mode: "AlwaysAllow" },
    cgroupDriver: "cgroupfs",
    cgroupRoot: options.cgroupRoot,
    failCgroupV1: false,
    failSwapOn: false,
    containerRuntimeEndpoint: `unix://${layout.containerdSocket}`,
    podCIDR: POD_CIDR,
    // Nobody answers there, and nothing here asks for names; without it, kubelet warns at every look at a Pod.
    clusterDNS: [CLUSTER_DNS],
    podLogsDir: layout.podLogs,
    maxPods: 250,
    // The machine's own disk may be full to any degree: no eviction for that.
    evictionHard: {},
    imageGCHighThresholdPercent: 100,
    kubeAPIQPS: 200,
    kubeAPIBurst: 400,
    registryPullQPS: 0,
    serializeImagePulls: false,
    // A lost node is noticed by the missing renewal: 10 s at the controller-manager of this test-bed.
    nodeStatusUpdateFrequency: "2s",
    nodeLeaseDurationSeconds: 10,
    ...options.settings,
  });
}

export function kubeletArgs(layout: NodeLayout, options: KubeletOptions): string[] {
  return [
    `--config=${layout.kubeletConfig}`,
    `--kubeconfig=${options.kubeconfig}`,
    `--root-dir=${layout.kubelet}`,
    `--hostname-override=${options.nodeName}`,
    `--node-ip=${NODE_ADDRESS}`,
    "--v=2",
  ];
}

/** kube-proxy's configuration: Services by iptables, and no setting of the kernel touched that is the machine's. */
export function kubeProxyConfig(kubeconfig: string, nodeName: string): string {
  return stringify({
    apiVersion: "kubeproxy.config.k8s.io/v1alpha1",
    kind: "KubeProxyConfiguration",
    bindAddress: NODE_ADDRESS,
    clientConnection: { kubeconfig },
    clusterCIDR: POD_CIDR,
    hostnameOverride: nodeName,
    mode: "iptables",
    conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: "0s", tcpCloseWaitTimeout: "0s" },
  });
}
