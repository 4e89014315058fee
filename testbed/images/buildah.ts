import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { OciConfig } from "./archive.ts";
import { findProgram, type RunOptions, runProgram } from "./commands.ts";
import { npmNetwork } from "./npm.ts";

/** Enough for two npm installations and a build, each with a copy of the whole file system, on a busy machine. */
const BUILD_TIMEOUT_MS = 900_000;
const TIMEOUT_MS = 180_000;
/** Where npm looks for system-wide settings, below its prefix. */
const NPMRC = "/usr/local/etc/npmrc";

const NAMESPACES = ["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"];

export interface BuiltImage {
  readonly id: string;
  /** The digest of the manifest. */
  readonly digest: string;
  readonly config: OciConfig;
}

/**
 * How buildah stores layers. `vfs` copies the whole file system for each, and works everywhere. `overlay` copies nothing,
 * but its mounts end with each command, so `inRoot` finds an empty folder.
 */
export type Driver = "vfs" | "overlay";

/** The driver that copies least on the file system of a folder, for builds whose files nothing reads here. */
export async function leanDriver(dir: string): Promise<Driver> {
  const probe = await mkdtemp(join(dir, "overlay-"));
  const layers = ["lower", "upper", "work", "merged"].map((name) => join(probe, name));
  for (const layer of layers) await mkdir(layer);
  const [lower, upper, work, merged = ""] = layers;
  const options = `lowerdir=${lower},upperdir=${upper},workdir=${work}`;
  const mount = ["--mount", "mount", "-t", "overlay", "overlay", "-o", options, merged];
  try {
    await runProgram(findProgram("unshare"), mount, { timeoutMs: TIMEOUT_MS });
    return "overlay";
  } catch {
    return "vfs";
  } finally {
    await rm(probe, { recursive: true });
  }
}

/** What a build can change. */
export interface BuildOptions {
  /** Defaults to the context's own. */
  readonly dockerfile?: string;
  readonly args?: Readonly<Record<string, string>>;
  readonly labels?: Readonly<Record<string, string>>;
}

/**
 * Runs buildah with its own store in a folder. It needs no daemon, and uses a chroot instead of a container, because a
 * container might lack the permissions that a build needs.
 */
export class Buildah implements AsyncDisposable {
  readonly #dir: string;
  readonly #buildah: string;
  readonly #unshare: string;
  readonly #driver: Driver;

  /** @throws MissingToolError if there is no buildah */
  constructor(dir: string, driver: Driver = "vfs") {
    this.#dir = dir;
    this.#driver = driver;
    this.#buildah = findProgram("buildah");
    this.#unshare = findProgram("unshare");
  }

  /** Loads the image of an OCI archive into the store. */
  async load(archive: string): Promise<void> {
    await this.#run(["pull", `oci-archive:${archive}`]);
  }

  /**
   * Builds the Dockerfile of a folder, or another Dockerfile, without a cache. The build can use the npm settings that
   * the machine needs for its registry.
   */
  async build(context: string, tag: string, options: BuildOptions = {}): Promise<BuiltImage> {
    const { dockerfile = join(context, "Dockerfile"), args = {}, labels = {} } = options;
    await mkdir(this.#dir, { recursive: true });
    const npmrc = join(this.#dir, "npmrc");
    const { npmrc: settings, cafile } = await npmNetwork();
    await writeFile(npmrc, settings);
    const lent = [`${npmrc}:${NPMRC}:ro`, ...(cafile === undefined ? [] : [`${cafile}:${cafile}:ro`])];
    const mounts = lent.flatMap((mount) => ["--volume", mount]);
    // A fixed time for every file, so that the same files give the same image.
    const flags = ["--isolation", "chroot", "--pull-never", "--no-cache", "--timestamp", "0", "--tag", tag];
    const pairs = (flag: string, values: Readonly<Record<string, string>>) =>
      Object.entries(values).flatMap(([name, value]) => [flag, `${name}=${value}`]);
    const own = [...pairs("--build-arg", args), ...pairs("--label", labels)];
    await this.#run(["bud", ...flags, ...own, ...mounts, "--file", dockerfile, context], {
      timeoutMs: BUILD_TIMEOUT_MS,
    });
    return await this.#inspect(tag);
  }

  /**
   * Pushes an image. Resolves with its digest in the registry.
   * @param env names the credentials and the certificates: REGISTRY_AUTH_FILE, SSL_CERT_FILE
   */
  async push(tag: string, reference: string, env: NodeJS.ProcessEnv): Promise<string> {
    const digest = join(this.#dir, "digest");
    await this.#run(["push", "--digestfile", digest, tag, `docker://${reference}`], { env });
    return (await readFile(digest, "utf8")).trim();
  }

  /** Calls `fn` with a folder that contains the root file system of an image. */
  async inRoot<T>(tag: string, fn: (root: string) => Promise<T>): Promise<T> {
    const container = (await this.#run(["from", "--pull-never", tag])).trim();
    try {
      return await fn((await this.#run(["mount", container])).trim());
    } finally {
      await this.#run(["rm", container]);
    }
  }

  /** Removes the store. */
  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#dir, { recursive: true, force: true });
  }

  async #inspect(tag: string): Promise<BuiltImage> {
    const facts = JSON.parse(await this.#run(["inspect", "--type", "image", tag])) as {
      FromImageID: string;
      FromImageDigest: string;
      OCIv1: { config: OciConfig };
    };
    return { id: facts.FromImageID, digest: facts.FromImageDigest, config: facts.OCIv1.config };
  }

  /**
   * Runs buildah in its own namespaces, so that a killed build leaves no mounts and no processes.
   */
  async #run(args: readonly string[], options: RunOptions = {}): Promise<string> {
    const [root, runroot] = [join(this.#dir, "storage"), join(this.#dir, "run")];
    const store = ["--root", root, "--runroot", runroot, "--storage-driver", this.#driver];
    return await runProgram(this.#unshare, [...NAMESPACES, this.#buildah, ...store, ...args], {
      // The parent of a namespace ignores SIGTERM while it waits. SIGKILL ends it and everything in the namespace.
      killSignal: "SIGKILL",
      timeoutMs: TIMEOUT_MS,
      ...options,
    });
  }
}
