/** `node tools/helm.ts ARGUMENTS`: runs helm, and downloads it first if needed. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { findClientTools } from "../testbed/cluster/client-tools.ts";

/** The chart's folder. */
export const CHART = fileURLToPath(new URL("../charts/berth", import.meta.url));

/** A rendered chart with its CRD is 60 kB. */
const MAX_OUTPUT_BYTES = 16 * 1024 ** 2;

/** The result of a helm run. */
export interface HelmResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs helm, and downloads it first if needed. A failing helm resolves with its exit code.
 * @throws MissingToolError if helm is not available
 */
export async function helm(args: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<HelmResult> {
  const binary = join(await findClientTools({ env }), "helm");
  try {
    const { stdout, stderr } = await promisify(execFile)(binary, args, { env, maxBuffer: MAX_OUTPUT_BYTES });
    return { code: 0, stdout, stderr };
  } catch (error) {
    const { code, stdout, stderr } = error as { code?: unknown; stdout?: string; stderr?: string };
    if (typeof code !== "number") throw error;
    return { code, stdout: stdout ?? "", stderr: stderr ?? "" };
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { code, stdout, stderr } = await helm(process.argv.slice(2));
  process.stdout.write(stdout);
  process.stderr.write(stderr);
  process.exitCode = code;
}
