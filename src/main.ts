import { runCli } from "./commands/cli.ts";
import { type UninstallReport, uninstall } from "./commands/uninstall.ts";
import type { UninstallSettings } from "./commands/uninstall-settings.ts";
import { keepAlive } from "./core/clock.ts";
import { runOperator } from "./operator.ts";
import type { Settings } from "./settings/config.ts";

/** The kubelet sends SIGTERM, a terminal SIGINT. */
const END_SIGNALS = ["SIGTERM", "SIGINT"] as const;

/** Runs one command line (without node and script name) and resolves with the exit code. */
export function main(argv: readonly string[]): Promise<number> {
  return runCli(argv, { run, uninstall: runUninstall });
}

async function run(settings: Settings): Promise<void> {
  const ending = new AbortController();
  const end = () => ending.abort();
  for (const name of END_SIGNALS) process.once(name, end);
  try {
    await runOperator(settings, ending.signal);
  } finally {
    for (const name of END_SIGNALS) process.off(name, end);
  }
}

/** Keeps the process alive: unlike the operator, this command has no server that would. */
async function runUninstall(settings: UninstallSettings): Promise<UninstallReport> {
  using _alive = keepAlive();
  return await uninstall(settings);
}
