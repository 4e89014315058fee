import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { access, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { findBinaries } from "../../testbed/cluster/build.ts";
import { findClientTools } from "../../testbed/cluster/client-tools.ts";
import { announceCluster } from "../../testbed/cluster/running.ts";
import { ROOT } from "../project/lint-gate.ts";
import { useCluster } from "../support/cluster.ts";

const MAIN = join(ROOT, "testbed/cluster/main.ts");

const cluster = useCluster();
/** A separate cache, so that the command does not find another cluster. */
let cache: string;
let env: NodeJS.ProcessEnv;

beforeAll(async () => {
  cache = await mkdtemp(join(tmpdir(), "berth-test-"));
  const { dir } = await findBinaries();
  const path = [await findClientTools(), process.env["PATH"]].join(delimiter);
  // kubectl keeps a cache in the home directory, and helm its settings.
  env = {
    ...process.env,
    HOME: cache,
    XDG_CACHE_HOME: cache,
    KUBEBUILDER_ASSETS: dir,
    PATH: path,
    ENVIRONMENT_KEY: "key",
  };
});
afterAll(() => rm(cache, { recursive: true, force: true }));

function start(...args: string[]): ChildProcess {
  return spawn(process.execPath, [MAIN, ...args], { env, cwd: ROOT, stdio: ["ignore", "pipe", "inherit"] });
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

  it("exits with code 2 for an unknown flag", async () => {
    expect((await run("--nonesuch")).code).toBe(2);
  });
});

/** The commands in the README that install Berth and create an Environment. */
async function readmeCommands(): Promise<string[]> {
  const readme = await readFile(join(ROOT, "README.md"), "utf8");
  const [, section = ""] = /^## Install it\n([\s\S]*?)^## /m.exec(readme) ?? [];
  return [...section.matchAll(/^(?:helm|kubectl) .*$/gm)].map(([command]) => command);
}

describe("npm run cluster", () => {
  it("keeps a cluster until it is interrupted, and the README's commands work on it", async () => {
    const keeper = start();
    onTestFinished(() => void keeper.kill("SIGKILL"));
    let told = "";
    for await (const chunk of keeper.stdout ?? []) {
      told += chunk;
      if (told.includes("npm start")) break;
    }
    const kubeconfig = /export KUBECONFIG=(\S+)/.exec(told)?.[1] ?? "";
    expect(await run("sh", "-c", "echo $KUBECONFIG")).toEqual({ out: `${kubeconfig}\n`, code: 0 });
    // What it prints itself, for an operator outside the cluster. A dry run leaves the CRD to helm.
    const [apply = ""] = /(?<=npm run cluster -- )kubectl apply .*/.exec(told) ?? [];
    expect(await run("sh", "-c", `${apply} --dry-run=server`)).toMatchObject({ code: 0 });
    const commands = await readmeCommands();
    expect(commands).toHaveLength(6);
    for (const command of commands) expect(await run("sh", "-c", command), command).toMatchObject({ code: 0 });
    keeper.kill("SIGINT");
    expect(await once(keeper, "exit")).toEqual([0, null]);
    await expect(access(dirname(dirname(kubeconfig)))).rejects.toThrow();
  });
});
