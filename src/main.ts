import { type CheckReport, check } from "./commands/check.ts";
import type { CheckSettings } from "./commands/check-settings.ts";
import { runCli } from "./commands/cli.ts";
import { type UninstallReport, uninstall } from "./commands/uninstall.ts";
import type { UninstallSettings } from "./commands/uninstall-settings.ts";
import { keepAlive } from "./core/clock.ts";
import { runOperator } from "./operator.ts";
import type { Settings } from "./settings/config.ts";

/** SIGTERM is what kubelet sends, SIGINT what a terminal does. */
const END_SIGNALS = ["SIGTERM", "SIGINT"] as const;

/** Runs one command line, without node and script name; resolves with the exit code. */
export function main(argv: readonly string[]): Promise<number> {
  return runCli(argv, { run, uninstall: prepareUninstall, check: lookAtOperator });
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

/** Nothing but its own waits keeps this process alive, unlike the operator's servers. */
async function lookAtOperator(settings: CheckSettings): Promise<CheckReport> {
  using _alive = keepAlive();
  return await check(settings);
}

/** As above. */
async function prepareUninstall(settings: UninstallSettings): Promise<UninstallReport> {
  using _alive = keepAlive();
  return await uninstall(settings);
}
