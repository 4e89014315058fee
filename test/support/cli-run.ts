import { runCli } from "../../src/cli.ts";
import type { EnvironmentVariables } from "../../src/config.ts";
import type { CliStreams } from "../../src/terminal/streams.ts";

/** What a command line ended with, and what it wrote. */
export interface CliResult {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs one command line in this process; `run`, `uninstall` and `check` do nothing. */
export async function cliRun(
  argv: readonly string[],
  given: { readonly env?: EnvironmentVariables; readonly input?: string; readonly isTerminal?: boolean } = {},
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
  const nothing = async () => {};
  const commands = { run: nothing, uninstall: nothing, check: nothing };
  const code = await runCli(argv, commands, given.env ?? {}, streams);
  return { code, out, err };
}
