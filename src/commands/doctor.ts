import type { Command } from "commander";
import * as z from "zod";
import { keepAlive } from "../core/clock.ts";
import type { DoctorOptions } from "../doctor/doctor.ts";
import { parseSettings, type Settings, settingsFrom } from "../settings/config.ts";
import type { EnvironmentVariables } from "../settings/environment-variables.ts";
import { addFlags, FLAGS } from "../settings/flags.ts";
import {
  addKubeconfig,
  addOutput,
  DEFAULT_OPERATOR_NAMESPACE,
  type Invocation,
  jsonText,
  operatorSettings,
  REPORT_FORMATS,
  type ReportFormat,
} from "./invocation.ts";
import { deploymentSchema, parseFlags, wholeSecondsSchema } from "./uninstall-settings.ts";

const EXIT_FAILED = 1;

const flagsSchema = z.object({ deployment: deploymentSchema.optional(), timeoutSeconds: wholeSecondsSchema });

interface Options extends z.infer<typeof flagsSchema> {
  readonly operatorNamespace?: string;
  readonly problems?: boolean;
  readonly output: ReportFormat;
}

/** `berth doctor`: checks a cluster, its operator and its Environments. */
export function addDoctor(program: Command, invocation: Invocation): void {
  const command = program
    .command("doctor")
    .usage("[<environment>...] [-n <namespace>]... [--problems] [flags]")
    .description("Check a cluster, its operator and its Environments, and report what to fix.")
    .argument("[environment...]", "Names of the Environments to check (default: all).")
    .option(
      "-n, --namespace <name>",
      "Namespace whose Environments are checked; repeat it (default: all, or that of the context).",
      (text: string, before?: string) => (before === undefined ? text : `${before},${text}`),
    )
    .option("--operator-namespace <name>", "Namespace of the operator (default: all are searched).")
    .option("--deployment <namespace/name>", "Check only the CRD and this operator, and wait until they are well.")
    .option("--timeout-seconds <seconds>", "How long --deployment waits.", "60")
    .option("--problems", "Print only the problems, and not what is well.");
  addKubeconfig(command);
  addFlags(command, [FLAGS.runtimeClasses, FLAGS.allowedApiOrigins]);
  addOutput(command, REPORT_FORMATS).action((names: readonly string[]) =>
    doctor(
      names,
      { ...command.opts<Options>(), ...parseFlags(flagsSchema, command) },
      settingsFrom(command, invocation.env),
      invocation,
    ),
  );
}

async function doctor(
  names: readonly string[],
  { deployment, timeoutSeconds, ...options }: Options,
  settings: Settings,
  { env, streams, exit }: Invocation,
): Promise<void> {
  const { connect } = await import("./invocation.ts");
  const { examine, examineDeployment } = await import("../doctor/doctor.ts");
  const { berthVersion } = await import("../settings/version.ts");
  const { Progress } = await import("../observe/terminal.ts");
  using _alive = keepAlive();
  await using cluster = connect(settings, "doctor");
  using progress = new Progress(streams);
  const examined = {
    kube: cluster.kube,
    server: cluster.server,
    version: berthVersion(),
    readSettings: (argv: readonly string[], variables: EnvironmentVariables) =>
      operatorSettings(parseSettings(argv, variables)),
  };
  const all: DoctorOptions = {
    ...examined,
    namespaces: settings.namespaces,
    names,
    currentNamespace: cluster.namespace,
    operatorNamespace: options.operatorNamespace,
    defaultOperatorNamespace: DEFAULT_OPERATOR_NAMESPACE,
    assumed: {
      runtimeClasses: settings.runtimeClasses,
      work: { ...operatorSettings(settings), proxy: settings.proxy },
    },
    say: (what) => progress.say(what),
  };
  const report = await (deployment ? examineDeployment(examined, deployment, timeoutSeconds) : examine(all));
  progress[Symbol.dispose]();
  if (!report.ok) exit(EXIT_FAILED);
  const onlyProblems = options.problems === true;
  if (options.output === "json") {
    const { checks: _checks, ...rest } = report;
    return streams.out(jsonText(onlyProblems ? rest : report));
  }
  const { paintFor } = await import("../observe/terminal.ts");
  const { reportText } = await import("../doctor/report-text.ts");
  streams.out(reportText(report, paintFor(streams, env["NO_COLOR"]), { onlyProblems }));
}
