import { existsSync } from "node:fs";
import type { Command } from "commander";
import { OperatorError } from "../core/errors.ts";

/** The simulator's path in a checkout. The image does not contain it. */
const SIMULATOR = new URL("../../simulator/main.ts", import.meta.url);

/** A command that is not part of this build. */
class NotInImageError extends OperatorError {
  constructor(message: string) {
    super("NotInImage", message);
  }
}

/** `berth simulator`: runs the checkout's work simulator, with its own flags. */
export function addSimulator(program: Command): void {
  const command = program
    .command("simulator")
    .usage("[flags]")
    .description("Run a simulator of the Work API for tests of workers (only in a checkout).")
    // The simulator parses its flags itself, including --help: docs/simulator.md.
    .helpOption(false)
    .allowUnknownOption()
    .argument("[flags...]", "Flags of the simulator; --help shows them.");
  command.action(() => simulator(command.args));
}

async function simulator(argv: readonly string[]): Promise<void> {
  if (!existsSync(SIMULATOR)) {
    throw new NotInImageError("the simulator is not part of the image; run it in a checkout: npm run simulator");
  }
  // Import by URL, so that the bundler can't follow it: src must not contain the simulator.
  const { main } = await import(SIMULATOR.href);
  await main(argv);
}
