/** Pods that serve DNS: those of one namespace that have one label. */
export interface DnsPods {
  readonly namespace: string;
  readonly label: string;
  readonly value: string;
  /** The Pods' own port. NetworkPolicies match this port, not the Service's. */
  readonly port: number;
}

/** The addresses of the cluster's DNS, as configured for the operator. */
export interface ClusterDns {
  readonly pods: readonly DnsPods[];
  /** Networks outside Pods. If undefined, the operator uses the name servers of its own Pod. */
  readonly cidrs: readonly string[] | undefined;
}

export const DNS_PORT = 53;

const NAMESPACE = "[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?";
const LABEL_PREFIX = "[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?";
const LABEL_NAME = "[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?";
const PORT = "[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]";

/** `namespace/label=value` or `namespace/label=value:port`. The chart's schema has the same pattern. */
export const DNS_PODS_PATTERN = `^(${NAMESPACE})/((?:${LABEL_PREFIX}/)?${LABEL_NAME})=(${LABEL_NAME})(?::(${PORT}))?$`;

/** Returns null if the text does not match the pattern. */
export function parseDnsPods(text: string): DnsPods | null {
  const [, namespace, label, value, port] = new RegExp(DNS_PODS_PATTERN).exec(text) ?? [];
  if (namespace === undefined || label === undefined || value === undefined) return null;
  return { namespace, label, value, port: port === undefined ? DNS_PORT : Number(port) };
}
