import { Command, CommanderError } from "commander";
import { API_VERSION } from "../api/names.ts";
import { ConfigError, errorText } from "../core/errors.ts";
import { redact } from "../observe/logger.ts";
import { type CliStreams, standardStreams } from "../observe/terminal.ts";
import { configErrorOf, processEnvironment, type Settings, settingsFrom } from "../settings/config.ts";
import type { EnvironmentVariables } from "../settings/environment-variables.ts";
import { addFlags, usageLine } from "../settings/flags.ts";
import { berthVersion } from "../settings/version.ts";
import { addDoctor } from "./doctor.ts";
import { addExplain } from "./explain.ts";
import { addOutput, type Invocation, jsonText, REPORT_FORMATS, type ReportFormat } from "./invocation.ts";
import { addSimulator } from "./simulator.ts";
import { addTemplate } from "./template.ts";
import { UninstallFailedError, type UninstallReport } from "./uninstall.ts";
import {
  addUninstallFlags,
  UNINSTALL_USAGE,
  type UninstallSettings,
  uninstallSettingsFrom,
} from "./uninstall-settings.ts";

/** The exit codes of the process. */
export const EXIT = { ok: 0, failed: 1, usage: 2 } as const;

/** The implementations of the commands; src/main.ts passes the real ones. */
export interface Commands {
  /**
   * Runs the operator until a signal stops it.
   * @throws ConfigError if a setting turns out to be invalid only now, for example a missing kubeconfig file.
   */
  run(settings: Settings): Promise<void>;
  /** Prepares a cluster for the removal of its operator. */
  uninstall(settings: UninstallSettings): Promise<UninstallReport>;
}

/** A program with commands. */
interface Build {
  /** How people call it, for usage texts. */
  readonly name: string;
  /** Commands that do more than read; null: there are none, and no simulator. */
  readonly commands: Commands | null;
}

/**
 * Runs one command line, without the node and script names.
 * @returns the exit code: 0, 1 after a failure, 2 for an invalid flag, variable or command. Never throws.
 */
export function runCli(
  argv: readonly string[],
  commands: Commands,
  env: EnvironmentVariables = processEnvironment(),
  streams: CliStreams = standardStreams(),
): Promise<number> {
  return runBuild({ name: "berth", commands }, argv, env, streams);
}

/** Runs one command line of the kubectl plugin, which has the commands that only read. Never throws. */
export function runPlugin(
  argv: readonly string[],
  env: EnvironmentVariables = processEnvironment(),
  streams: CliStreams = standardStreams(),
): Promise<number> {
  return runBuild({ name: "kubectl berth", commands: null }, argv, env, streams);
}

async function runBuild(
  build: Build,
  argv: readonly string[],
  env: EnvironmentVariables,
  streams: CliStreams,
): Promise<number> {
  let code: number = EXIT.ok;
  const invocation: Invocation = {
    env,
    streams,
    exit: (wanted) => {
      code = wanted;
    },
  };
  const program = buildProgram(build, invocation);
  try {
    await program.parseAsync([...argv], { from: "user" });
    return code;
  } catch (thrown) {
    if (thrown instanceof CommanderError && thrown.exitCode === 0) return EXIT.ok;
    const error = configErrorOf(isHelp(thrown) ? missingCommandError(program, argv) : thrown);
    if (error instanceof ConfigError) {
      streams.err(redact(`${build.name}: ${error.message}\n${usageOf(program, argv)}\n`));
      return EXIT.usage;
    }
    streams.err(redact(`${build.name}: ${errorText(error)}\n`));
    return EXIT.failed;
  }
}

/** Whether Commander stopped because no command was named, or an unknown one after `help`. */
function isHelp(thrown: unknown): boolean {
  return thrown instanceof CommanderError && thrown.code === "commander.help";
}

function missingCommandError(program: Command, [first, second]: readonly string[]): ConfigError {
  const names = program.commands.map((command) => command.name()).join(", ");
  const unknown = first === "help" && second !== undefined ? `unknown command '${second}'; ` : "";
  return new ConfigError(`${unknown}name a command: ${names} or help`);
}

/** The usage of the command that the arguments name, wherever it is among them. */
function usageOf(program: Command, argv: readonly string[]): string {
  const names = program.commands.map((command) => command.name());
  const name = argv.find((word) => names.includes(word));
  const command = program.commands.find((known) => known.name() === name);
  if (command === undefined) return `usage: ${program.name()} <${[...names, "help"].join("|")}> [flags]`;
  if (name === "run") return usageLine();
  return name === "uninstall" ? UNINSTALL_USAGE : `usage: ${program.name()} ${name} ${command.usage()}`;
}

/** The output of `berth version -o json`: this build, its API version, and the version of Node. */
function versionReport() {
  return { berth: berthVersion(), apiVersion: API_VERSION, node: process.versions.node };
}

function buildProgram({ name, commands }: Build, invocation: Invocation): Command {
  const program = new Command(name)
    .description("Kubernetes operator for self-hosted agent sandboxes.")
    .version(berthVersion())
    .exitOverride()
    // runBuild writes Commander's errors, once, with the usage line.
    .configureOutput({ writeOut: invocation.streams.out, writeErr: () => {} });
  if (commands !== null) addOperating(program, commands, invocation);
  addDoctor(program, invocation);
  addExplain(program, invocation);
  addTemplate(program, invocation);
  if (commands !== null) addSimulator(program);
  const version = program.command("version").usage("[-o <format>]").description("Print the version.");
  addOutput(version, REPORT_FORMATS).action(({ output }: { readonly output: ReportFormat }) =>
    invocation.streams.out(output === "json" ? jsonText(versionReport()) : `${berthVersion()}\n`),
  );
  return program;
}

/** Adds the commands that the chart's objects run. */
function addOperating(program: Command, commands: Commands, { env, streams }: Invocation): void {
  const run = program.command("run").description("Run the operator until SIGTERM or SIGINT.");
  addFlags(run).action(() => commands.run(settingsFrom(run, env)));
  const uninstall = program
    .command("uninstall")
    .description("Stop the operator and remove the finalizers of its Environments, so that it can be uninstalled.");
  addUninstallFlags(uninstall).action(async () => {
    const settings = uninstallSettingsFrom(uninstall, env);
    const report = await commands.uninstall(settings);
    if (settings.output === "json") streams.out(jsonText(report));
    if (report.problem !== null) throw new UninstallFailedError(report.problem);
  });
}
