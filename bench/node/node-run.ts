import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { showProgress } from "../../testbed/cluster/progress.ts";
import { buildImages } from "../../testbed/images/images.ts";
import type { NodeState } from "../../testbed/real-node/control-protocol.ts";
import { startNodeCluster } from "../../testbed/real-node/node-cluster.ts";

/** The input of a program that measures on the node, as JSON. */
export interface NodeInput<T> {
  readonly node: NodeState;
  readonly seed: number;
  /** The program writes its result to this file, as JSON. */
  readonly resultFile: string;
  /** When this file exists, the program may end early, with the results that it has. */
  readonly endFile: string;
  readonly options: T;
}

/** What a run needs. */
export interface NodeRun {
  readonly seed: number;
  /** For the program. */
  readonly options: unknown;
  /** Whether the node also runs Pods with gVisor. */
  readonly gvisor?: boolean;
}

const NAME = "bench";
/** A busy machine delays a node's heartbeats, and a lost node would end its Pods. */
const LOST_NODE = "--node-monitor-grace-period=40s";

/**
 * Starts a real node, and runs a program in its namespaces, where it reaches the API server, the Pods, and the node's
 * processes directly. Needs root.
 * @param main the program, which calls `measureInside`
 * @param log receives the lines that the program prints
 * @throws {Error} with the program's last lines if it fails
 */
export async function runOnNode<Result>(
  main: URL,
  { seed, options, gvisor = false }: NodeRun,
  log: (line: string) => void,
): Promise<Result> {
  const progress = showProgress();
  const { archive } = await buildImages({ progress });
  const extraArgs = { controllerManager: [LOST_NODE] };
  await using cluster = await startNodeCluster({ progress, gvisor, images: [archive], extraArgs });
  progress.clear();
  const { control, state } = cluster;
  const files = { resultFile: join(cluster.dir, "result.json"), endFile: join(cluster.dir, "end") };
  const input: NodeInput<unknown> = { node: state, seed, options, ...files };
  await control.spawn({ name: NAME, command: process.execPath, args: [main.pathname, JSON.stringify(input)] });
  const output = join(state.logs, `${NAME}.log`);
  using _passing = onSignal(() => writeFile(input.endFile, ""));
  let shown = 0;
  for (;;) {
    const end = await control.ended(NAME);
    const lines = (await readFile(output, "utf8")).split("\n").slice(0, -1);
    for (const line of lines.slice(shown)) log(line);
    shown = lines.length;
    if (end === undefined) continue;
    if (end.code !== 0) throw new Error(`${main.pathname} ended with ${end.code ?? end.signal}, see its lines above`);
    return JSON.parse(await readFile(input.resultFile, "utf8")) as Result;
  }
}

/** Calls `end` at the first SIGINT or SIGTERM. A second one ends the bench. */
function onSignal(end: () => Promise<void>): Disposable {
  const listener = () => void end();
  const signals = ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) process.once(signal, listener);
  return {
    [Symbol.dispose]() {
      for (const signal of signals) process.off(signal, listener);
    },
  };
}
