import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { copyFile, mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { cacheRoot } from "../cluster/cache.ts";
import { findGo, goEnvironment } from "../cluster/go.ts";
import { withLock } from "../cluster/lock.ts";
import { MissingToolError } from "../cluster/missing.ts";

/** kube-prometheus (Apache-2.0), which is also a Go module. `sum` is the checksum that go.sum would have. */
const MODULE = {
  path: "github.com/prometheus-operator/kube-prometheus",
  version: "v0.18.0",
  sum: "h1:NHWLvZ1soAeLRC5BICwlga2p2Y33ICK4FXc4nxQ65T0=",
};
/** Its rules about Pods, among others. */
const FILE = join("manifests", "kubernetesControlPlane-prometheusRule.yaml");

/**
 * Returns the path of kube-prometheus' PrometheusRule with a cluster's usual alerts. It is downloaded once (1 MB).
 * @throws MissingToolError if it isn't available
 */
export async function findClusterRules(env: NodeJS.ProcessEnv = process.env): Promise<string> {
  const file = join(cacheRoot(env), "kube-prometheus", `${MODULE.version}.yaml`);
  if (!existsSync(file)) {
    await withLock(`${file}.lock`, async () => {
      if (!existsSync(file)) await fetchRules(file, env);
    });
  }
  return file;
}

async function fetchRules(file: string, env: NodeJS.ProcessEnv): Promise<void> {
  const go = await findGo(env);
  const work = `${file}.fetching-${randomBytes(4).toString("hex")}`;
  await mkdir(work, { recursive: true });
  try {
    const { dir, sum } = await download(go, goEnvironment(env, go, work), work);
    if (sum !== MODULE.sum) throw new Error(`${MODULE.path} ${MODULE.version} has the checksum ${sum}`);
    await copyFile(join(dir, FILE), join(work, "rules.yaml"));
    await rename(join(work, "rules.yaml"), file);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function download(go: string, env: NodeJS.ProcessEnv, cwd: string): Promise<{ dir: string; sum: string }> {
  const args = ["mod", "download", "-json", `${MODULE.path}@${MODULE.version}`];
  try {
    const { stdout } = await promisify(execFile)(go, args, { cwd, env });
    const { Dir: dir, Sum: sum } = JSON.parse(stdout) as { Dir: string; Sum: string };
    return { dir, sum };
  } catch (error) {
    const said = error instanceof Error && "stdout" in error ? String(error.stdout).trim() : "";
    throw new MissingToolError(`go ${args.join(" ")} failed: ${said || error}`);
  }
}
