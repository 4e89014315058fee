import { Command, CommanderError } from "commander";
import {
  addFlags,
  configErrorOf,
  type EnvironmentVariables,
  processEnvironment,
  type Settings,
  settingsFrom,
  usageLine,
} from "./config.ts";
import { ConfigError, errorText } from "./core/errors.ts";
import { redact } from "./observe/logger.ts";
import {
  addUninstallFlags,
  UNINSTALL_USAGE,
  type UninstallSettings,
  uninstallSettingsFrom,
} from "./uninstall-settings.ts";
import { berthVersion } from "./version.ts";

/** What the process ends with. */
export const EXIT = { ok: 0, failed: 1, usage: 2 } as const;

/** What the commands do; src/main.ts gives the real ones. */
export interface Commands {
  /**
   * Runs the operator until it is told to end.
   * @throws ConfigError for a setting that turns out wrong only now, such as a kubeconfig file that is not there.
   */
  run(settings: Settings): Promise<void>;
  /** Gets a cluster ready for the end of its operator. */
  uninstall(settings: UninstallSettings): Promise<void>;
}

export interface CliStreams {
  out(text: string): void;
  err(text: string): void;
}

const standardStreams: CliStreams = {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
};

/**
 * Runs one command line, without node and script name.
 * @returns the exit code: 0, 1 after a failure, 2 for a wrong flag, variable or command. Never throws.
 */
export async function runCli(
  argv: readonly string[],
  commands: Commands,
  env: EnvironmentVariables = processEnvironment(),
  streams: CliStreams = standardStreams,
): Promise<number> {
  try {
    await buildProgram(commands, env, streams).parseAsync([...argv], { from: "user" });
    return EXIT.ok;
  } catch (thrown) {
    if (thrown instanceof CommanderError && thrown.exitCode === 0) return EXIT.ok;
    const error = configErrorOf(thrown);
    if (error instanceof ConfigError) {
      const usage = argv[0] === "uninstall" ? UNINSTALL_USAGE : usageLine();
      streams.err(redact(`berth: ${error.message}\n${usage}\n`));
      return EXIT.usage;
    }
    streams.err(redact(`berth: ${errorText(error)}\n`));
    return EXIT.failed;
  }
}

function buildProgram(commands: Commands, env: EnvironmentVariables, streams: CliStreams): Command {
  const program = new Command("berth")
    .description("Kubernetes operator for self-hosted agent sandboxes.")
    .version(berthVersion())
    .exitOverride()
    // Commander's own complaints are written by runCli, once, with the usage line.
    .configureOutput({ writeOut: streams.out, writeErr: () => {} })
    .action(() => {
      throw new ConfigError("name a command: run, uninstall, version or help");
    });
  const run = program.command("run").description("Run the operator until SIGTERM or SIGINT.");
  addFlags(run).action(() => commands.run(settingsFrom(run, env)));
  const uninstall = program
    .command("uninstall")
    .description("Stop the operator in a cluster and let its Environments go, so that it can be uninstalled.");
  addUninstallFlags(uninstall).action(() => commands.uninstall(uninstallSettingsFrom(uninstall, env)));
  program
    .command("version")
    .description("Print the version.")
    .action(() => streams.out(`${berthVersion()}\n`));
  return program;
}
