/** `npm run cluster` starts a control plane to experiment with. See arguments.ts for its arguments. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:os";
import { delimiter } from "node:path";
import type { NodeCluster } from "../real-node/node-cluster.ts";
import { HELP, parseArguments, USAGE } from "./arguments.ts";
import { clientToolsDir, findClientTools, isClientTool } from "./client-tools.ts";
import { type Cluster, startCluster } from "./cluster.ts";
import { MissingToolError } from "./missing.ts";
import { showProgress } from "./progress.ts";
import { announceCluster, runningClusters } from "./running.ts";

/** The exit code of a shell if a command doesn't exist. */
const EXIT_NOT_FOUND = 127;
/** A shell adds this to the number of the signal that ended a command. */
const EXIT_SIGNAL = 128;
const EXIT_USAGE = 2;
/** The tag of the images that are built here. */
const IMAGE_TAG = "e2e";

const progress = showProgress();
try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  progress.clear();
  // These errors tell people what to do. A stack trace would hide that.
  if (!(error instanceof MissingToolError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}

async function main(argv: readonly string[]): Promise<number> {
  const request = parseArguments(argv);
  switch (request.kind) {
    case "help":
      process.stdout.write(HELP);
      return 0;
    case "mistake":
      console.error(`${request.message}\n${USAGE}`);
      return EXIT_USAGE;
    case "keep":
      return await keep(request.node ?? false);
    case "run":
      return await run(request.command, request.args, request.node ?? false);
  }
}

async function keep(withNode: boolean): Promise<number> {
  // Until the cluster runs, Ctrl-C just ends this process and everything with it.
  await using cluster: Cluster | NodeCluster = withNode ? await startNode() : await startCluster({ progress });
  progress.clear();
  const interrupted = untilInterrupted();
  const takeBack = await announceCluster({ kubeconfig: cluster.kubeconfig, hasNode: withNode });
  console.log(
    `Kubernetes ${cluster.version} runs at ${cluster.server}, with ${withNode ? "one node" : "no nodes"}. ` +
      `Ctrl-C ends it.\n\n  export KUBECONFIG=${cluster.kubeconfig}\n\n` +
      "or, in this folder:\n\n" +
      "  npm run cluster -- kubectl get ns\n",
  );
  if (!withNode) {
    console.log(
      "Berth is not installed. The cluster has no node for its Pod, so run the operator from this folder:\n\n" +
        "  npm run cluster -- kubectl apply --server-side -f deploy/crds\n" +
        "  npm run cluster -- npm start\n",
    );
  }
  if (withNode) {
    console.log(
      `Berth's images are on the node, as localhost/berth*:${IMAGE_TAG}. To install the operator:\n\n` +
        "  npm run cluster -- helm install berth charts/berth --namespace berth-system --create-namespace \\\n" +
        `    --set image.repository=localhost/berth --set image.tag=${IMAGE_TAG} --wait\n\n` +
        "The cluster has no DNS: use a Service's clusterIP instead of its name.\n",
    );
  }
  await interrupted;
  await takeBack();
  return 0;
}

async function run(command: string, args: readonly string[], withNode: boolean): Promise<number> {
  const running = (await runningClusters()).find(({ hasNode }) => hasNode || !withNode);
  if (running) return await runAgainst(running.kubeconfig, command, args);
  console.error(
    `No cluster of this checkout${withNode ? " with a node" : ""} is running. Start one in another terminal with ` +
      `\`npm run cluster${withNode ? " -- --node" : ""}\`, and run this command again.`,
  );
  return 1;
}

/** Loads the modules for a real node only when needed, because they're large and work only on Linux. */
async function startNode(): Promise<NodeCluster> {
  const { startNodeCluster } = await import("../real-node/node-cluster.ts");
  const { buildImages } = await import("../images/images.ts");
  const { archive } = await buildImages({ progress });
  return await startNodeCluster({ progress, images: [archive] });
}

async function runAgainst(kubeconfig: string, command: string, args: readonly string[]): Promise<number> {
  const tools = isClientTool(command) ? await findClientTools({ progress }) : clientToolsDir();
  progress.clear();
  const path = [tools, process.env["PATH"]].filter(Boolean).join(delimiter);
  const child = spawn(command, args, { stdio: "inherit", env: { ...process.env, KUBECONFIG: kubeconfig, PATH: path } });
  // Ctrl-C also reaches the command, because it shares the terminal. The command decides what to do with it.
  const ignore = () => {};
  const pass = () => child.kill("SIGTERM");
  process.on("SIGINT", ignore);
  process.on("SIGTERM", pass);
  try {
    const [code, signal] = (await once(child, "exit")) as [number | null, NodeJS.Signals | null];
    return signal ? EXIT_SIGNAL + constants.signals[signal] : (code ?? 1);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error;
    console.error(`${command}: command not found`);
    return EXIT_NOT_FOUND;
  } finally {
    process.off("SIGINT", ignore);
    process.off("SIGTERM", pass);
  }
}

/** A second Ctrl-C ends this process immediately, and everything that it started ends with it. */
function untilInterrupted(): Promise<void> {
  return new Promise((resolve) => {
    let seen = false;
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      process.on(signal, () => {
        if (seen) process.exit(EXIT_SIGNAL + constants.signals[signal]);
        seen = true;
        resolve();
      });
    }
  });
}
