/** Starts vitest for the scripts that wrap a test run. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { type ParseArgsOptionsConfig, parseArgs } from "node:util";

export type FlagValues = Readonly<Record<string, string | boolean | undefined>>;

/** Splits the arguments of a test run: the values of our own flags, and the remaining ones, unchanged, for vitest. */
export function splitFlags(
  argv: readonly string[],
  options: ParseArgsOptionsConfig,
): { readonly values: FlagValues; readonly rest: readonly string[] } {
  const { values, tokens } = parseArgs({ args: [...argv], options, strict: false, tokens: true });
  const rest: string[] = [];
  for (const token of tokens) {
    if (token.kind === "positional") rest.push(token.value);
    else if (token.kind === "option" && !(token.name in options)) {
      rest.push(token.inlineValue && token.value !== undefined ? `${token.rawName}=${token.value}` : token.rawName);
    }
  }
  return { values: values as FlagValues, rest };
}

/** The path of the vitest command. */
export function vitestFile(): string {
  return join(dirname(createRequire(import.meta.url).resolve("vitest/package.json")), "vitest.mjs");
}

/** Runs a script with this Node in our terminal. Resolves with its exit code. */
export async function runNode(args: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const child = spawn(process.execPath, args, { stdio: "inherit", env });
  // Ctrl-C also reaches the child, which stops what it started; this process only waits.
  process.on("SIGINT", () => {});
  process.on("SIGTERM", () => void child.kill("SIGTERM"));
  const [code] = (await once(child, "exit")) as [number | null];
  return code ?? 1;
}
