import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, readlink, rm } from "node:fs/promises";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { describe, expect, onTestFinished, test } from "vitest";
import { cgroupName, hierarchies } from "../../../testbed/real-node/cgroups.ts";
import { PAUSE_IMAGE } from "../../../testbed/real-node/containerd.ts";
import { connectNodeControl } from "../../../testbed/real-node/control-client.ts";
import { e2eCluster, hasNodeControl } from "../support/provided.ts";

const MAIN = fileURLToPath(new URL("../support/node-owner.ts", import.meta.url));
/** By then everything is gone that will ever be removed. */
const PATIENCE = { timeout: 60_000, interval: 100 };

/** The sandbox's image as an archive, exported from the node that the tests share. */
async function exportPause(dir: string): Promise<string> {
  const control = connectNodeControl(e2eCluster().nodeControl ?? "");
  const { containerdSocket } = await control.state();
  const archive = join(dir, "pause.tar");
  const { code, stderr } = await control.run("ctr", [
    ...["--address", containerdSocket, "--namespace", "k8s.io"],
    // The daemon's transfer service sometimes ends before the file is complete, so export locally.
    ...["images", "export", "--local", archive, PAUSE_IMAGE],
  ]);
  if (code !== 0) throw new Error(stderr);
  return archive;
}

/** A process that runs a node, with all its files in its own folder. */
class Owner {
  readonly process: ChildProcess;
  readonly temporary: string;
  readonly #lines: AsyncIterator<string>;

  constructor(archive: string, temporary: string) {
    this.temporary = temporary;
    const env = { ...process.env, TMPDIR: temporary };
    this.process = spawn(process.execPath, [MAIN, archive], { env, stdio: ["ignore", "pipe", "inherit"] });
    if (!this.process.stdout) throw new Error("no output");
    this.#lines = createInterface({ input: this.process.stdout })[Symbol.asyncIterator]();
  }

  /** The next line that it prints. */
  async line(): Promise<Record<string, unknown>> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error("the node's owner ended");
    return JSON.parse(value) as Record<string, unknown>;
  }

  /** The common prefix of its control groups' names. */
  get groups(): string {
    return cgroupName(this.process.pid).replace(/-[^-]+-[^-]+$/, "-");
  }
}

/**
 * Processes of the node in this folder: those it started, and those of its Pods, in its namespaces or control groups.
 */
async function processesOf(dir: string, groups: string): Promise<number[]> {
  const all = await Promise.all((await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(describeProcess));
  const isInit = (line: string) => line.includes(`${dir}/node.json`) && !line.startsWith("unshare");
  const namespaces = new Set(all.filter(({ line }) => isInit(line)).map(({ network }) => network));
  const isIts = ({ line, network, group }: ProcessSeen) =>
    line.includes(dir) || namespaces.has(network) || group.includes(groups);
  return all.filter(isIts).map(({ pid }) => pid);
}

interface ProcessSeen {
  readonly pid: number;
  readonly line: string;
  readonly network: string;
  readonly group: string;
}

async function describeProcess(id: string): Promise<ProcessSeen> {
  const [line, network, group] = await Promise.all([
    readFile(`/proc/${id}/cmdline`, "utf8").catch(() => ""),
    readlink(`/proc/${id}/ns/net`).catch(() => "?"),
    readFile(`/proc/${id}/cgroup`, "utf8").catch(() => ""),
  ]);
  return { pid: Number(id), line: line.replaceAll("\0", " "), network, group };
}

/** What this node has on the machine: its processes, and everything else it might leave. */
async function tracesOf(owner: Owner, dir: string, pids: readonly number[]) {
  const mounts = (await readFile("/proc/self/mounts", "utf8")).split("\n").filter((line) => line.includes(dir));
  const groups = (await Promise.all((await hierarchies()).map((hierarchy) => readdir(hierarchy)))).flat();
  return {
    processes: (await Promise.all(pids.map(async (pid) => (await describeProcess(String(pid))).line))).filter(Boolean),
    started: await processesOf(dir, owner.groups),
    mounts,
    groups: groups.filter((name) => name.startsWith(owner.groups)),
    files: await readdir(owner.temporary),
    links: Object.keys(networkInterfaces()).filter((name) => /^(node0|pods0|veth)/.test(name)),
  };
}

describe.skipIf(!hasNodeControl())("nothing is left of a node", () => {
  test.each(["SIGTERM", "SIGKILL"] as const)("when its owner gets %s", async (signal) => {
    const temporary = await mkdtemp(join(tmpdir(), "berth-owner-"));
    onTestFinished(() => rm(temporary, { recursive: true, force: true }));
    const archives = await mkdtemp(join(tmpdir(), "berth-archive-"));
    onTestFinished(() => rm(archives, { recursive: true, force: true }));
    const owner = new Owner(await exportPause(archives), temporary);
    onTestFinished(() => void owner.process.kill("SIGKILL"));
    const { dir } = (await owner.line()) as { dir: string };
    const pids = await processesOf(dir, owner.groups);
    const before = await tracesOf(owner, dir, pids);
    // Shows that the search finds something: the control plane, the node's programs, and two containers.
    for (const program of ["kube-apiserver", "kubelet", "containerd ", "containerd-shim", "sleep"]) {
      expect(
        before.processes.some((line) => line.includes(program)),
        program,
      ).toBe(true);
    }
    expect(before.groups.length).toBeGreaterThan(0);
    expect(before.files.length).toBeGreaterThan(0);
    owner.process.kill(signal);
    if (signal === "SIGTERM") console.log(`stopped after ${(await owner.line())["stoppedAfterMs"]} ms`);
    else await once(owner.process, "exit");
    const nothing = { processes: [], started: [], mounts: [], groups: [], files: [], links: [] };
    // An orderly end removes everything before it reports; after SIGKILL, the cleanup takes a moment.
    if (signal === "SIGTERM") expect(await tracesOf(owner, dir, pids)).toEqual(nothing);
    else await expect.poll(() => tracesOf(owner, dir, pids), PATIENCE).toEqual(nothing);
  });
});
