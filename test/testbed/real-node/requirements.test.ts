import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { missingPackages, systemPath } from "../../../testbed/real-node/requirements.ts";
import { NODE_BINARIES, nodeModules } from "../../../testbed/real-node/versions.ts";

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "berth-test-"));
});
afterEach(() => rm(dir, { recursive: true }));

async function program(folder: string, name: string): Promise<void> {
  await mkdir(join(dir, folder), { recursive: true });
  await writeFile(join(dir, folder, name), "");
  await chmod(join(dir, folder, name), 0o755);
}

test("a package is missing until all of its programs are on the path", async () => {
  const path = [join(dir, "one"), join(dir, "two")].join(":");
  expect(missingPackages(path)).toEqual(expect.arrayContaining(["runc", "util-linux", "buildah"]));
  await program("one", "runc");
  await program("one", "unshare");
  expect(missingPackages(path)).not.toContain("runc");
  expect(missingPackages(path)).toContain("util-linux");
  await program("two", "nsenter");
  expect(missingPackages(path)).not.toContain("util-linux");
});

test("the system's programs are found even if PATH lacks their folders", () => {
  expect(systemPath("/usr/bin").split(":")).toEqual(["/usr/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"]);
  expect(systemPath(undefined)).not.toMatch(/^:|::/);
});

test("every program of a node is built from one of its modules, at the version of the control plane", async () => {
  const modules = await nodeModules();
  expect(modules.flatMap(({ commands }) => Object.keys(commands)).sort()).toEqual([...NODE_BINARIES].sort());
  const { toolModules } = await import("../../../testbed/cluster/versions.ts");
  const versions = [...modules, ...(await toolModules())].filter(({ module }) => module === "k8s.io/kubernetes");
  expect(new Set(versions.map(({ version }) => version)).size).toBe(1);
  expect(versions).toHaveLength(2);
});
