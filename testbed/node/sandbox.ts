import { mkdir, rm } from "node:fs/promises";
import { delimiter, dirname, join, normalize } from "node:path";
import type { Container, Pod } from "../../src/kube/objects.ts";

/** Folders that a session's container must be able to write to, whatever its Pod mounts. */
const ALWAYS_MAPPED = ["/workspace", "/mnt/memory", "/dev/termination-log"] as const;

const SYSTEM_PATH = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"];

/**
 * The part of the file system that one Pod's processes are given: a folder that stands for the root of its containers,
 * with a home and a folder for temporary files beside it. There is no wall around it: paths that the Pod mounts, and
 * the working directory, are mapped into it, and nothing tells a process of any other.
 */
export class Sandbox {
  readonly dir: string;

  /** @param podsDir folder of all sandboxes of a node. */
  constructor(podsDir: string, { metadata }: Pod) {
    // As kubelet names the folders of logs: unique also when a name comes back.
    this.dir = join(podsDir, `${metadata.namespace}_${metadata.name}_${metadata.uid}`);
  }

  get home(): string {
    return join(this.dir, "home");
  }

  get tmp(): string {
    return join(this.dir, "tmp");
  }

  /** Where a path of the containers lies on this machine. */
  path(containerPath: string): string {
    return join(this.dir, "root", normalize(`/${containerPath}`));
  }

  logFile(container: string, restartCount: number): string {
    return join(this.dir, "logs", container, `${restartCount}.log`);
  }

  /** Makes the folders that a container needs. */
  async make(container: Container, restartCount: number): Promise<void> {
    const folders = [
      this.home,
      this.tmp,
      this.workingDir(container),
      dirname(this.logFile(container.name, restartCount)),
      ...ALWAYS_MAPPED.map((path) => (path === "/dev/termination-log" ? dirname(this.path(path)) : this.path(path))),
      ...mountPaths(container).map((path) => this.path(path)),
    ];
    for (const folder of folders) await mkdir(folder, { recursive: true, mode: 0o700 });
  }

  workingDir(container: Container): string {
    return this.path((container["workingDir"] as string | undefined) ?? "/workspace");
  }

  terminationLog(container: Container): string {
    return this.path((container["terminationMessagePath"] as string | undefined) ?? "/dev/termination-log");
  }

  /** A word of a command or an environment: one that is a path below a mount is moved to where that lies here. */
  map(container: Container, word: string): string {
    const mounts = [...ALWAYS_MAPPED, ...mountPaths(container)];
    const inside = mounts.some((mount) => word === mount || word.startsWith(`${mount}/`));
    return inside ? this.path(word) : word;
  }

  /** The whole environment of a process: what the Pod says, and no more of this machine than where to find programs. */
  environment(pod: Pod, container: Container, resolved: Readonly<Record<string, string>>): Record<string, string> {
    const mapped = Object.entries(resolved).map(([name, value]) => [name, this.map(container, value)]);
    return {
      HOSTNAME: pod.metadata.name ?? "",
      WORKSPACE: this.path("/workspace"),
      MEMORY_DIR: this.path("/mnt/memory"),
      TERMINATION_LOG: this.terminationLog(container),
      ...Object.fromEntries(mapped),
      PATH: [dirname(process.execPath), ...SYSTEM_PATH].join(delimiter),
      HOME: this.home,
      TMPDIR: this.tmp,
    };
  }

  async remove(): Promise<void> {
    await rm(this.dir, { recursive: true, force: true, maxRetries: 3 });
  }
}

function mountPaths(container: Container): string[] {
  const mounts = (container["volumeMounts"] ?? []) as { mountPath: string }[];
  return mounts.map(({ mountPath }) => mountPath.replace(/\/+$/, "")).filter((path) => path !== "");
}
