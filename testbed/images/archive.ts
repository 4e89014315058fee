import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { runProgram } from "./commands.ts";
import { unpack } from "./layers.ts";

/** How an image starts its containers. The field names come from the image specification. */
export interface OciConfig {
  readonly User?: string;
  readonly Env?: readonly string[];
  readonly Entrypoint?: readonly string[];
  readonly Cmd?: readonly string[];
  readonly WorkingDir?: string;
  readonly ExposedPorts?: Readonly<Record<string, unknown>>;
}

interface Descriptor {
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** An OCI archive that is unpacked in a folder. */
export class OpenArchive {
  readonly #dir: string;

  private constructor(dir: string) {
    this.#dir = dir;
  }

  /** @param dir the folder that is created for its members */
  static async open(archive: string, dir: string): Promise<OpenArchive> {
    await mkdir(dir, { recursive: true });
    await runProgram("tar", ["--extract", "--file", archive, "--directory", dir]);
    return new OpenArchive(dir);
  }

  /** Returns the references of its images. */
  async references(): Promise<string[]> {
    return (await this.#index()).map(({ annotations }) => annotations?.["org.opencontainers.image.ref.name"] ?? "");
  }

  async config(reference: string): Promise<OciConfig> {
    const { config } = await this.#manifest(reference);
    return (await this.#json<{ config: OciConfig }>(config.digest)).config;
  }

  /** Unpacks an image into a new folder. Needs root. */
  async unpack(reference: string, root: string): Promise<string> {
    const { layers } = await this.#manifest(reference);
    const blobs = layers.map(({ digest, size }) => ({ name: digest, digest, size, file: this.#blob(digest) }));
    return await unpack(blobs, root);
  }

  async #manifest(reference: string): Promise<{ config: Descriptor; layers: Descriptor[] }> {
    const found = (await this.#index()).find(
      ({ annotations }) => annotations?.["io.containerd.image.name"] === reference,
    );
    if (!found) throw new Error(`the archive has no ${reference}`);
    return await this.#json(found.digest);
  }

  async #index(): Promise<Descriptor[]> {
    const text = await readFile(join(this.#dir, "index.json"), "utf8");
    return (JSON.parse(text) as { manifests: Descriptor[] }).manifests;
  }

  async #json<T>(digest: string): Promise<T> {
    return JSON.parse(await readFile(this.#blob(digest), "utf8")) as T;
  }

  #blob(digest: string): string {
    return join(this.#dir, "blobs", digest.replace(":", "/"));
  }
}
