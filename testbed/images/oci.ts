import { createHash } from "node:crypto";
import { type TarEntry, tarBytes } from "./tar.ts";
import { file } from "./tree.ts";

/** https://github.com/opencontainers/image-spec, version 1.1. */
const TYPES = {
  index: "application/vnd.oci.image.index.v1+json",
  manifest: "application/vnd.oci.image.manifest.v1+json",
  config: "application/vnd.oci.image.config.v1+json",
  // Not compressed, because the archive never leaves its machine, and the compressor's version would change the
  // digests.
  layer: "application/vnd.oci.image.layer.v1.tar",
} as const;
/** Every image has the same creation time, so that the same inputs give the same digests. */
const CREATED = "2000-01-01T00:00:00Z";

/** A layer on this machine. It isn't compressed, so its digest is also its diff id. */
export interface LayerBlob {
  /** A short description of the contents. */
  readonly name: string;
  /** `sha256:...`. */
  readonly digest: string;
  /** In bytes. */
  readonly size: number;
  /** The path of its tar. */
  readonly file: string;
}

/** How a container of an image starts, in the terms of a Dockerfile. */
export interface ImageConfig {
  readonly user: string;
  readonly env: Readonly<Record<string, string>>;
  readonly workdir?: string;
  readonly entrypoint: readonly string[];
  readonly cmd?: readonly string[];
  readonly ports?: readonly number[];
}

export interface ImageSpec {
  /** With host and tag, as `crictl` shows it. */
  readonly reference: string;
  readonly config: ImageConfig;
  /** The lowest layer first. */
  readonly layers: readonly LayerBlob[];
}

/**
 * The parts of an OCI image layout: its members, and the digest of each image's manifest in the order of the images.
 */
export interface Layout {
  readonly entries: TarEntry[];
  readonly digests: string[];
}

/**
 * Returns the image layout of several images. Shared layers and configurations are stored once. `ctr images import`
 * reads the name of an image from one annotation, other tools from the other.
 */
export function imageLayout(images: readonly ImageSpec[], architecture: string): Layout {
  const blobs = new Map<string, TarEntry>();
  const add = (value: unknown, mediaType: string) => {
    const content = Buffer.from(JSON.stringify(value));
    const digest = `sha256:${createHash("sha256").update(content).digest("hex")}`;
    blobs.set(digest, file(blobPath(digest), content));
    return { mediaType, digest, size: content.length };
  };
  const manifests = images.map((image) => {
    for (const { digest, size, file: source } of image.layers) {
      blobs.set(digest, { type: "file", path: blobPath(digest), mode: 0o644, uid: 0, gid: 0, source, size });
    }
    const config = add(configOf(image, architecture), TYPES.config);
    const layers = image.layers.map(({ digest, size }) => ({ mediaType: TYPES.layer, digest, size }));
    const manifest = add({ schemaVersion: 2, mediaType: TYPES.manifest, config, layers }, TYPES.manifest);
    const annotations = {
      "io.containerd.image.name": image.reference,
      "org.opencontainers.image.ref.name": image.reference,
    };
    return { ...manifest, platform: { architecture, os: "linux" }, annotations };
  });
  const index = { schemaVersion: 2, mediaType: TYPES.index, manifests };
  return {
    entries: [
      file("oci-layout", JSON.stringify({ imageLayoutVersion: "1.0.0" })),
      file("index.json", JSON.stringify(index)),
      ...blobs.values(),
    ],
    digests: manifests.map(({ digest }) => digest),
  };
}

/** Returns the bytes of an OCI archive: an image layout in a tar. */
export function archiveBytes(layout: Layout): AsyncGenerator<Buffer> {
  return tarBytes(layout.entries);
}

function blobPath(digest: string): string {
  return `blobs/${digest.replace(":", "/")}`;
}

function configOf({ config, layers }: ImageSpec, architecture: string): unknown {
  const { user, env, workdir, entrypoint, cmd, ports = [] } = config;
  return {
    created: CREATED,
    architecture,
    os: "linux",
    config: {
      User: user,
      Env: Object.entries(env).map(([name, value]) => `${name}=${value}`),
      Entrypoint: entrypoint,
      ...(cmd && { Cmd: cmd }),
      ...(workdir !== undefined && { WorkingDir: workdir }),
      ...(ports.length > 0 && { ExposedPorts: Object.fromEntries(ports.map((port) => [`${port}/tcp`, {}])) }),
    },
    rootfs: { type: "layers", diff_ids: layers.map(({ digest }) => digest) },
    history: layers.map(({ name }) => ({ created: CREATED, created_by: name })),
  };
}
