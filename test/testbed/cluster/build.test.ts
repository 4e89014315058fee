import { access, chmod, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { compiling, countPackages, downloading, findBinaries, goErrors } from "../../../testbed/cluster/build.ts";
import {
  CONTROL_PLANE,
  cacheKey,
  kubernetesMinors,
  TOOLS_DIR,
  toolModules,
} from "../../../testbed/cluster/versions.ts";
import { machine, recorder } from "./machine.ts";
import { temporaryDir } from "./temporary.ts";

describe("the binaries of the control plane", () => {
  it("are built once and then found in the cache", async () => {
    const { env, calls, cache } = await machine();
    const built = await findBinaries({ env });
    expect(built.from).toBe("build");
    expect((await readdir(built.dir)).sort()).toEqual([...CONTROL_PLANE].sort());
    const before = (await calls()).length;
    expect(await findBinaries({ env })).toEqual({ dir: built.dir, from: "cache" });
    expect((await calls()).length).toBe(before);
    expect(await readdir(cache)).toHaveLength(1);
  });

  it("are built with separate caches, which are removed", async () => {
    const { env } = await machine({ GOCACHE: "/the/users/own" });
    const { dir } = await findBinaries({ env });
    const goCache = (await readFile(join(dir, "etcd"), "utf8")).trim();
    expect(goCache).toMatch(/\/\.building-kubernetes-v[\w.-]+-[0-9a-f]+\/gocache$/);
    await expect(access(goCache)).rejects.toThrow();
  });

  it("are built stripped and with their real version", async () => {
    const { env, calls } = await machine();
    await findBinaries({ env });
    const kubernetes = (await calls()).find((call) => call.startsWith("build") && call.includes("kube-apiserver"));
    expect(kubernetes).toContain("-ldflags -s -w -X k8s.io/component-base/version.gitVersion=v1.37.2");
  });

  it("are built once for several callers that need them at once", async () => {
    const { env, calls } = await machine();
    const found = await Promise.all([findBinaries({ env }), findBinaries({ env }), findBinaries({ env })]);
    expect(found.map(({ from }) => from).sort()).toEqual(["build", "cache", "cache"]);
    expect((await calls()).filter((call) => call.startsWith("build"))).toHaveLength(2);
  });

  it("are those of KUBEBUILDER_ASSETS if all exist", async () => {
    const { env, calls } = await machine();
    const assets = await temporaryDir();
    for (const name of CONTROL_PLANE) await writeFile(join(assets, name), "", { mode: 0o755 });
    const found = await findBinaries({ env: { ...env, KUBEBUILDER_ASSETS: assets } });
    expect(found).toEqual({ dir: assets, from: "KUBEBUILDER_ASSETS" });
    expect(await calls()).toEqual([""]);
  });

  it("are not those of KUBEBUILDER_ASSETS if one is missing or isn't executable", async () => {
    const { env } = await machine();
    const assets = await temporaryDir();
    for (const name of ["etcd", "kube-apiserver", "kube-scheduler"]) {
      await writeFile(join(assets, name), "", { mode: 0o755 });
    }
    await chmod(join(assets, "etcd"), 0o644);
    const progress = recorder();
    const found = await findBinaries({ env: { ...env, KUBEBUILDER_ASSETS: assets }, progress });
    expect(found.from).toBe("build");
    expect(progress.lines[0]).toBe(
      `ignoring KUBEBUILDER_ASSETS: ${assets} does not contain etcd, kube-controller-manager`,
    );
  });

  it("leave nothing behind if the build fails, and the error says why", async () => {
    const { env, cache } = await machine({ FAKE_FAILURE: "undefined: x" });
    await expect(findBinaries({ env })).rejects.toThrow(/go build of etcd v3\.7\.3 ended with 1:\n.*undefined: x/s);
    expect(await readdir(cache)).toEqual([]);
  });

  it("are built after a killed build, whose folder is removed", async () => {
    const { env, cache } = await machine();
    const key = await cacheKey(await toolModules());
    await mkdir(join(cache, `.building-${key}-0123456789ab`, "gocache"), { recursive: true });
    const { dir } = await findBinaries({ env });
    expect((await readdir(cache)).map((name) => join(cache, name))).toEqual([dir]);
  });

  it("are of the requested minor version, next to those of others", async () => {
    const { env, cache } = await machine();
    const minors = await kubernetesMinors();
    const found = await Promise.all(
      minors.map((minor) => findBinaries({ env: { ...env, BERTH_TEST_KUBERNETES: minor } })),
    );
    expect(found.map(({ from }) => from)).toEqual(minors.map(() => "build"));
    expect((await readdir(cache)).map((name) => /^kubernetes-v(\d+\.\d+)\./.exec(name)?.[1]).sort()).toEqual(minors);
    expect(await findBinaries({ env })).toEqual({ dir: found.at(-1)?.dir, from: "cache" });
  });

  it("leave the folder of another version's running build alone", async () => {
    const { env, cache } = await machine();
    const [oldest] = await kubernetesMinors();
    const key = await cacheKey(await toolModules(TOOLS_DIR, oldest));
    const other = join(cache, `.building-${key}-0123456789ab`);
    await mkdir(join(other, "gocache"), { recursive: true });
    await findBinaries({ env });
    await expect(access(join(other, "gocache"))).resolves.toBeUndefined();
  });

  it("can't be of a version without a module, and the error lists the existing ones", async () => {
    const { env } = await machine({ BERTH_TEST_KUBERNETES: "1.12" });
    const minors = (await kubernetesMinors()).join(", ");
    await expect(findBinaries({ env })).rejects.toThrow(`set BERTH_TEST_KUBERNETES to one of ${minors}.`);
  });
});

describe("the progress of a build", () => {
  const log = "go: downloading k8s.io/api v0.36.3\nfmt\nk8s.io/api/core/v1\n# k8s.io/x\n";

  it("counts the packages to compile", () => {
    expect(countPackages("go: downloading x v1\nunsafe\nfmt\nmain\n")).toBe(2);
  });

  it("shows what is being fetched", () => {
    expect(downloading(log)).toBe("fetching sources, 1 modules, now k8s.io/api");
    expect(downloading("")).toBe("fetching sources");
  });

  it("shows which binaries are done and how many packages", () => {
    expect(compiling(log, 10, ["a", "b"])).toBe("2 of 10 packages, a done, b done, now k8s.io/api/core/v1");
    expect(compiling("", 10, [])).toBe("0 of 10 packages");
  });

  it("keeps the errors of a failed build", () => {
    expect(goErrors(`${log}x.go:1:2: undefined: y\n`)).toBe("# k8s.io/x\nx.go:1:2: undefined: y");
  });
});
