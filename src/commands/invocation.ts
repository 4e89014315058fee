import { type Command, Option } from "commander";
import { type Clock, realClock } from "../core/clock.ts";
import type { OperatorSettings } from "../doctor/operators.ts";
import { KubeClient } from "../kube/client.ts";
import { loadKubeConfig } from "../kube/config.ts";
import type { Logger } from "../observe/logger.ts";
import type { CliStreams } from "../observe/terminal.ts";
import type { Settings } from "../settings/config.ts";
import type { EnvironmentVariables, ProxySettings } from "../settings/environment-variables.ts";
import { addFlags, FLAGS } from "../settings/flags.ts";
import { berthVersion } from "../settings/version.ts";

/** The namespace of the operator in docs/install.md. */
export const DEFAULT_OPERATOR_NAMESPACE = "berth-system";

/** The inputs and outputs of a command. */
export interface Invocation {
  readonly env: EnvironmentVariables;
  readonly streams: CliStreams;
  /** Sets the exit code of the process; 0 by default. */
  exit(code: number): void;
}

/** Replacements for tests. */
export interface CommandSeams {
  readonly clock?: Clock;
  readonly logger?: Logger;
}

/** The settings that locate the cluster. */
export type ClusterSettings = Pick<Settings, "kubeconfig" | "kubeEnvironment"> &
  Partial<Pick<Settings, "context">> & { readonly proxy: ProxySettings };

/** Adds `--kubeconfig` and `--context`. */
export function addKubeconfig(command: Command): Command {
  const { name, value, defaultText } = FLAGS.kubeconfig;
  command.option(`--${name} ${value}`, `Kubeconfig file of the cluster (default: ${defaultText}).`);
  return addFlags(command, [FLAGS.context]);
}

/** The output formats of commands that report; the first is for people. */
export const REPORT_FORMATS = ["text", "json"] as const;
export type ReportFormat = (typeof REPORT_FORMATS)[number];

/**
 * Adds `-o`.
 * @param formats the first is the default
 */
export function addOutput(command: Command, formats: readonly [string, ...string[]]): Command {
  return command.addOption(
    new Option("-o, --output <format>", `Output format: ${formats.join(" or ")}.`)
      .choices([...formats])
      .default(formats[0]),
  );
}

/** Indented JSON with a final line break. */
export function jsonText(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

/** A cluster that a command works with, until it is disposed. */
export interface Cluster extends AsyncDisposable {
  readonly kube: KubeClient;
  readonly server: string;
  /** The namespace of the kubeconfig's context. */
  readonly namespace: string;
}

/**
 * Creates a client for the cluster of a kubeconfig; sends nothing yet.
 * @param command appears in the API server's audit log
 * @throws ConfigError
 */
export function connect(
  { kubeconfig, context, kubeEnvironment, proxy }: ClusterSettings,
  command: string,
  clock: Clock = realClock,
): Cluster {
  const access = loadKubeConfig(kubeconfig, kubeEnvironment, { context });
  const kube = new KubeClient({ access, clock, proxy, userAgent: `berth-${command}/${berthVersion()}` });
  return {
    kube,
    server: access.server,
    namespace: access.currentNamespace,
    [Symbol.asyncDispose]: () => kube.close(),
  };
}

/** The settings of an operator that commands use. */
export function operatorSettings(settings: Settings): OperatorSettings {
  const { allowedApiOrigins, leaderElection } = settings;
  return {
    namespaces: settings.namespaces,
    podPolicy: settings.podPolicy,
    runtimeClasses: settings.runtimeClasses,
    apiCidrs: settings.apiCidrs,
    clusterDns: settings.clusterDns,
    originAllowed: (baseUrl) => allowedApiOrigins.includes(baseUrl),
    leases: {
      elected: leaderElection.enabled,
      namespace: leaderElection.namespace,
      shards: leaderElection.shards,
    },
  };
}
