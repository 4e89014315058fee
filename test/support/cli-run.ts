/** Runs command lines in this process. */
import { type Commands, runCli } from "../../src/commands/cli.ts";
import type { CliStreams } from "../../src/observe/terminal.ts";
import type { EnvironmentVariables } from "../../src/settings/environment-variables.ts";

/** The exit code and output of a command line. */
export interface CliResult {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Names no cluster. */
export const NO_KUBECONFIG = "/nonexistent/kubeconfig";

/** Runs one command line in this process. `run`, `uninstall` and `check` do nothing by default. */
export async function cliRun(
  argv: readonly string[],
  given: {
    readonly env?: EnvironmentVariables;
    readonly input?: string;
    readonly isTerminal?: boolean;
    readonly commands?: Partial<Commands>;
  } = {},
): Promise<CliResult> {
  let out = "";
  let err = "";
  const streams: CliStreams = {
    out: (text) => {
      out += text;
    },
    err: (text) => {
      err += text;
    },
    isTerminal: given.isTerminal ?? false,
    input: async () => given.input ?? "",
  };
  const commands: Commands = {
    run: async () => {},
    uninstall: async () => ({ ok: true, stopped: false, deleted: [], undrained: [], released: [], problem: null }),
    ...given.commands,
  };
  // Otherwise a command would use the cluster of the person who runs the tests.
  const env = { KUBECONFIG: NO_KUBECONFIG, ...given.env };
  const code = await runCli(argv, commands, env, streams);
  return { code, out, err };
}
