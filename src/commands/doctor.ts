import type { Command } from "commander";
import { keepAlive } from "../core/clock.ts";
import { parseSettings, type Settings, settingsFrom } from "../settings/config.ts";
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

const EXIT_FAILED = 1;

interface Options {
  readonly operatorNamespace?: string;
  readonly problems?: boolean;
  readonly checkKey?: boolean;
  readonly output: ReportFormat;
}

/** `berth doctor`: checks a cluster, its operator and its Environments. */
export function addDoctor(program: Command, invocation: Invocation): void {
  const command = program
    .command("doctor")
    .usage("[<environment>...] [-n <namespace>]... [--problems] [--check-key] [flags]")
    .description("Check a cluster, its operator and its Environments, and report what to fix.")
    .argument("[environment...]", "Names of the Environments to check (default: all).")
    .option(
      "-n, --namespace <name>",
      "Namespace whose Environments are checked; repeat it (default: all, or that of the context).",
      (text: string, before?: string) => (before === undefined ? text : `${before},${text}`),
    )
    .option("--operator-namespace <name>", "Namespace of the operator (default: all are searched).")
    .option("--problems", "Print only the problems, and not what is well.")
    .option("--check-key", "Send each environment key to the Work API, to read the statistics of its queue.");
  addKubeconfig(command);
  addFlags(command, [FLAGS.allowedInTemplates, FLAGS.runtimeClasses, FLAGS.allowedApiOrigins]);
  addOutput(command, REPORT_FORMATS).action((names: readonly string[]) =>
    doctor(names, command.opts<Options>(), settingsFrom(command, invocation.env), invocation),
  );
}

async function doctor(
  names: readonly string[],
  options: Options,
  settings: Settings,
  { env, streams, exit }: Invocation,
): Promise<void> {
  const { connect } = await import("./invocation.ts");
  const { examine } = await import("../doctor/doctor.ts");
  const { berthVersion } = await import("../settings/version.ts");
  const { Progress } = await import("../observe/terminal.ts");
  using _alive = keepAlive();
  await using cluster = connect(settings, "doctor");
  using progress = new Progress(streams);
  const report = await examine({
    kube: cluster.kube,
    server: cluster.server,
    version: berthVersion(),
    namespaces: settings.namespaces,
    names,
    currentNamespace: cluster.namespace,
    operatorNamespace: options.operatorNamespace,
    defaultOperatorNamespace: DEFAULT_OPERATOR_NAMESPACE,
    readSettings: (argv, variables) => operatorSettings(parseSettings(argv, variables)),
    assumed: {
      podPolicy: settings.podPolicy,
      runtimeClasses: settings.runtimeClasses,
      work: { ...operatorSettings(settings), proxy: settings.proxy },
    },
    checkKey: options.checkKey === true,
    say: (what) => progress.say(what),
  });
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
