import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { CNI_PLUGINS } from "./requirements.ts";

/** The node's own address, on a bridge without other interfaces, because not every kernel has dummy devices. */
export const NODE_ADDRESS = "192.0.2.1";
const NODE_BRIDGE = "node0";
export const POD_CIDR = "10.244.0.0/24";
export { CNI_PLUGINS };

/** Commands that give a new network namespace an address and a default route. */
export const NETWORK_COMMANDS: readonly (readonly [string, ...string[]])[] = [
  ["ip", "link", "set", "lo", "up"],
  ["ip", "link", "add", NODE_BRIDGE, "type", "bridge"],
  ["ip", "addr", "add", `${NODE_ADDRESS}/24`, "dev", NODE_BRIDGE],
  ["ip", "link", "set", NODE_BRIDGE, "up"],
  // The kubelet uses the address of the default route as the node's. Nothing is ever sent over the route.
  ["ip", "route", "add", "default", "via", "192.0.2.254", "dev", NODE_BRIDGE],
];

/** Kernel settings of this namespace that kube-proxy and the bridge plug-in need. */
export const NETWORK_SETTINGS: Readonly<Record<string, string>> = {
  "/proc/sys/net/ipv4/ip_forward": "1",
  "/proc/sys/net/ipv4/conf/all/route_localnet": "1",
};

/** Configures one network for Pods, on a bridge, with addresses that this machine assigns. */
export async function writeCniConfig(dir: string): Promise<void> {
  await mkdir(dir, { recursive: true });
  const network = {
    cniVersion: "1.0.0",
    name: "pods",
    plugins: [
      {
        type: "bridge",
        bridge: "pods0",
        isGateway: true,
        ipMasq: true,
        hairpinMode: true,
        ipam: { type: "host-local", ranges: [[{ subnet: POD_CIDR }]], routes: [{ dst: "0.0.0.0/0" }] },
      },
      { type: "portmap", capabilities: { portMappings: true } },
    ],
  };
  await writeFile(join(dir, "10-pods.conflist"), JSON.stringify(network));
}
