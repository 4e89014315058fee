import { isIP } from "node:net";
import { DNS_PORT, type DnsPods } from "../api/cluster-dns.ts";
import type { Environment } from "../api/environment.ts";
import { API_VERSION, KIND, LABEL_ENVIRONMENT, LABEL_ROLE, OWN_LABELS, toLabelValue } from "../api/names.ts";
import { DEFAULT_BASE_URL } from "../api/network-spec.ts";
import type { OwnedMetadata } from "../kube/owned-object.ts";
import type { NetworkPolicy } from "../kube/resource.ts";

/** What the operator's settings say about networks. */
export interface NetworkFacts {
  /** The published networks of the default Work API. */
  readonly apiCidrs: readonly string[];
  /** The namespace of the operator's own Pods. */
  readonly operatorNamespace: string;
  /** Where the cluster's DNS answers: its Pods, and addresses that belong to no Pod. */
  readonly dns: { readonly pods: readonly DnsPods[]; readonly cidrs: readonly string[] };
}

type Rule = Record<string, unknown>;

/** A label that the API server sets on every Namespace. */
const NAMESPACE_NAME = "kubernetes.io/metadata.name";

const HTTPS: Rule[] = [{ protocol: "TCP", port: 443 }];

/** The default address of NodeLocal DNSCache. */
const NODE_LOCAL_DNS = "169.254.20.10/32";

const LOOPBACK = /^(127\.|::1$)/;

const dnsPorts = (port: number): Rule[] => [
  { protocol: "UDP", port },
  { protocol: "TCP", port },
];

/**
 * The addresses of the cluster's DNS if the settings name none. Most network plugins apply policies to the Pods behind
 * a Service, but some apply them to the Service's address. A DNS cache on the node answers at that address or at its
 * own.
 * @param nameServers those of the operator's Pod, which sandboxes use too
 */
export function defaultDnsCidrs(nameServers: readonly string[]): string[] {
  const own = nameServers.filter((address) => !LOOPBACK.test(address)).flatMap(singleAddress);
  return [...new Set([NODE_LOCAL_DNS, ...own])];
}

/** The NetworkPolicy that the Environment's spec wants now; null: none. */
export function renderNetworkPolicy(environment: Environment, facts: NetworkFacts): NetworkPolicy | null {
  const { metadata, spec } = environment;
  if (spec.network.policy === "None") return null;
  return {
    apiVersion: "networking.k8s.io/v1",
    kind: "NetworkPolicy",
    metadata: policyMetadata(environment),
    spec: {
      podSelector: { matchLabels: { [LABEL_ENVIRONMENT]: toLabelValue(metadata.name) } },
      policyTypes: ["Ingress", "Egress"],
      ingress: spec.workers ? [fromOperator(facts)] : [],
      egress: [...dnsRules(environment, facts), ...apiRules(environment, facts), ...ownRules(environment)],
    },
  };
}

/** Where the NetworkPolicy of an Environment is, and whose. */
export function policyMetadata({ metadata: { name, namespace, uid } }: Environment): OwnedMetadata {
  return {
    name: policyName(name),
    namespace,
    labels: { ...OWN_LABELS, [LABEL_ENVIRONMENT]: toLabelValue(name) },
    ownerReferences: [{ apiVersion: API_VERSION, kind: KIND, name, uid, controller: true }],
  };
}

/** The name of the NetworkPolicy of an Environment. */
export function policyName(environmentName: string): string {
  return `berth-${environmentName}`;
}

/**
 * Admits the busy probes on any TCP port: the port of an earlier template may differ, and a worker that can't be probed
 * counts as busy forever.
 */
function fromOperator({ operatorNamespace }: NetworkFacts): Rule {
  return {
    from: [
      {
        namespaceSelector: { matchLabels: { [NAMESPACE_NAME]: operatorNamespace } },
        podSelector: { matchLabels: { [LABEL_ROLE]: "operator" } },
      },
    ],
    ports: [{ protocol: "TCP" }],
  };
}

function dnsRules({ spec }: Environment, { dns }: NetworkFacts): Rule[] {
  const addresses = [...new Set([...dns.cidrs, ...nameServersOf(spec)])].map(ipBlock);
  const byPort = Map.groupBy(dns.pods, ({ port }) => port);
  const ports = new Set([DNS_PORT, ...byPort.keys()]);
  return [...ports].flatMap((port) => {
    const to = [...(byPort.get(port) ?? []).map(podsOf), ...(port === DNS_PORT ? addresses : [])];
    return to.length === 0 ? [] : [{ to, ports: dnsPorts(port) }];
  });
}

function podsOf({ namespace, label, value }: DnsPods): Rule {
  return {
    namespaceSelector: { matchLabels: { [NAMESPACE_NAME]: namespace } },
    podSelector: { matchLabels: { [label]: value } },
  };
}

function apiRules({ spec }: Environment, { apiCidrs }: NetworkFacts): Rule[] {
  if (spec.api.baseUrl !== DEFAULT_BASE_URL || apiCidrs.length === 0) return [];
  return [{ to: apiCidrs.map(ipBlock), ports: HTTPS }];
}

/** Omits an empty rule, as above: a rule without destinations allows all egress. */
function ownRules({ spec }: Environment): Rule[] {
  const { cidrs = [], pods = [] } = spec.network.egress;
  const to = [...cidrs.map(ipBlock), ...pods.map(withoutEmptyParts)];
  return to.length === 0 ? [] : [{ to }];
}

/** The API server keeps an empty selector, and omits the empty parts of any other. */
function withoutEmptyParts(peer: Rule): Rule {
  return Object.fromEntries(Object.entries(peer).map(([name, selector]) => [name, withoutEmptyDeep(selector)]));
}

function withoutEmptyDeep(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutEmptyDeep);
  if (typeof value !== "object" || value === null) return value;
  const parts = Object.entries(value).map(([name, part]) => [name, withoutEmptyDeep(part)] as const);
  return Object.fromEntries(parts.filter(([, part]) => typeof part !== "object" || Object.keys(part ?? {}).length > 0));
}

function ipBlock(cidr: string): Rule {
  return { ipBlock: { cidr } };
}

/** Name servers that the template adds. */
function nameServersOf({ sessions, workers }: Environment["spec"]): string[] {
  const dns = (sessions ?? workers)?.template.spec["dnsConfig"] as { nameservers?: unknown } | null | undefined;
  const servers = Array.isArray(dns?.nameservers) ? dns.nameservers.map(String) : [];
  return servers.flatMap(singleAddress);
}

/** The CIDR of one address; none if it is not an address or is bound to one interface. */
function singleAddress(address: string): string[] {
  if (isIP(address) === 0 || address.includes("%")) return [];
  return [`${address}/${isIP(address) === 4 ? 32 : 128}`];
}
