import { existsSync } from "node:fs";
import type { Command } from "commander";
import { OperatorError } from "../core/errors.ts";

/** Where a checkout has it; in an image there is no such file. */
const SIMULATOR = new URL("../../simulator/main.ts", import.meta.url);

/** A command that this Berth came without. */
export class NotInImageError extends OperatorError {
  constructor(message: string) {
    super("NotInImage", message);
  }
}

/** `berth simulator`: the work simulator of the checkout, with its own flags. */
export function addSimulator(program: Command): void {
  const command = program
    .command("simulator")
    .usage("[flags]")
    .description("Run a simulator of the Work API, to try workers on (from a checkout).")
    // Its flags are its own, --help too: docs/simulator.md.
    .helpOption(false)
    .allowUnknownOption()
    .argument("[flags...]", "Flags of the simulator; --help shows them.");
  command.action(() => simulator(command.args));
}

async function simulator(argv: readonly string[]): Promise<void> {
  if (!existsSync(SIMULATOR)) {
    throw new NotInImageError("the simulator is not part of the image: run it from a checkout, npm run simulator");
  }
  // Not by a path that the bundler could follow: src holds nothing of the simulator.
  const { main } = await import(SIMULATOR.href);
  await main(argv);
}
