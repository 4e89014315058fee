import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { loadavg } from "node:os";
import type { Simulator } from "../../simulator/simulator.ts";
import { ApiClient } from "../../testbed/cluster/api.ts";
import { AuditLog } from "../../testbed/cluster/audit.ts";
import type { NodeState } from "../../testbed/real-node/control-protocol.ts";
import { type ControlPlane, Stand } from "../support/stand.ts";
import type { NodeInput } from "./node-run.ts";

/** What a program that measures on the node works with. */
export interface Inside<Options> {
  readonly node: NodeState;
  readonly stand: Stand<ControlPlane>;
  readonly seed: number;
  readonly options: Options;
  /** Whether the bench got a signal: the program may end early, with the results that it has. */
  readonly isEnding: () => boolean;
}

/** Runs a measurement in the node's namespaces, and writes its result for `runOnNode`. */
export async function measureInside<Options>(measure: (inside: Inside<Options>) => Promise<unknown>): Promise<void> {
  const { node, seed, options, resultFile, endFile } = JSON.parse(process.argv[2] ?? "{}") as NodeInput<Options>;
  const ca = await readFile(node.caFile, "utf8");
  const { server, adminToken, kubeconfig, operatorKubeconfig } = node;
  await using things = new AsyncDisposableStack();
  const api = new ApiClient(server, ca, adminToken);
  things.defer(() => api.close());
  const audit = new AuditLog(node.auditLog, (path) => api.get(path));
  const stand = things.use(await Stand.on({ api, audit, kubeconfig, operatorKubeconfig }));
  const result = await measure({ node, stand, seed, options, isEnding: () => existsSync(endFile) });
  await writeFile(resultFile, JSON.stringify(result));
}

/** Starts a simulator that Pods can reach. */
export function startNodeSimulator({ node, stand }: Inside<unknown>): Promise<Simulator> {
  return stand.simulator({ host: node.address });
}

/** The machine's load over the last minute, which says how much else ran beside a measurement. */
export const load = (): number => loadavg()[0] ?? Number.NaN;
