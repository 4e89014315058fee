import { Command, CommanderError, Option } from "commander";
import type { ClusterDns } from "../api/cluster-dns.ts";
import { type PodPolicy, policyOf } from "../api/pod-policy.ts";
import { ConfigError } from "../core/errors.ts";
import type { KubeEnvironment } from "../kube/config.ts";
import type { LogLevel } from "../observe/logger.ts";
import type { AllowedOrigins } from "./allowed-origins.ts";
import {
  type EnvironmentVariables,
  environmentVariable,
  kubeEnvironment,
  type ProxySettings,
  proxySettings,
  unknownVariables,
} from "./environment-variables.ts";
import { addFlags, FLAGS, type Flag } from "./flags.ts";

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
  /** Bound of one request of the claim protocol, in milliseconds. */
  readonly protocolTimeoutMs: number;
  /** Networks of the default Work API, for the NetworkPolicies of Environments. */
  readonly apiCidrs: readonly string[];
  /** Where the cluster's DNS answers, for the NetworkPolicies of Environments. */
  readonly clusterDns: ClusterDns;
  /** How connections leave this machine, from HTTPS_PROXY, HTTP_PROXY and NO_PROXY. */
  readonly proxy: ProxySettings;
}

/** The variables of this process: the one place that reads them. */
export function processEnvironment(): EnvironmentVariables {
  return process.env;
}

/**
 * Settings from the command's flags first, then the environment, then the defaults.
 * @throws ConfigError that names everything wrong, a line each.
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
    protocolTimeout: read(FLAGS.protocolTimeout),
    apiCidrs: read(FLAGS.apiCidrs),
    clusterDnsPods: read(FLAGS.clusterDnsPods),
    clusterDnsCidrs: read(FLAGS.clusterDnsCidrs),
  };
  const { leaderElect, shards, metricsBindAddress, healthProbeBindAddress, logLevel } = values;
  const { webhookBindAddress, consoleBindAddress, protocolTimeout } = values;
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
    protocolTimeout === undefined ||
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
    protocolTimeoutMs: protocolTimeout,
    apiCidrs: values.apiCidrs ?? [],
    clusterDns: { pods: values.clusterDnsPods ?? [], cidrs: values.clusterDnsCidrs },
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
