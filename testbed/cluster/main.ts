/** `npm run cluster`: a control plane to play with. See arguments.ts for what it takes. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:os";
import { delimiter } from "node:path";
import type { NodeCluster } from "../real-node/node-cluster.ts";
import { HELP, parseArguments, USAGE } from "./arguments.ts";
import { clientToolsDir, findClientTools, isClientTool } from "./client-tools.ts";
import { type Cluster, startCluster } from "./cluster.ts";
import { installBerth } from "./install.ts";
import { MissingToolError } from "./missing.ts";
import { showProgress } from "./progress.ts";
import { announceCluster, runningClusters } from "./running.ts";

/** What a shell says for a command that is not there. */
const EXIT_NOT_FOUND = 127;
/** What a shell adds to the number of the signal that ended a command. */
const EXIT_SIGNAL = 128;
const EXIT_USAGE = 2;
/** Of the images that are built here. */
const IMAGE_TAG = "e2e";

const progress = showProgress();
try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  progress.clear();
  // These tell people what to do about it; a stack trace would only hide that.
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
  // Until it runs, Ctrl-C just ends this process, and everything with it.
  await using cluster = await start(withNode);
  const interrupted = untilInterrupted();
  const takeBack = await announceCluster({ kubeconfig: cluster.kubeconfig, hasNode: withNode });
  console.log(
    `Kubernetes ${cluster.version} runs at ${cluster.server}, with ${withNode ? "one node" : "no nodes"}. ` +
      `Ctrl-C ends it.\n\n  export KUBECONFIG=${cluster.kubeconfig}\n\n` +
      "or, in this folder:\n\n" +
      "  npm run cluster -- kubectl get ns\n",
  );
  if (withNode) {
    console.log(
      `Berth's images are on the node, as localhost/berth*:${IMAGE_TAG}. To install the operator:\n\n` +
        "  npm run cluster -- helm install berth charts/berth --namespace berth-system --create-namespace \\\n" +
        `    --set image.repository=localhost/berth --set image.tag=${IMAGE_TAG} --wait\n\n` +
        "No DNS runs in it: Pods know one another by address, so name a Service's clusterIP where a name would do elsewhere.\n",
    );
  }
  await interrupted;
  await takeBack();
  return 0;
}

async function run(command: string, args: readonly string[], withNode: boolean): Promise<number> {
  const running = (await runningClusters()).find(({ hasNode }) => hasNode || !withNode);
  if (running) return await runAgainst(running.kubeconfig, command, args);
  await using cluster = await start(withNode);
  return await runAgainst(cluster.kubeconfig, command, args);
}

async function start(withNode: boolean): Promise<Cluster | NodeCluster> {
  const cluster = withNode ? await startNode() : await startCluster({ progress });
  progress.clear();
  // With a node, the operator is installed by its chart, which brings its own.
  if (!withNode) await installBerth(cluster.api);
  return cluster;
}

/** Loaded only when it is asked for: it is much more, and other systems than Linux have nothing to do with it. */
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
  // Ctrl-C reaches the command as well, since it has the same terminal; what it makes of it is its own affair.
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

/** A second Ctrl-C does not wait for anything: what this process started ends with it. */
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
