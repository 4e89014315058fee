import { execFile } from "node:child_process";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { cacheRoot } from "../../../testbed/cluster/cache.ts";
import { announceCluster, runningClusters } from "../../../testbed/cluster/running.ts";
import { temporaryDir } from "./temporary.ts";

async function announcements(cache: string): Promise<string> {
  const clusters = join(cache, "berth", "clusters");
  const [project = ""] = await readdir(clusters);
  return join(clusters, project);
}

describe("a running cluster", () => {
  it("is found until it's withdrawn", async () => {
    const env = { XDG_CACHE_HOME: await temporaryDir() };
    const takeBack = await announceCluster({ kubeconfig: "/k" }, env);
    expect(await runningClusters(env)).toMatchObject([{ kubeconfig: "/k", pid: process.pid }]);
    await takeBack();
    expect(await runningClusters(env)).toEqual([]);
  });

  it("is forgotten with its process, like an announcement that can't be read", async () => {
    const cache = await temporaryDir();
    const env = { XDG_CACHE_HOME: cache };
    await announceCluster({ kubeconfig: "/k" }, env);
    const dir = await announcements(cache);
    const gone = { kubeconfig: "/gone", pid: process.pid, started: "1", announcedAt: 1 };
    await writeFile(join(dir, "1.json"), JSON.stringify(gone));
    await writeFile(join(dir, "2.json"), "{");
    expect((await runningClusters(env)).map(({ kubeconfig }) => kubeconfig)).toEqual(["/k"]);
    expect(await readdir(dir)).toEqual([`${process.pid}.json`]);
  });

  it("is the newest if there are several", async () => {
    const cache = await temporaryDir();
    const env = { XDG_CACHE_HOME: cache };
    await announceCluster({ kubeconfig: "/new" }, env);
    const dir = await announcements(cache);
    const [first] = await runningClusters(env);
    await writeFile(join(dir, "1.json"), JSON.stringify({ ...first, kubeconfig: "/old", announcedAt: 1 }));
    expect((await runningClusters(env)).map(({ kubeconfig }) => kubeconfig)).toEqual(["/new", "/old"]);
  });
});

describe("npm run cluster -- COMMAND", () => {
  it.each([
    ["without a cluster", [], "No cluster of this checkout is running.", "`npm run cluster`"],
    [
      "without a cluster that has a node",
      ["--node"],
      "No cluster of this checkout with a node is running.",
      "`npm run cluster -- --node`",
    ],
  ])("is refused %s, with the command that starts one", async (_name, flags, problem, fix) => {
    const main = join(import.meta.dirname, "../../../testbed/cluster/main.ts");
    // Without a compiler, a command that started a cluster would fail.
    const env = { XDG_CACHE_HOME: await temporaryDir(), PATH: "/nonexistent" };
    if (flags.length > 0) await announceCluster({ kubeconfig: "/k" }, env);
    const run = promisify(execFile)(process.execPath, [main, ...flags, "echo", "ran"], { env });
    const stderr = `${problem} Start one in another terminal with ${fix}, and run this command again.\n`;
    await expect(run).rejects.toMatchObject({ code: 1, stdout: "", stderr });
  });
});

describe("the cache", () => {
  it.each([
    ["where XDG says", { XDG_CACHE_HOME: "/x" }, /^\/x\/berth$/],
    ["in the home folder", {}, /\/\.cache\/berth$/],
    ["in the home folder when XDG says something relative", { XDG_CACHE_HOME: "x" }, /^\/.*\/\.cache\/berth$/],
  ])("is %s", (_name, env, expected) => {
    expect(cacheRoot(env)).toMatch(expected);
  });
});
