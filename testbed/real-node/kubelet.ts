import { stringify } from "yaml";
import type { NodeLayout } from "./layout.ts";
import { NODE_ADDRESS, POD_CIDR } from "./network.ts";

/** An address in the range of Services, where a cluster's DNS usually is. */
const CLUSTER_DNS = "10.0.0.10";

export interface KubeletOptions {
  readonly kubeconfig: string;
  readonly nodeName: string;
  /** The control group above all of the node's Pods, with a leading slash. */
  readonly cgroupRoot: string;
  /** Settings that override the usual ones. */
  readonly settings?: Readonly<Record<string, unknown>>;
}

/** Returns the kubelet's configuration (kubelet.config.k8s.io/v1beta1). */
export function kubeletConfig(layout: NodeLayout, options: KubeletOptions): string {
  return stringify({
    apiVersion: "kubelet.config.k8s.io/v1beta1",
    kind: "KubeletConfiguration",
    address: "0.0.0.0",
    // The kubelet is only reachable in the node's network namespace.
    authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
    authorization: { mode: "AlwaysAllow" },
    cgroupDriver: "cgroupfs",
    cgroupRoot: options.cgroupRoot,
    failCgroupV1: false,
    failSwapOn: false,
    containerRuntimeEndpoint: `unix://${layout.containerdSocket}`,
    podCIDR: POD_CIDR,
    // No DNS runs there, and nothing here resolves names. Without the setting, the kubelet warns at every look at a
    // Pod.
    clusterDNS: [CLUSTER_DNS],
    podLogsDir: layout.podLogs,
    maxPods: 250,
    // Don't evict Pods because the machine's own disk is full.
    evictionHard: {},
    imageGCHighThresholdPercent: 100,
    kubeAPIQPS: 200,
    kubeAPIBurst: 400,
    registryPullQPS: 0,
    serializeImagePulls: false,
    // The controller-manager of this test-bed detects a lost node by its missing renewals after 10 s.
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

/**
 * Returns kube-proxy's configuration: Services by iptables, without changes to kernel settings of the whole machine.
 */
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
