import { Command, CommanderError, Option } from "commander";
import type { ClusterDns } from "../api/cluster-dns.ts";
import { DEFAULT_RUNTIME_CLASSES, type RuntimeClasses } from "../api/isolation.ts";
import { REMOVED_NAMES } from "../api/removed-names.ts";
import { ConfigError } from "../core/errors.ts";
import type { KubeEnvironment } from "../kube/config.ts";
import type { LogLevel } from "../observe/logger.ts";
import { allowancesFor, type PodPolicy, policyOf } from "../policy/pod-policy.ts";
import {
  type EnvironmentVariables,
  environmentVariable,
  kubeEnvironment,
  type ProxySettings,
  proxySettings,
  unknownVariables,
} from "./environment-variables.ts";
import { addFlags, FLAGS, type Flag } from "./flags.ts";

/** The parsed and validated settings of `berth run`. */
export interface Settings {
  /** Path of a kubeconfig file; undefined: KUBECONFIG, then the Pod's service account, then ~/.kube/config. */
  readonly kubeconfig: string | undefined;
  /** Context of the kubeconfig; undefined: its current one. */
  readonly context: string | undefined;
  /** The environment variables that locate the cluster, unchanged. */
  readonly kubeEnvironment: KubeEnvironment;
  /** The namespaces to serve; empty means all. */
  readonly namespaces: readonly string[];
  readonly leaderElection: {
    readonly enabled: boolean;
    /** Namespace of the Leases; undefined: the namespace of the kubeconfig's context or of the service account. */
    readonly namespace: string | undefined;
    /**
     * The number of parts that the replicas divide the Environments into, with a Lease each; 1 is plain leader
     * election.
     */
    readonly shards: number;
  };
  /** In the form that parseBindAddress reads; "0" is off. */
  readonly metricsBindAddress: string;
  /** In the form that parseBindAddress reads; "0" is off. */
  readonly healthProbeBindAddress: string;
  readonly webhook: {
    /** In the form that parseBindAddress reads; "0" is off. */
    readonly bindAddress: string;
    /** The folder of the signing secrets; always set if the receiver is on. */
    readonly secrets: string | undefined;
    /** The address that resolves to every replica's receiver; undefined: deliveries are not forwarded. */
    readonly peers: { readonly host: string; readonly port: number } | undefined;
  };
  /** In the form that parseBindAddress reads; "0" is off. */
  readonly consoleBindAddress: string;
  readonly logLevel: LogLevel;
  readonly allowedApiOrigins: readonly string[];
  /** What Pod templates may use beyond the default policy. */
  readonly podPolicy: PodPolicy;
  /** The RuntimeClass for each value of `isolation`; the policy allows them. */
  readonly runtimeClasses: RuntimeClasses;
  /** Networks of the default Work API, for the NetworkPolicies of Environments. */
  readonly apiCidrs: readonly string[];
  /** Addresses of the cluster's DNS, for the NetworkPolicies of Environments. */
  readonly clusterDns: ClusterDns;
  /** The proxies for outgoing connections, from HTTPS_PROXY, HTTP_PROXY and NO_PROXY. */
  readonly proxy: ProxySettings;
}

/** The environment variables of this process. Nothing else reads them. */
export function processEnvironment(): EnvironmentVariables {
  return process.env;
}

/**
 * Reads each setting from the command's flags, else the environment, else the defaults.
 * @throws ConfigError that lists every problem, one per line.
 */
export function settingsFrom(command: Command, env: EnvironmentVariables): Settings {
  const problems = unknownVariables(
    env,
    Object.values(FLAGS).map(({ name }) => name),
  );
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
    context: read(FLAGS.context),
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
    runtimeClasses: read(FLAGS.runtimeClasses),
    apiCidrs: read(FLAGS.apiCidrs),
    clusterDnsPods: read(FLAGS.clusterDnsPods),
    clusterDnsCidrs: read(FLAGS.clusterDnsCidrs),
  };
  const { leaderElect, shards, metricsBindAddress, healthProbeBindAddress, logLevel } = values;
  const { webhookBindAddress, consoleBindAddress } = values;
  if (leaderElect === false && shards !== undefined && shards > 1) {
    problems.push("--shards: more than 1 needs leader election; remove --leader-elect=false");
  }
  const receives = webhookBindAddress !== undefined && webhookBindAddress !== "0";
  if (receives && values.webhookSecrets === undefined) {
    problems.push("--webhook-bind-address: deliveries cannot be verified without --webhook-secrets; set its folder");
  }
  if (!receives && values.webhookPeers !== undefined) {
    problems.push("--webhook-peers: nothing is received without --webhook-bind-address; set that too");
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
  const runtimeClasses = Object.assign({ ...DEFAULT_RUNTIME_CLASSES }, ...(values.runtimeClasses ?? []));
  return {
    kubeconfig: values.kubeconfig,
    context: values.context,
    kubeEnvironment: kubeEnvironment(env),
    namespaces: values.namespaces ?? [],
    leaderElection: { enabled: leaderElect, namespace: values.leaderElectNamespace, shards },
    metricsBindAddress,
    healthProbeBindAddress,
    webhook: { bindAddress: webhookBindAddress, secrets: values.webhookSecrets, peers: values.webhookPeers },
    consoleBindAddress,
    logLevel,
    allowedApiOrigins: values.allowedApiOrigins ?? [],
    podPolicy: policyOf([...allowancesFor(runtimeClasses), ...(values.allowedInTemplates ?? [])]),
    runtimeClasses,
    apiCidrs: values.apiCidrs ?? [],
    clusterDns: { pods: values.clusterDnsPods ?? [], cidrs: values.clusterDnsCidrs },
    proxy: proxySettings(env),
  };
}

/**
 * The settings of `berth run` from its arguments (after the word `run`) and environment variables.
 * @throws ConfigError if one is unknown or invalid.
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

/** Turns Commander's error about a command line into a ConfigError; returns any other error unchanged. */
export function configErrorOf(error: unknown): unknown {
  if (!(error instanceof CommanderError)) return error;
  const [, flag, command] = /unknown option '(--[\w-]+)|unknown command '([\w-]+)/.exec(error.message) ?? [];
  const name = flag ?? `berth ${command}`;
  const removed = REMOVED_NAMES[name];
  const message = error.message.replace(/^error: /, "").replaceAll("\n", " ");
  return new ConfigError(removed === undefined ? message : `${name}: ${removed}`, { cause: error });
}

/** Whether the command line or the environment sets one of these flags. */
export function givesAny(command: Command, env: EnvironmentVariables, flags: readonly Flag<unknown>[]): boolean {
  return flags.some((flag) => rawValue(command, env, flag).isGiven);
}

/** The raw value of a flag, and its source for error messages: the flag or the environment variable. */
function rawValue(command: Command, env: EnvironmentVariables, spec: Flag<unknown>) {
  const given: unknown = command.opts()[new Option(`--${spec.name}`).attributeName()];
  const source = `--${spec.name}`;
  // `--no-leader-elect` makes commander's default `true`, so only a value from the command line counts as given.
  const isGiven = command.getOptionValueSource(new Option(`--${spec.name}`).attributeName()) === "cli";
  if (isGiven) return { text: String(given), source, isGiven };
  const variable = environmentVariable(spec.name);
  // An empty variable counts as unset, because charts and shells often set empty ones.
  const text = env[variable];
  return text ? { text, source: variable, isGiven: true } : { text: spec.default, source, isGiven };
}

function issueText(message: string, text: string): string {
  return message.includes(`"${text}"`) ? message : `"${text}": ${message}`;
}
