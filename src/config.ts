import { Command, CommanderError, Option } from "commander";
import * as z from "zod";
import { CIDR_PATTERN } from "./api/network-spec.ts";
import { type Allowance, POLICY_FLAG, type PodPolicy, parseAllowance, policyOf } from "./api/pod-policy.ts";
import { ConfigError } from "./core/errors.ts";
import type { KubeEnvironment } from "./kube/config.ts";
import { parseBindAddress } from "./observe/bind-address.ts";
import { LOG_LEVELS, type LogLevel } from "./observe/logger.ts";
import { isInnerHost } from "./work/inner-addresses.ts";

/** What `berth run` was started with, parsed and checked. */
export interface Settings {
  /** Path of a kubeconfig file; undefined: KUBECONFIG, then the Pod's service account, then ~/.kube/config. */
  readonly kubeconfig: string | undefined;
  /** The variables that say where the cluster is, as they were. */
  readonly kubeEnvironment: KubeEnvironment;
  /** Namespaces to serve; empty means all of them. */
  readonly namespaces: readonly string[];
  readonly leaderElection: {
    readonly enabled: boolean;
    /** Namespace of the Leases; undefined: the namespace of the kubeconfig's context or of the service account. */
    readonly namespace: string | undefined;
    /** Into how many parts the replicas divide the Environments, a Lease each; 1 is plain leader election. */
    readonly shards: number;
  };
  /** As parseBindAddress reads it; "0" is off. */
  readonly metricsBindAddress: string;
  /** As parseBindAddress reads it; "0" is off. */
  readonly healthProbeBindAddress: string;
  readonly webhook: {
    /** As parseBindAddress reads it; "0" is off. */
    readonly bindAddress: string;
    /** The folder of the signing secrets; there is one where the receiver is on. */
    readonly secrets: string | undefined;
    /** Where all replicas take deliveries; undefined: they are passed on to nobody. */
    readonly peers: { readonly host: string; readonly port: number } | undefined;
  };
  /** As parseBindAddress reads it; "0" is off. */
  readonly consoleBindAddress: string;
  readonly logLevel: LogLevel;
  readonly allowedApiOrigins: AllowedOrigins;
  /** What Pod templates may have beyond what every template may. */
  readonly podPolicy: PodPolicy;
  /** Networks of the default Work API, for the NetworkPolicies of Environments. */
  readonly apiCidrs: readonly string[];
  /** How connections leave this machine, from HTTPS_PROXY, HTTP_PROXY and NO_PROXY. */
  readonly proxy: ProxySettings;
}

/** Which Work APIs an Environment may name in spec.api.baseUrl: any with https and a public address, or exactly these origins. */
export type AllowedOrigins = "any-https" | readonly string[];

/** Unset where the variable is unset or empty. */
export interface ProxySettings {
  readonly httpProxy?: string;
  readonly httpsProxy?: string;
  /** Hosts that are reached without a proxy, as NO_PROXY lists them. */
  readonly noProxy?: string;
}

/** Environment variables by name. */
export type EnvironmentVariables = Readonly<Record<string, string | undefined>>;

/** The variables of this process: the one place that reads them. */
export function processEnvironment(): EnvironmentVariables {
  return process.env;
}

/** True when an Environment may use the Work API at `baseUrl`. A key must not be sent to a host nobody allowed. */
export function originAllowed(allowed: AllowedOrigins, baseUrl: string): boolean {
  const url = URL.parse(baseUrl);
  if (url === null) return false;
  return allowed === "any-https"
    ? url.protocol === "https:" && !isInnerHost(url.hostname)
    : allowed.includes(url.origin);
}

/**
 * True when the Work API at `origin` may be at an inner address: somebody wrote it down. Whoever may write Environments
 * could have the operator ask around in its own network otherwise, and a name's owner by what it resolves to.
 */
export function mayBeInner(allowed: AllowedOrigins, origin: string): boolean {
  return allowed !== "any-https" && allowed.includes(origin);
}

/** The prefix of Berth's own environment variables. */
const ENV_PREFIX = "BERTH_";

/** DNS label (RFC 1123), as namespaces are named. */
const namespaceSchema = z
  .string()
  .regex(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/, "a namespace is lower-case letters, digits and dashes, at most 63");

const bindAddressSchema = z.string().superRefine((text, context) => {
  try {
    parseBindAddress(text);
  } catch (error) {
    context.addIssue({ code: "custom", message: error instanceof Error ? error.message : String(error) });
  }
});

const hostPortSchema = z.string().transform((text, context) => {
  const url = URL.parse(`http://${text}`);
  const [, port] = /:(\d+)$/.exec(text) ?? [];
  // The parser leaves out the port that is http's own.
  if (url !== null && port !== undefined && url.href === new URL(`http://${url.host}`).href) {
    return { host: url.hostname.replaceAll(/[[\]]/g, ""), port: Number(port) };
  }
  context.addIssue({ code: "custom", message: `"${text}" is no host:port, such as berth-peers.berth-system.svc:8082` });
  return z.NEVER;
});

const originSchema = z.string().transform((text, context) => {
  const url = URL.parse(text);
  const isOrigin = url !== null && /^https?:$/.test(url.protocol) && url.href === `${url.origin}/`;
  if (isOrigin) return url.origin;
  context.addIssue({
    code: "custom",
    message: `"${text}" is no origin; write scheme, host and port only, such as https://api.anthropic.com`,
  });
  return z.NEVER;
});

const cidrSchema = z
  .string()
  .regex(new RegExp(CIDR_PATTERN), "write networks, such as 160.79.104.0/23 or 2607:6bc0::/48");

const allowanceSchema = z.string().transform((text, context): Allowance => {
  try {
    return parseAllowance(text);
  } catch (error) {
    const message = `"${text}": ${error instanceof Error ? error.message : String(error)}`;
    context.addIssue({ code: "custom", message });
    return z.NEVER;
  }
});

/** Each shard is a Lease that is renewed 15 times a minute: more of them than there are ever replicas help nobody. */
const MAX_SHARDS = 64;

const shardsSchema = z
  .string()
  .regex(/^\d{1,2}$/, `write a whole number from 1 to ${MAX_SHARDS}`)
  .transform(Number)
  .refine((count) => count >= 1 && count <= MAX_SHARDS, `write a whole number from 1 to ${MAX_SHARDS}`);

const booleanSchema = z.enum(["true", "false"], "write true or false").transform((text) => text === "true");

/** Splits "a, b,c"; empty parts are dropped, doubles too. */
function listOf<T>(item: z.ZodType<T, string>) {
  return z
    .string()
    .transform((text) => [...new Set(text.split(",").map((part) => part.trim()))].filter((part) => part !== ""))
    .pipe(z.array(item).min(1, "the list is empty"));
}

interface Flag<T> {
  /** Without the dashes. */
  readonly name: string;
  /** What stands for the value in the usage line. */
  readonly value: string;
  /** For --help and docs/flags.md. */
  readonly about: string;
  /** As it would be written; undefined: not set. */
  readonly default?: string;
  /** In words, where there is no fixed default. */
  readonly defaultText?: string;
  readonly repeatable?: boolean;
  /** The flag alone means true, and --no-<name> exists. */
  readonly boolean?: boolean;
  readonly schema: z.ZodType<T, string>;
}

const flag = <T>(spec: Flag<T>): Flag<T> => spec;

/** Every flag of `berth run`. docs/flags.md is checked against this list. */
export const FLAGS = {
  kubeconfig: flag({
    name: "kubeconfig",
    value: "<path>",
    about: "Kubeconfig file of the cluster to serve.",
    defaultText: "KUBECONFIG, then the Pod's service account, then ~/.kube/config",
    schema: z.string().min(1, "name a file"),
  }),
  namespaces: flag({
    name: "namespace",
    value: "<name>",
    about: "Namespace whose Environments are served; repeat it, or separate names with commas.",
    defaultText: "all namespaces",
    repeatable: true,
    schema: listOf(namespaceSchema),
  }),
  leaderElect: flag({
    name: "leader-elect",
    value: "[true|false]",
    about: "Act only while holding a Lease, so that no two replicas act for one Environment.",
    default: "true",
    boolean: true,
    schema: booleanSchema,
  }),
  leaderElectNamespace: flag({
    name: "leader-elect-namespace",
    value: "<name>",
    about: "Namespace of the Leases.",
    defaultText: "the namespace Berth runs in, or the one of the kubeconfig's context",
    schema: namespaceSchema,
  }),
  shards: flag({
    name: "shards",
    value: "<count>",
    about: "Into how many parts the replicas divide the Environments, a Lease each; the same for all of them.",
    default: "1",
    schema: shardsSchema,
  }),
  metricsBindAddress: flag({
    name: "metrics-bind-address",
    value: "<address>",
    about: "Where GET /metrics answers; 0 switches it off.",
    default: ":8080",
    schema: bindAddressSchema,
  }),
  healthProbeBindAddress: flag({
    name: "health-probe-bind-address",
    value: "<address>",
    about: "Where GET /healthz and /readyz answer; 0 switches it off.",
    default: ":8081",
    schema: bindAddressSchema,
  }),
  webhookBindAddress: flag({
    name: "webhook-bind-address",
    value: "<address>",
    about: "Where POST /webhook takes the platform's signed deliveries; 0 switches it off.",
    default: "0",
    schema: bindAddressSchema,
  }),
  webhookSecrets: flag({
    name: "webhook-secrets",
    value: "<folder>",
    about:
      "Folder with the signing secrets of webhook endpoints (whsec_...), one in each file; it is read anew as it changes.",
    defaultText: "not set",
    schema: z.string().min(1, "name a folder"),
  }),
  webhookPeers: flag({
    name: "webhook-peers",
    value: "<host:port>",
    about: "Where all replicas take webhooks, by a name that resolves to each: deliveries are passed on to them.",
    defaultText: "not set",
    schema: hostPortSchema,
  }),
  consoleBindAddress: flag({
    name: "console-bind-address",
    value: "<address>",
    about: "Where the read-only console answers, to whoever can reach the address; 0 switches it off.",
    default: "0",
    schema: bindAddressSchema,
  }),
  logLevel: flag({
    name: "log-level",
    value: `<${LOG_LEVELS.join("|")}>`,
    about: "The least severe lines that are logged (JSON, on standard error).",
    default: "info",
    schema: z.enum(LOG_LEVELS, `write one of ${LOG_LEVELS.join(", ")}`),
  }),
  allowedApiOrigins: flag({
    name: "allowed-api-origins",
    value: "<origin>",
    about:
      "Origins that spec.api.baseUrl may name; repeat it, or separate them with commas. Plain http and inner addresses work only when listed here.",
    defaultText: "any https origin at a public address",
    repeatable: true,
    schema: listOf(originSchema),
  }),
  allowedInTemplates: flag({
    name: POLICY_FLAG,
    value: "<what>",
    about:
      "What Pod templates may have beyond what every template may, such as capabilities=NET_ADMIN; repeat it, or separate them with commas.",
    defaultText: "nothing",
    repeatable: true,
    schema: listOf(allowanceSchema),
  }),
  apiCidrs: flag({
    name: "api-cidrs",
    value: "<network>",
    about:
      "Networks of https://api.anthropic.com, which NetworkPolicies let Pods reach; repeat it, or separate them with commas.",
    // https://platform.claude.com/docs/en/api/ip-addresses, "Inbound IP addresses".
    default: "160.79.104.0/23,2607:6bc0::/48",
    repeatable: true,
    schema: listOf(cidrSchema),
  }),
} as const;

const ALL_FLAGS: readonly Flag<unknown>[] = Object.values(FLAGS);

/** BERTH_LOG_LEVEL for --log-level. */
export function environmentVariable(flagName: string): string {
  return ENV_PREFIX + flagName.replaceAll("-", "_").toUpperCase();
}

/** One line that shows every flag. */
export function usageLine(): string {
  const parts = ALL_FLAGS.map(({ name, value, repeatable }) => `[--${name} ${value}]${repeatable ? "..." : ""}`);
  return `usage: berth run ${parts.join(" ")}`;
}

/** Adds flags of `berth run` to a command, all of them unless told which. Their values stay text until `settingsFrom`. */
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

/**
 * Settings from the command's flags first, then the environment, then the defaults.
 * @throws ConfigError that names everything wrong, a line each.
 */
export function settingsFrom(command: Command, env: EnvironmentVariables): Settings {
  const problems = unknownVariables(env);
  const read = <T>(spec: Flag<T>): T | undefined => {
    const { text, source } = rawValue(command, env, spec);
    if (text === undefined) return undefined;
    const result = spec.schema.safeParse(text);
    if (result.success) return result.data;
    problems.push(...result.error.issues.map((issue) => `${source}: ${issueText(issue.message, text)}`));
    return undefined;
  };
  const values = {
    kubeconfig: read(FLAGS.kubeconfig),
    namespaces: read(FLAGS.namespaces),
    leaderElect: read(FLAGS.leaderElect),
    leaderElectNamespace: read(FLAGS.leaderElectNamespace),
    shards: read(FLAGS.shards),
    metricsBindAddress: read(FLAGS.metricsBindAddress),
    healthProbeBindAddress: read(FLAGS.healthProbeBindAddress),
    webhookBindAddress: read(FLAGS.webhookBindAddress),
    webhookSecrets: read(FLAGS.webhookSecrets),
    webhookPeers: read(FLAGS.webhookPeers),
    consoleBindAddress: read(FLAGS.consoleBindAddress),
    logLevel: read(FLAGS.logLevel),
    allowedApiOrigins: read(FLAGS.allowedApiOrigins),
    allowedInTemplates: read(FLAGS.allowedInTemplates),
    apiCidrs: read(FLAGS.apiCidrs),
  };
  const { leaderElect, shards, metricsBindAddress, healthProbeBindAddress, logLevel } = values;
  const { webhookBindAddress, consoleBindAddress } = values;
  if (leaderElect === false && shards !== undefined && shards > 1) {
    problems.push("--shards: more than 1 needs leader election; leave --leader-elect=false away");
  }
  const receives = webhookBindAddress !== undefined && webhookBindAddress !== "0";
  if (receives && values.webhookSecrets === undefined) {
    problems.push("--webhook-bind-address: deliveries cannot be verified without --webhook-secrets; name the folder");
  }
  if (!receives && values.webhookPeers !== undefined) {
    problems.push("--webhook-peers: nothing is received without --webhook-bind-address; name that, too");
  }
  if (
    problems.length > 0 ||
    leaderElect === undefined ||
    shards === undefined ||
    metricsBindAddress === undefined ||
    healthProbeBindAddress === undefined ||
    webhookBindAddress === undefined ||
    consoleBindAddress === undefined ||
    logLevel === undefined
  ) {
    throw new ConfigError(problems.join("\n"));
  }
  return {
    kubeconfig: values.kubeconfig,
    kubeEnvironment: kubeEnvironment(env),
    namespaces: values.namespaces ?? [],
    leaderElection: { enabled: leaderElect, namespace: values.leaderElectNamespace, shards },
    metricsBindAddress,
    healthProbeBindAddress,
    webhook: { bindAddress: webhookBindAddress, secrets: values.webhookSecrets, peers: values.webhookPeers },
    consoleBindAddress,
    logLevel,
    allowedApiOrigins: values.allowedApiOrigins ?? "any-https",
    podPolicy: policyOf(values.allowedInTemplates ?? []),
    apiCidrs: values.apiCidrs ?? [],
    proxy: proxySettings(env),
  };
}

/**
 * Settings of `berth run` from its arguments (after the word `run`) and environment variables.
 * @throws ConfigError when one is unknown or wrong.
 */
export function parseSettings(argv: readonly string[], env: EnvironmentVariables): Settings {
  const command = addFlags(new Command("berth run"))
    .helpOption(false)
    .exitOverride()
    .configureOutput({ writeErr: () => {} });
  try {
    command.parse([...argv], { from: "user" });
  } catch (error) {
    throw configErrorOf(error);
  }
  return settingsFrom(command, env);
}

/** Commander's complaint about a command line as a ConfigError; anything else as it is. */
export function configErrorOf(error: unknown): unknown {
  if (!(error instanceof CommanderError)) return error;
  return new ConfigError(error.message.replace(/^error: /, "").replaceAll("\n", " "), { cause: error });
}

/** The text of a flag, and what to call it in an error: the flag or the variable it came from. */
function rawValue(command: Command, env: EnvironmentVariables, spec: Flag<unknown>) {
  const given: unknown = command.opts()[new Option(`--${spec.name}`).attributeName()];
  const source = `--${spec.name}`;
  // `--no-leader-elect` makes commander's default `true`: only what the command line says counts as given.
  const isGiven = command.getOptionValueSource(new Option(`--${spec.name}`).attributeName()) === "cli";
  if (isGiven) return { text: String(given), source };
  const variable = environmentVariable(spec.name);
  // An empty variable counts as unset: charts and shells leave them behind.
  const text = env[variable];
  return text ? { text, source: variable } : { text: spec.default, source };
}

function issueText(message: string, text: string): string {
  return message.includes(`"${text}"`) ? message : `"${text}": ${message}`;
}

/**
 * A Service named berth makes kubelet put these into every container of its namespace: BERTH_SERVICE_HOST,
 * BERTH_METRICS_PORT_8080_TCP_ADDR and so on. They are nobody's settings.
 */
const SERVICE_LINK = /^BERTH_(.*_)?(SERVICE_(HOST|PORT(_.+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$/;

/** A misspelled variable would otherwise be a setting that silently does nothing. */
function unknownVariables(env: EnvironmentVariables): string[] {
  const known = new Set(ALL_FLAGS.map(({ name }) => environmentVariable(name)));
  return Object.keys(env)
    .filter((name) => name.startsWith(ENV_PREFIX) && !known.has(name) && !SERVICE_LINK.test(name))
    .map((name) => `unknown environment variable ${name}; known are ${[...known].join(", ")}`);
}

/** The variables that say where the cluster is. */
export function kubeEnvironment({
  KUBECONFIG,
  KUBERNETES_SERVICE_HOST,
  KUBERNETES_SERVICE_PORT,
}: EnvironmentVariables): KubeEnvironment {
  return { KUBECONFIG, KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT };
}

/** Lower case first, as curl and undici read them. */
export function proxySettings(env: EnvironmentVariables): ProxySettings {
  const httpProxy = env.http_proxy || env.HTTP_PROXY;
  const httpsProxy = env.https_proxy || env.HTTPS_PROXY;
  const noProxy = env.no_proxy || env.NO_PROXY;
  return { ...(httpProxy && { httpProxy }), ...(httpsProxy && { httpsProxy }), ...(noProxy && { noProxy }) };
}
