import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { MissingToolError } from "../../../testbed/cluster/missing.ts";
import { findClusterRules } from "../../../testbed/monitoring/cluster-rules.ts";

const SUM = "h1:NHWLvZ1soAeLRC5BICwlga2p2Y33ICK4FXc4nxQ65T0=";

let dir: string;
let env: NodeJS.ProcessEnv;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "berth-test-"));
  env = { PATH: join(dir, "bin"), XDG_CACHE_HOME: join(dir, "cache"), HOME: dir };
  await mkdir(join(dir, "bin"));
  await mkdir(join(dir, "module", "manifests"), { recursive: true });
  await writeFile(join(dir, "module", "manifests", "kubernetesControlPlane-prometheusRule.yaml"), "spec: {}\n");
});
afterEach(() => rm(dir, { recursive: true }));

/** A compiler that only says its version, and otherwise runs this. */
async function goDoes(script: string): Promise<void> {
  const text = `#!/bin/sh\n[ "$1" = env ] && { echo go1.26.8; exit; }\n${script}\n`;
  await writeFile(join(dir, "bin", "go"), text);
  await chmod(join(dir, "bin", "go"), 0o755);
}

const downloaded = (sum: string) => `echo '${JSON.stringify({ Dir: join(dir, "module"), Sum: sum })}'`;

test("the rules are downloaded once, and nothing else is kept", async () => {
  await goDoes(downloaded(SUM));
  const file = await findClusterRules(env);
  expect(await readFile(file, "utf8")).toBe("spec: {}\n");
  await goDoes("exit 1");
  expect(await findClusterRules(env)).toBe(file);
  expect(await readdir(join(dir, "cache", "berth", "kube-prometheus"))).toEqual(["v0.18.0.yaml"]);
});

test("rules with another checksum are not used", async () => {
  await goDoes(downloaded("h1:another"));
  await expect(findClusterRules(env)).rejects.toThrow("kube-prometheus v0.18.0 has the checksum h1:another");
  expect(existsSync(join(dir, "cache", "berth", "kube-prometheus", "v0.18.0.yaml"))).toBe(false);
});

test("if they can't be downloaded, the error has Go's words", async () => {
  await goDoes(`echo '{"Error": "no such host"}'; exit 1`);
  const failed = findClusterRules(env);
  await expect(failed).rejects.toBeInstanceOf(MissingToolError);
  await expect(failed).rejects.toThrow("no such host");
});
