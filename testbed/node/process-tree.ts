import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { CONTAINER_MARK } from "./process-host-protocol.ts";

interface ProcessInfo {
  readonly pid: number;
  readonly parent: number;
  readonly group: number;
  readonly marked: boolean;
}

/**
 * Returns the processes of a container: everything that its first process started, in or outside its process group,
 * even if the first process has ended. A real container is a PID namespace, whose end kills everything in it. Here,
 * processes are found by their mark, group, and parents. A process escapes if it clears its whole environment, leaves
 * the group, and is orphaned.
 */
export function processesOf(id: string, firstPid: number): number[] {
  const all = listProcesses(id).filter(({ pid }) => pid !== process.pid);
  const members = new Set<number>();
  for (const { pid, group, marked } of all) {
    if (pid === firstPid || group === firstPid || marked) members.add(pid);
  }
  for (let before = -1; before !== members.size; ) {
    before = members.size;
    for (const { pid, parent } of all) if (members.has(parent)) members.add(pid);
  }
  return [...members];
}

function listProcesses(id: string): ProcessInfo[] {
  return process.platform === "linux" ? listProc(`${CONTAINER_MARK}=${id}`) : listByPs();
}

function listProc(mark: string): ProcessInfo[] {
  return readdirSync("/proc").flatMap((entry) => {
    if (!/^\d+$/.test(entry)) return [];
    try {
      const stat = readFileSync(`/proc/${entry}/stat`, "utf8");
      // The command name in parentheses may contain anything. The fields after it count.
      const [state, parent, group] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      if (state === "Z" || state === "X") return [];
      return [{ pid: Number(entry), parent: Number(parent), group: Number(group), marked: isMarked(entry, mark) }];
    } catch {
      // The process ended in the meantime.
      return [];
    }
  });
}

function isMarked(entry: string, mark: string): boolean {
  try {
    return readFileSync(`/proc/${entry}/environ`, "latin1").split("\0").includes(mark);
  } catch {
    // The process belongs to another user, so it isn't ours.
    return false;
  }
}

/** Without /proc (macOS), the mark can't be read, so only group and parents identify processes. */
function listByPs(): ProcessInfo[] {
  const { stdout } = spawnSync("ps", ["-axo", "pid=,ppid=,pgid=,stat="], { encoding: "utf8" });
  return stdout.split("\n").flatMap((line) => {
    const [pid, parent, group, state] = line.trim().split(/\s+/);
    if (!pid || state?.startsWith("Z")) return [];
    return [{ pid: Number(pid), parent: Number(parent), group: Number(group), marked: false }];
  });
}
