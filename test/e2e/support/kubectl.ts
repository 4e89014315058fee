import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Pod } from "../../../src/kube/resource.ts";
import { findClientTools } from "../../../testbed/cluster/client-tools.ts";
import type { E2eCluster } from "./provided.ts";
import type { E2eWorld } from "./world.ts";

/** Far more than a description of every object of a run. */
const MAX_OUTPUT_BYTES = 64 * 1024 ** 2;

/** The result of a run of kubectl. */
export interface KubectlResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs kubectl with cluster-admin rights. Also resolves if kubectl fails, with its exit code. */
export async function tryKubectl(
  { kubeconfig, dir }: Pick<E2eCluster, "kubeconfig" | "dir">,
  args: readonly string[],
): Promise<KubectlResult> {
  // Without the user's own configuration; the discovery cache is in the run's folder.
  const env = { ...process.env, KUBECONFIG: kubeconfig, HOME: dir };
  const command = join(await findClientTools(), "kubectl");
  try {
    const { stdout, stderr } = await promisify(execFile)(command, args, { env, maxBuffer: MAX_OUTPUT_BYTES });
    return { code: 0, stdout, stderr };
  } catch (error) {
    const { code, stdout, stderr } = error as { code?: unknown; stdout?: string; stderr?: string };
    if (typeof code !== "number") throw error;
    return { code, stdout: stdout ?? "", stderr: stderr ?? "" };
  }
}

/** The output of kubectl. @throws {Error} with kubectl's message if it fails */
export async function kubectl(cluster: E2eCluster, args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await tryKubectl(cluster, args);
  if (code !== 0) throw new Error(`kubectl ${args.join(" ")}: ${stderr || stdout}`);
  return stdout;
}

/** Runs a command in a Pod's session container, in its working directory, and returns its output. */
export function execIn(world: E2eWorld, pod: Pod, command: readonly string[], container?: string): Promise<string> {
  const { namespace, cluster } = world;
  const where = [pod.metadata.name ?? "", ...(container === undefined ? [] : ["--container", container])];
  return kubectl(cluster, ["exec", "--namespace", namespace, ...where, "--", ...command]);
}
