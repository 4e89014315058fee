import { type Command, Option } from "commander";
import { realClock } from "../core/clock.ts";
import { ConfigError } from "../core/errors.ts";
import { KubeClient } from "../kube/client.ts";
import { loadKubeConfig } from "../kube/config.ts";
import type { CliStreams } from "../observe/terminal.ts";
import type { Settings } from "../settings/config.ts";
import type { EnvironmentVariables, ProxySettings } from "../settings/environment-variables.ts";
import { FLAGS } from "../settings/flags.ts";
import { berthVersion } from "../settings/version.ts";

/** What every command is run with. */
export interface Invocation {
  readonly env: EnvironmentVariables;
  readonly streams: CliStreams;
  /** The exit code of the process once the command is over; 0 unless it is called. */
  exit(code: number): void;
}

/** The part of the settings that says where the cluster is. */
export type ClusterSettings = Pick<Settings, "kubeconfig" | "kubeEnvironment"> & { readonly proxy: ProxySettings };

/** Adds `--kubeconfig`. */
export function addKubeconfig(command: Command): Command {
  const { name, value, defaultText } = FLAGS.kubeconfig;
  return command.option(`--${name} ${value}`, `Kubeconfig file of the cluster to look at (default: ${defaultText}).`);
}

/** What commands that report can write; the first is for people. */
export const REPORT_FORMATS = ["text", "json"] as const;
export type ReportFormat = (typeof REPORT_FORMATS)[number];

/** Adds `-o`. @param formats the first is what is written without the flag */
export function addOutput(command: Command, formats: readonly [string, ...string[]]): Command {
  return command.addOption(
    new Option("-o, --output <format>", `How it is written: ${formats.join(" or ")}.`)
      .choices([...formats])
      .default(formats[0]),
  );
}

/** JSON for programs: indented, with a line break at the end. */
export function jsonText(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

/** @throws ConfigError where an argument is missing or there is one too many, in words of the command. */
export function usageError(message: string): ConfigError {
  return new ConfigError(message);
}

/** A cluster that a command looks at, until it is disposed. */
export interface Cluster extends AsyncDisposable {
  readonly kube: KubeClient;
  readonly server: string;
  /** That of the kubeconfig's context. */
  readonly namespace: string;
}

/**
 * Opens the cluster of a kubeconfig; nothing is sent yet.
 * @param command for the API server's audit log
 * @throws ConfigError
 */
export function connect({ kubeconfig, kubeEnvironment, proxy }: ClusterSettings, command: string): Cluster {
  const access = loadKubeConfig(kubeconfig, kubeEnvironment);
  const kube = new KubeClient({ access, clock: realClock, proxy, userAgent: `berth-${command}/${berthVersion()}` });
  return {
    kube,
    server: access.server,
    namespace: access.currentNamespace,
    [Symbol.asyncDispose]: () => kube.close(),
  };
}
