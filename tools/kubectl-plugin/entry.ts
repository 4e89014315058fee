/** The program of the file kubectl-berth. */
import { runPlugin } from "../../src/commands/cli.ts";

void runPlugin(process.argv.slice(2)).then((code) => {
  process.exitCode = code;
});
