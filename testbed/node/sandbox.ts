import { mkdir, rm } from "node:fs/promises";
import { delimiter, dirname, join, normalize } from "node:path";
import { KEEPER_VOLUME } from "../../src/api/names.ts";
import type { Container, Pod } from "../../src/kube/objects.ts";

/** Folders that a session's container must be able to write to, regardless of its Pod's mounts. */
const ALWAYS_MAPPED = ["/workspace", "/mnt/memory", "/dev/termination-log"] as const;

const SYSTEM_PATH = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"];

/**
 * The part of the file system that one Pod's processes use: a folder for the root of its containers, next to a home and
 * a folder for temporary files. It isn't isolated. The paths that the Pod mounts and the working directory are mapped
 * into it, and a process isn't told about any other path.
 */
export class Sandbox {
  readonly dir: string;

  /** @param podsDir the folder of all sandboxes of a node */
  constructor(podsDir: string, { metadata }: Pod) {
    // The kubelet names log folders like this. The name stays unique if a Pod name is reused.
    this.dir = join(podsDir, `${metadata.namespace}_${metadata.name}_${metadata.uid}`);
  }

  get home(): string {
    return join(this.dir, "home");
  }

  get tmp(): string {
    return join(this.dir, "tmp");
  }

  /** Returns the local path for a path in the containers. */
  path(containerPath: string): string {
    return join(this.dir, "root", normalize(`/${containerPath}`));
  }

  logFile(container: string, restartCount: number): string {
    return join(this.dir, "logs", container, `${restartCount}.log`);
  }

  /** Creates the folders that a container needs. */
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

  /** Maps a word of a command or an environment. If it's a path below a mount, returns the local path. */
  map(container: Container, word: string): string {
    const mounts = [...ALWAYS_MAPPED, ...mountPaths(container)];
    const inside = mounts.some((mount) => word === mount || word.startsWith(`${mount}/`));
    if (inside) return this.path(word);
    // The scripts of a keeper and of turns name files of the keeper's volume.
    const [keeperMount] = mountPaths(container, KEEPER_VOLUME);
    return keeperMount === undefined ? word : word.replaceAll(`${keeperMount}/`, `${this.path(keeperMount)}/`);
  }

  /** Returns the whole environment of a process: the Pod's variables, and only the program path of this machine. */
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

/** @param volume the only volume that counts; by default all do */
function mountPaths(container: Container, volume?: string): string[] {
  const mounts = (container["volumeMounts"] ?? []) as { name: string; mountPath: string }[];
  const counting = mounts.filter(({ name }) => volume === undefined || name === volume);
  return counting.map(({ mountPath }) => mountPath.replace(/\/+$/, "")).filter((path) => path !== "");
}
