import type { Command } from "commander";
import * as z from "zod";
import type { KubeEnvironment } from "../kube/config.ts";
import {
  type EnvironmentVariables,
  kubeEnvironment,
  type ProxySettings,
  proxySettings,
} from "../settings/environment-variables.ts";
import { FLAGS } from "../settings/flags.ts";
import { addOutput, REPORT_FORMATS, type ReportFormat } from "./invocation.ts";
import { type DeploymentRef, deploymentSchema, parseFlags, wholeSecondsSchema } from "./uninstall-settings.ts";

/** The parsed and validated settings of `berth check`. */
export interface CheckSettings {
  /** As in Settings. */
  readonly kubeconfig: string | undefined;
  readonly kubeEnvironment: KubeEnvironment;
  readonly proxy: ProxySettings;
  /** The operator's Deployment. */
  readonly deployment: DeploymentRef;
  /** How long to wait until the operator is ready. */
  readonly timeoutSeconds: number;
  readonly output: ReportFormat;
}

const DEFAULT_TIMEOUT_SECONDS = 60;

const flagsSchema = z.object({
  kubeconfig: z.string().optional(),
  deployment: z.preprocess((given) => given ?? "", deploymentSchema),
  timeoutSeconds: wholeSecondsSchema,
  output: z.enum(REPORT_FORMATS),
});

/** Adds the flags of `berth check` to a command. */
export function addCheckFlags(command: Command): Command {
  command
    .usage("--deployment <namespace/name> [--kubeconfig <path>] [--timeout-seconds <seconds>] [-o <format>]")
    .option("--kubeconfig <path>", FLAGS.kubeconfig.about)
    .option("--deployment <namespace/name>", "The operator's Deployment.")
    .option(
      "--timeout-seconds <seconds>",
      "How long to wait until the operator is ready.",
      String(DEFAULT_TIMEOUT_SECONDS),
    );
  return addOutput(command, REPORT_FORMATS);
}

/** @throws ConfigError that lists every problem, one per line. */
export function checkSettingsFrom(command: Command, env: EnvironmentVariables): CheckSettings {
  const { kubeconfig, deployment, timeoutSeconds, output } = parseFlags(flagsSchema, command);
  return {
    kubeconfig,
    kubeEnvironment: kubeEnvironment(env),
    proxy: proxySettings(env),
    deployment,
    timeoutSeconds,
    output,
  };
}
