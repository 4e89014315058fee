import { dirname } from "node:path";
import type { Pod } from "../../../src/kube/resource.ts";
import { PAUSE, processesOf } from "./node-state.ts";
import { nodeControl } from "./operator-process.ts";
import type { E2eWorld } from "./world.ts";

const CGROUPS = "/sys/fs/cgroup";

/** Anonymous and kernel memory that a Pod's containers use in addition to its sandbox, in bytes. */
export async function memoryOf(world: E2eWorld, pod: Pod): Promise<number> {
  const processes = await processesOf(world, pod);
  const sandbox = processes.find(({ arguments: [command] }) => command === PAUSE);
  if (!sandbox) throw new Error(`Pod ${pod.metadata.name} has no sandbox`);
  const group = await memoryGroupOf(world, sandbox.pid);
  return (await memoryIn(world, dirname(group))) - (await memoryIn(world, group));
}

/** The folder of a process's control group: that of version 1 for memory, if there is one, or of version 2. */
async function memoryGroupOf(world: E2eWorld, pid: number): Promise<string> {
  const text = await read(world, `/proc/${pid}/cgroup`);
  const [, first] = /^\d+:memory:(.+)$/m.exec(text) ?? [];
  const [, second = ""] = /^0::(.+)$/m.exec(text) ?? [];
  return first === undefined ? `${CGROUPS}${second}` : `${CGROUPS}/memory${first}`;
}

async function memoryIn(world: E2eWorld, group: string): Promise<number> {
  const stat = new Map<string, number>();
  for (const line of (await read(world, `${group}/memory.stat`)).trim().split("\n")) {
    const [name = "", value] = line.split(" ");
    stat.set(name, Number(value));
  }
  const [anonymous, kernel] = [stat.get("anon"), stat.get("kernel")];
  if (anonymous !== undefined && kernel !== undefined) return anonymous + kernel;
  return (stat.get("total_rss") ?? Number.NaN) + Number(await read(world, `${group}/memory.kmem.usage_in_bytes`));
}

async function read(world: E2eWorld, file: string): Promise<string> {
  const { code, stdout, stderr } = await nodeControl(world).run("cat", [file]);
  if (code !== 0) throw new Error(stderr);
  return stdout;
}
