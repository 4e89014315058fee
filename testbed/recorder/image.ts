import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeHashed } from "../cluster/hashed-file.ts";
import { findProgram } from "../images/commands.ts";
import { archiveBytes, type ImageConfig, imageLayout } from "../images/oci.ts";
import { type TarEntry, tarBytes } from "../images/tar.ts";
import { directory, file } from "../images/tree.ts";
import { PAUSE_IMAGE } from "../real-node/containerd.ts";

/** The image of the recorded containers: a shell and the programs that it needs. */
export const WORKER_IMAGE = "localhost/worker:1";

const PROGRAMS = ["sh", "sleep", "dd"];
const LINK_MODE = 0o777;
const PROGRAM_MODE = 0o755;
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: "amd64" };

/**
 * Writes an OCI archive with the sandbox image and the image of recorded containers to `dir`. Needs a static busybox.
 */
export async function makeImage(dir: string): Promise<string> {
  await mkdir(dir, { recursive: true });
  const layerFile = join(dir, "layer.tar");
  const layer = { name: "busybox", file: layerFile, ...(await writeHashed(layerFile, tarBytes(await members()))) };
  const image = (reference: string, config: Partial<ImageConfig>) => ({
    reference,
    config: { user: "0", env: { PATH: "/bin" }, entrypoint: ["/bin/sleep", "2147483647"], ...config },
    layers: [layer],
  });
  const architecture = ARCHITECTURES[process.arch] ?? process.arch;
  const layout = imageLayout([image(PAUSE_IMAGE, { user: "65535" }), image(WORKER_IMAGE, {})], architecture);
  const archive = join(dir, "images.tar");
  await writeHashed(archive, archiveBytes(layout));
  return archive;
}

async function members(): Promise<TarEntry[]> {
  const owner = { uid: 0, gid: 0 };
  return [
    directory("bin"),
    directory("tmp"),
    file("bin/busybox", await readFile(findProgram("busybox")), PROGRAM_MODE),
    ...PROGRAMS.map(
      (name): TarEntry => ({ type: "symlink", path: `bin/${name}`, target: "busybox", mode: LINK_MODE, ...owner }),
    ),
  ];
}
