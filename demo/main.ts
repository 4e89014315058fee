/** `npm run demo`: serves sessions while you watch. options.ts has its flags; docs/demo.md explains it. */
import { errorText, OperatorError } from "../src/core/errors.ts";
import { MissingToolError } from "../testbed/cluster/missing.ts";
import { showProgress } from "../testbed/cluster/progress.ts";
import { EXIT, obey, refuse } from "../tools/command-line.ts";
import { runDemo } from "./demo.ts";
import { DemoError } from "./errors.ts";
import { parseArguments, USAGE } from "./options.ts";

const progress = showProgress();
try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  progress.clear();
  // These messages say how to fix the error; a stack trace would hide that.
  if (error instanceof OperatorError) console.error(errorText(error));
  else if (error instanceof DemoError || error instanceof MissingToolError) console.error(error.message);
  else throw error;
  process.exitCode = EXIT.failed;
}

async function main(argv: readonly string[]): Promise<number> {
  return await obey(parseArguments(argv), USAGE, async (options) => {
    if (options.useCluster && !process.env["KUBECONFIG"]) {
      return refuse("--use-cluster needs KUBECONFIG: set it to a kubeconfig file, such as ~/.kube/config", USAGE);
    }
    return await runDemo(options, { out: process.stdout, env: process.env, progress });
  });
}
