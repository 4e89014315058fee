import { chmod, mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Pod } from "../../src/kube/objects.ts";
import type { VolumeFiles } from "./volume-files.ts";

interface Mount {
  name: string;
  mountPath: string;
  subPath?: string;
  subPathExpr?: string;
}

/**
 * Returns where the containers of a Pod mount whole volumes. Ignores mounts of a part (subPath), which the kubelet
 * doesn't refresh either.
 */
export function fileMounts({ spec }: Pod): Pick<Mount, "name" | "mountPath">[] {
  const containers = [...(spec.initContainers ?? []), ...spec.containers, ...(spec.ephemeralContainers ?? [])];
  const mounts = containers.flatMap((container) => (container["volumeMounts"] ?? []) as Mount[]);
  const whole = mounts.filter(({ subPath, subPathExpr }) => !subPath && !subPathExpr);
  return [...new Map(whole.map((mount) => [`${mount.name} ${mount.mountPath}`, mount])).values()];
}

/** Makes a folder contain exactly these files. Each file appears atomically. */
export async function writeVolume(folder: string, files: VolumeFiles): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const [path, { content, mode }] of files) {
    const target = join(folder, path);
    await mkdir(dirname(target), { recursive: true });
    // On the same file system, so that it can be renamed atomically. The kubelet also uses names that start with dots.
    const fresh = join(dirname(target), `..${path.replaceAll("/", "-")}`);
    await rm(fresh, { force: true });
    await writeFile(fresh, content, { mode });
    await chmod(fresh, mode);
    await rename(fresh, target);
  }
  // Other volumes may be mounted in subfolders.
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    if (entry.isFile() && !files.has(entry.name)) await rm(join(folder, entry.name), { force: true });
  }
}
