import { appendFile, cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  cacheKey,
  kubernetesMinors,
  kubernetesVersionFlags,
  minorOf,
  requiredVersion,
  TOOLS_DIR,
  toolModules,
} from "../../../testbed/cluster/versions.ts";
import { temporaryDir } from "./temporary.ts";

const minors = await kubernetesMinors();
const linux = { os: "linux", arch: "x64" };

async function keyWith(change: (toolsDir: string) => Promise<void>): Promise<string> {
  const dir = await temporaryDir();
  await cp(TOOLS_DIR, dir, { recursive: true });
  await change(dir);
  return await cacheKey(await toolModules(dir), linux);
}

describe("the cache key of a control plane", () => {
  it("tells people what the folder contains", async () => {
    expect(await cacheKey(await toolModules(), linux)).toMatch(
      /^kubernetes-v1\.37\.2-etcd-v3\.7\.3-linux-x64-[0-9a-f]{12}$/,
    );
  });

  it("is the same for a copy of the modules in another folder", async () => {
    expect(await keyWith(async () => {})).toBe(await cacheKey(await toolModules(), linux));
  });

  it("changes with the platform", async () => {
    const modules = await toolModules();
    const keys = [linux, { os: "linux", arch: "arm64" }, { os: "darwin", arch: "arm64" }].map((platform) =>
      cacheKey(modules, platform),
    );
    expect(new Set(await Promise.all(keys)).size).toBe(3);
  });

  it.each([
    ["a version", "kubernetes/go.mod", "k8s.io/kubernetes v1.37.2", "k8s.io/kubernetes v1.37.3"],
    ["a replaced module", "kubernetes/go.mod", "k8s.io/api v0.37.2", "k8s.io/api v0.37.3"],
  ])("changes with %s", async (_name, file, from, to) => {
    const changed = await keyWith(async (dir) => {
      const text = await readFile(join(dir, file), "utf8");
      expect(text).toContain(from);
      await writeFile(join(dir, file), text.replaceAll(from, to));
    });
    expect(changed).not.toBe(await cacheKey(await toolModules(), linux));
  });

  it("changes with a checksum", async () => {
    const changed = await keyWith((dir) => appendFile(join(dir, "etcd/go.sum"), "example.com/x v1.0.0 h1:AAAA=\n"));
    expect(changed).not.toBe(await cacheKey(await toolModules(), linux));
  });
});

describe("the modules of tools", () => {
  it.each(minors)("of Kubernetes %s replace every sibling module with the matching release", async (minor) => {
    const dir = (await toolModules(TOOLS_DIR, minor)).at(-1)?.dir ?? "";
    const text = await readFile(join(dir, "go.mod"), "utf8");
    expect(minorOf(requiredVersion(text, "k8s.io/kubernetes"))).toBe(minor);
    const version = requiredVersion(text, "k8s.io/kubernetes").replace("v1.", "v0.");
    const replaced = [...text.matchAll(/^replace (\S+) => (\S+) (\S+)$/gm)];
    expect(replaced.length).toBeGreaterThan(25);
    for (const [, from, to, at] of replaced) expect([to, at]).toEqual([from, version]);
  });

  it.each([
    ["in a block", "require (\n\tk8s.io/kubernetes v1.2.3 // indirect\n)", "v1.2.3"],
    ["on a separate line", "require k8s.io/kubernetes v1.2.3\n", "v1.2.3"],
  ])("name their version %s", (_name, text, version) => {
    expect(requiredVersion(text, "k8s.io/kubernetes")).toBe(version);
  });

  it("must name a version", () => {
    const text = "tool k8s.io/kubernetes/cmd/kube-apiserver\nreplace k8s.io/api => k8s.io/api v0.1.0\n";
    expect(() => requiredVersion(text, "k8s.io/kubernetes")).toThrow("go.mod has no version of k8s.io/kubernetes");
    expect(() => requiredVersion(text, "k8s.io/api")).toThrow("go.mod has no version of k8s.io/api");
  });

  it("give the binaries their version", () => {
    expect(kubernetesVersionFlags("v1.36.3")).toContain(
      "-X k8s.io/component-base/version.gitVersion=v1.36.3 -X k8s.io/component-base/version.gitMajor=1 " +
        "-X k8s.io/component-base/version.gitMinor=36",
    );
  });
});
