import { type Command, Option } from "commander";
import * as z from "zod";
import { DEFAULT_RUNTIME_CLASSES } from "../api/isolation.ts";
import { DEFAULT_BASE_URL } from "../api/network-spec.ts";
import { LOG_LEVELS } from "../observe/logger.ts";
import { POLICY_FLAG } from "../policy/pod-policy.ts";
import { environmentVariable } from "./environment-variables.ts";
import {
  allowanceSchema,
  bindAddressSchema,
  booleanSchema,
  cidrSchema,
  dnsPodsSchema,
  hostPortSchema,
  listOf,
  namespaceSchema,
  originSchema,
  runtimeClassSchema,
  shardsSchema,
} from "./flag-values.ts";

/** A flag of `berth run`, which can also be set as an environment variable. */
export interface Flag<T> {
  /** Without the dashes. */
  readonly name: string;
  /** The placeholder of the value in the usage line. */
  readonly value: string;
  /** Description for --help and docs/flags.md. */
  readonly about: string;
  /** The default as text; undefined: not set. */
  readonly default?: string;
  /** Describes the default if it is not a fixed value. */
  readonly defaultText?: string;
  readonly repeatable?: boolean;
  /** The flag without a value means true, and --no-<name> exists. */
  readonly boolean?: boolean;
  readonly schema: z.ZodType<T, string>;
}

const flag = <T>(spec: Flag<T>): Flag<T> => spec;

/** Every flag of `berth run`. A test compares docs/flags.md with this list. */
export const FLAGS = {
  kubeconfig: flag({
    name: "kubeconfig",
    value: "<path>",
    about: "Kubeconfig file of the cluster to serve.",
    defaultText: "KUBECONFIG, then the Pod's service account, then ~/.kube/config",
    schema: z.string().min(1, "write the path of a file"),
  }),
  context: flag({
    name: "context",
    value: "<name>",
    about: "Context of the kubeconfig.",
    defaultText: "the current context",
    schema: z.string().min(1, "write the name of a context"),
  }),
  namespaces: flag({
    name: "namespace",
    value: "<name>",
    about: "Namespace to serve; repeatable or comma-separated.",
    defaultText: "all namespaces",
    repeatable: true,
    schema: listOf(namespaceSchema),
  }),
  leaderElect: flag({
    name: "leader-elect",
    value: "[true|false]",
    about: "Act only while holding a Lease.",
    default: "true",
    boolean: true,
    schema: booleanSchema,
  }),
  leaderElectNamespace: flag({
    name: "leader-elect-namespace",
    value: "<name>",
    about: "Namespace of the Leases.",
    defaultText: "the operator's namespace, or that of the kubeconfig's context",
    schema: namespaceSchema,
  }),
  shards: flag({
    name: "shards",
    value: "<count>",
    about:
      "Number of parts into which the replicas divide the Environments, with one Lease each; the same for all replicas.",
    default: "1",
    schema: shardsSchema,
  }),
  metricsBindAddress: flag({
    name: "metrics-bind-address",
    value: "<address>",
    about: "Address of GET /metrics; 0 disables it.",
    default: ":8080",
    schema: bindAddressSchema,
  }),
  healthProbeBindAddress: flag({
    name: "health-probe-bind-address",
    value: "<address>",
    about: "Address of GET /healthz and /readyz; 0 disables it.",
    default: ":8081",
    schema: bindAddressSchema,
  }),
  webhookBindAddress: flag({
    name: "webhook-bind-address",
    value: "<address>",
    about: "Address of POST /webhook; 0 disables it.",
    default: "0",
    schema: bindAddressSchema,
  }),
  webhookSecrets: flag({
    name: "webhook-secrets",
    value: "<folder>",
    about: "Folder with signing secrets of webhooks (whsec_...), one per file; read again when it changes.",
    defaultText: "not set",
    schema: z.string().min(1, "write the path of a folder"),
  }),
  webhookPeers: flag({
    name: "webhook-peers",
    value: "<host:port>",
    about: "Name that resolves to all replicas, with their webhook port, to pass deliveries on.",
    defaultText: "not set",
    schema: hostPortSchema,
  }),
  consoleBindAddress: flag({
    name: "console-bind-address",
    value: "<address>",
    about: "Address of the read-only console, which has no authentication; 0 disables it.",
    default: "0",
    schema: bindAddressSchema,
  }),
  logLevel: flag({
    name: "log-level",
    value: `<${LOG_LEVELS.join("|")}>`,
    about: "Lowest level that is logged (JSON, on standard error).",
    default: "info",
    schema: z.enum(LOG_LEVELS, `write one of ${LOG_LEVELS.join(", ")}`),
  }),
  allowedApiOrigins: flag({
    name: "allowed-api-origins",
    value: "<origin>",
    about: "Origins that spec.api.baseUrl may name, in the same spelling; repeatable or comma-separated.",
    default: DEFAULT_BASE_URL,
    repeatable: true,
    schema: listOf(originSchema),
  }),
  allowedInTemplates: flag({
    name: POLICY_FLAG,
    value: "<what>",
    about: "More fields that Pod templates may set, such as capabilities=NET_ADMIN; repeatable or comma-separated.",
    defaultText: "nothing",
    repeatable: true,
    schema: listOf(allowanceSchema),
  }),
  runtimeClasses: flag({
    name: "runtime-classes",
    value: "<isolation=name>",
    about: "RuntimeClass for a value of isolation, which templates may also name; repeatable or comma-separated.",
    default: Object.entries(DEFAULT_RUNTIME_CLASSES)
      .map((entry) => entry.join("="))
      .join(","),
    repeatable: true,
    schema: listOf(runtimeClassSchema),
  }),
  apiCidrs: flag({
    name: "api-cidrs",
    value: "<network>",
    about: "Networks of https://api.anthropic.com that NetworkPolicies allow; repeatable or comma-separated.",
    // https://platform.claude.com/docs/en/api/ip-addresses, "Inbound IP addresses".
    default: "160.79.104.0/23,2607:6bc0::/48",
    repeatable: true,
    schema: listOf(cidrSchema),
  }),
  clusterDnsPods: flag({
    name: "cluster-dns-pods",
    value: "<namespace/label=value[:port]>",
    about: "DNS Pods that NetworkPolicies allow, with their port (default 53); repeatable or comma-separated.",
    default:
      "kube-system/k8s-app=kube-dns,kube-system/k8s-app=node-local-dns,openshift-dns/dns.operator.openshift.io/daemonset-dns=default:5353",
    repeatable: true,
    schema: listOf(dnsPodsSchema),
  }),
  clusterDnsCidrs: flag({
    name: "cluster-dns-cidrs",
    value: "<network>",
    about:
      "DNS outside Pods (its Service, or a cache on each node) that NetworkPolicies allow on port 53; repeatable or comma-separated.",
    defaultText: "169.254.20.10/32 and, in a Pod, the operator's own name servers",
    repeatable: true,
    schema: listOf(cidrSchema),
  }),
} as const;

const ALL_FLAGS: readonly Flag<unknown>[] = Object.values(FLAGS);

/** One line that shows every flag. */
export function usageLine(): string {
  const parts = ALL_FLAGS.map(({ name, value, repeatable }) => `[--${name} ${value}]${repeatable ? "..." : ""}`);
  return `usage: berth run ${parts.join(" ")}`;
}

/** Adds flags of `berth run` to a command, by default all. Their values stay text until `settingsFrom`. */
export function addFlags(command: Command, flags: readonly Flag<unknown>[] = ALL_FLAGS): Command {
  for (const { name, value, about, default: fallback, defaultText, repeatable, boolean } of flags) {
    const option = new Option(
      `--${name} ${value}`,
      `${about} (default: ${fallback ?? defaultText}; env: ${environmentVariable(name)})`,
    );
    if (repeatable) option.argParser((text, before) => (typeof before === "string" ? `${before},${text}` : text));
    if (boolean) option.preset("true");
    command.addOption(option);
    if (boolean) command.addOption(new Option(`--no-${name}`, `The same as --${name}=false.`));
  }
  return command;
}
