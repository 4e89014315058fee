import { type Command, Option } from "commander";
import * as z from "zod";
import { ConfigError } from "../core/errors.ts";
import type { KubeEnvironment } from "../kube/config.ts";
import {
  type EnvironmentVariables,
  kubeEnvironment,
  type ProxySettings,
  proxySettings,
} from "../settings/environment-variables.ts";
import { FLAGS } from "../settings/flags.ts";
import { addOutput, REPORT_FORMATS, type ReportFormat } from "./invocation.ts";

/** The parsed and validated settings of `berth uninstall`. */
export interface UninstallSettings {
  /** As in Settings. */
  readonly kubeconfig: string | undefined;
  readonly kubeEnvironment: KubeEnvironment;
  readonly proxy: ProxySettings;
  /** Namespaces whose Environments are released; empty means all. */
  readonly namespaces: readonly string[];
  /** The operator's Deployment, which is scaled to zero; undefined: no operator runs. */
  readonly deployment: DeploymentRef | undefined;
  /** Whether to delete the Environments, not only release them. */
  readonly deleteEnvironments: boolean;
  /** How long deleted Environments may drain. */
  readonly drainSeconds: number;
  readonly output: ReportFormat;
}

const DEFAULT_DRAIN_SECONDS = 120;

/** One line that shows every flag of `berth uninstall`. */
export const UNINSTALL_USAGE =
  "usage: berth uninstall [--kubeconfig <path>] [--namespace <name>]... [--deployment <namespace/name>] " +
  "[--delete-environments] [--drain-seconds <seconds>] [-o, --output <format>]";

/** A Deployment in the form of the flags. */
export const deploymentSchema = z
  .string()
  .regex(/^[^/\s]+\/[^/\s]+$/, "write the Deployment as NAMESPACE/NAME")
  .transform((text): DeploymentRef => {
    const [namespace = "", name = ""] = text.split("/");
    return { namespace, name };
  });

/** The namespace and name of a Deployment. */
export interface DeploymentRef {
  readonly namespace: string;
  readonly name: string;
}

/** A duration in the form of the flags. */
export const wholeSecondsSchema = z
  .string()
  .regex(/^\d{1,6}$/, "write whole seconds")
  .transform(Number);

const flagsSchema = z.object({
  kubeconfig: z.string().optional(),
  namespace: FLAGS.namespaces.schema.optional(),
  deployment: deploymentSchema.optional(),
  deleteEnvironments: z.boolean().default(false),
  drainSeconds: wholeSecondsSchema,
  output: z.enum(REPORT_FORMATS),
});

/** Adds the flags of `berth uninstall` to a command. */
export function addUninstallFlags(command: Command): Command {
  command
    .option("--kubeconfig <path>", FLAGS.kubeconfig.about)
    .addOption(
      new Option(
        "--namespace <name>",
        "Namespace whose Environments are released; repeat it (default: all).",
      ).argParser<string>((text, before) => (before === undefined ? text : `${before},${text}`)),
    )
    .option("--deployment <namespace/name>", "The operator's Deployment, which is scaled to 0 replicas first.")
    .option("--delete-environments", "Delete the Environments, and wait while the operator drains them.")
    .option("--drain-seconds <seconds>", "How long the Environments may drain.", String(DEFAULT_DRAIN_SECONDS));
  return addOutput(command, REPORT_FORMATS);
}

/** @throws ConfigError that lists every problem, one per line. */
export function uninstallSettingsFrom(command: Command, env: EnvironmentVariables): UninstallSettings {
  const {
    kubeconfig,
    namespace = [],
    deployment,
    deleteEnvironments,
    drainSeconds,
    output,
  } = parseFlags(flagsSchema, command);
  return {
    kubeconfig,
    kubeEnvironment: kubeEnvironment(env),
    proxy: proxySettings(env),
    namespaces: namespace,
    deployment,
    deleteEnvironments,
    drainSeconds,
    output,
  };
}

/**
 * Parses the flags of a command.
 * @throws ConfigError that lists every problem, one per line.
 */
export function parseFlags<T>(schema: z.ZodType<T>, command: Command): T {
  const result = schema.safeParse(command.opts());
  if (result.success) return result.data;
  throw new ConfigError(result.error.issues.map(({ path, message }) => `${flagOf(path[0])}: ${message}`).join("\n"));
}

/** `--drain-seconds` for drainSeconds. */
function flagOf(option: PropertyKey | undefined): string {
  return `--${String(option).replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}
