import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { access, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { findBinaries } from "../../testbed/cluster/build.ts";
import { announceCluster } from "../../testbed/cluster/running.ts";
import { useCluster } from "../support/cluster.ts";

const MAIN = join(import.meta.dirname, "../../testbed/cluster/main.ts");

const cluster = useCluster();
/** A separate cache, so that the command does not find a cluster that is already running. */
let cache: string;
let env: NodeJS.ProcessEnv;

beforeAll(async () => {
  cache = await mkdtemp(join(tmpdir(), "berth-test-"));
  const { dir } = await findBinaries();
  env = { ...process.env, XDG_CACHE_HOME: cache, KUBEBUILDER_ASSETS: dir };
});
afterAll(() => rm(cache, { recursive: true, force: true }));

function start(...args: string[]): ChildProcess {
  return spawn(process.execPath, [MAIN, ...args], { env, stdio: ["ignore", "pipe", "inherit"] });
}

async function run(...args: string[]): Promise<{ out: string; code: number | null }> {
  const child = start(...args);
  let out = "";
  child.stdout?.on("data", (chunk) => {
    out += chunk;
  });
  const [code] = (await once(child, "close")) as [number | null];
  return { out, code };
}

describe("npm run cluster -- COMMAND", () => {
  it("uses a running cluster, and passes the exit code on", async () => {
    const takeBack = await announceCluster(cluster, env);
    expect(await run("sh", "-c", "echo $KUBECONFIG; exit 7")).toEqual({ out: `${cluster.kubeconfig}\n`, code: 7 });
    expect(await run("sh", "-c", "kill -KILL $$")).toEqual({ out: "", code: 137 });
    expect(await run("nonesuch")).toEqual({ out: "", code: 127 });
    await takeBack();
  });

  it("starts a cluster for the command if none is running, and stops it afterwards", async () => {
    const { out, code } = await run("sh", "-c", 'test -f "$KUBECONFIG" && echo $KUBECONFIG; exit 3');
    expect(code).toBe(3);
    expect(out).toMatch(/berth-admin\.kubeconfig\n$/);
    await expect(access(dirname(dirname(out.trim())))).rejects.toThrow();
  });

  it("exits with code 2 for an unknown flag", async () => {
    expect((await run("--nonesuch")).code).toBe(2);
  });
});

describe("npm run cluster", () => {
  it("keeps a cluster that commands can find until it is interrupted", async () => {
    const keeper = start();
    onTestFinished(() => void keeper.kill("SIGKILL"));
    let told = "";
    for await (const chunk of keeper.stdout ?? []) {
      told += chunk;
      if (told.includes("npm run cluster -- ")) break;
    }
    const kubeconfig = /export KUBECONFIG=(\S+)/.exec(told)?.[1] ?? "";
    expect(await run("sh", "-c", "echo $KUBECONFIG")).toEqual({ out: `${kubeconfig}\n`, code: 0 });
    keeper.kill("SIGINT");
    expect(await once(keeper, "exit")).toEqual([0, null]);
    await expect(access(dirname(dirname(kubeconfig)))).rejects.toThrow();
  });
});
