/** `npm run cluster`: a control plane to play with. See arguments.ts for what it takes. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:os";
import { delimiter } from "node:path";
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
      return await keep();
    case "run":
      return await run(request.command, request.args);
  }
}

async function keep(): Promise<number> {
  // Until it runs, Ctrl-C just ends this process, and everything with it.
  await using cluster = await start();
  const interrupted = untilInterrupted();
  const takeBack = await announceCluster(cluster);
  console.log(
    `Kubernetes ${cluster.version} runs at ${cluster.server}, with no nodes. Ctrl-C ends it.\n\n` +
      `  export KUBECONFIG=${cluster.kubeconfig}\n\n` +
      "or, in this folder:\n\n" +
      "  npm run cluster -- kubectl get ns\n",
  );
  await interrupted;
  await takeBack();
  return 0;
}

async function run(command: string, args: readonly string[]): Promise<number> {
  const [running] = await runningClusters();
  if (running) return await runAgainst(running.kubeconfig, command, args);
  await using cluster = await start();
  return await runAgainst(cluster.kubeconfig, command, args);
}

async function start(): Promise<Cluster> {
  const cluster = await startCluster({ progress });
  progress.clear();
  await installBerth(cluster.api);
  return cluster;
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
