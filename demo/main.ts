/** `npm run demo`: sessions are served while you watch. See options.ts for what it takes, docs/demo.md for what it is. */
import { errorText, OperatorError } from "../src/core/errors.ts";
import { MissingToolError } from "../testbed/cluster/missing.ts";
import { showProgress } from "../testbed/cluster/progress.ts";
import { runDemo } from "./demo.ts";
import { DemoError } from "./errors.ts";
import { parseArguments, USAGE } from "./options.ts";

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

const progress = showProgress();
try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  progress.clear();
  // These tell people what to do about it; a stack trace would only hide that.
  if (error instanceof OperatorError) console.error(errorText(error));
  else if (error instanceof DemoError || error instanceof MissingToolError) console.error(error.message);
  else throw error;
  process.exitCode = EXIT_FAILED;
}

async function main(argv: readonly string[]): Promise<number> {
  const request = parseArguments(argv);
  switch (request.kind) {
    case "help":
      process.stdout.write(request.text);
      return 0;
    case "mistake":
      return refuse(request.message);
    case "run":
      if (request.options.useCluster && !process.env["KUBECONFIG"]) {
        return refuse("--use-cluster needs KUBECONFIG: name the kubeconfig of the cluster, such as ~/.kube/config");
      }
      return await runDemo(request.options, { out: process.stdout, env: process.env, progress });
  }
}

function refuse(message: string): number {
  console.error(`${message}\n${USAGE}`);
  return EXIT_USAGE;
}
