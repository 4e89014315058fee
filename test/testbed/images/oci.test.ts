import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { describe, expect, test } from "vitest";
import { OpenArchive } from "../../../testbed/images/archive.ts";
import { archiveBytes, type ImageSpec, imageLayout } from "../../../testbed/images/oci.ts";
import { LayerStore } from "../../../testbed/images/store.ts";
import { directory, file, treeEntries } from "../../../testbed/images/tree.ts";
import { temporaryDir } from "../cluster/temporary.ts";

const CONFIG = {
  user: "10001:10001",
  env: { PATH: "/usr/bin", HOME: "/workspace" },
  workdir: "/workspace",
  entrypoint: ["node", "/app/worker.mjs"],
  cmd: ["run"],
  ports: [8080],
};

/** Returns two images that share their lower layer. */
async function twoImages(): Promise<ImageSpec[]> {
  const store = new LayerStore(await temporaryDir());
  const layer = async (name: string) =>
    await store.layer({ name, key: name, make: async () => [directory("opt"), file(`opt/${name}`, name)] });
  const base = await layer("base");
  return [
    { reference: "localhost/one:e2e", config: CONFIG, layers: [base, await layer("one")] },
    { reference: "localhost/two:e2e", config: { ...CONFIG, user: "0:0" }, layers: [base] },
  ];
}

async function open(images: readonly ImageSpec[]): Promise<{ archive: OpenArchive; dir: string }> {
  const dir = await temporaryDir();
  const path = join(dir, "archive.tar");
  await pipeline(archiveBytes(imageLayout(images, "amd64")), createWriteStream(path));
  const opened = join(dir, "opened");
  return { archive: await OpenArchive.open(path, opened), dir: opened };
}

describe("an OCI archive", () => {
  test("names its images in the way that containerd and other tools expect", async () => {
    const { archive, dir } = await open(await twoImages());
    expect(await archive.references()).toEqual(["localhost/one:e2e", "localhost/two:e2e"]);
    const index = JSON.parse(await readFile(join(dir, "index.json"), "utf8"));
    expect(index).toMatchObject({ schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json" });
    expect(index.manifests[0]).toMatchObject({
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      platform: { architecture: "amd64", os: "linux" },
      annotations: { "io.containerd.image.name": "localhost/one:e2e" },
    });
    expect(JSON.parse(await readFile(join(dir, "oci-layout"), "utf8"))).toEqual({ imageLayoutVersion: "1.0.0" });
  });

  test("contains each blob once, under its own digest", async () => {
    const { dir } = await open(await twoImages());
    const blobs = await treeEntries(join(dir, "blobs/sha256"));
    // Two layers, two configurations, and two manifests.
    expect(blobs).toHaveLength(6);
    for (const { path } of blobs) {
      const bytes = await readFile(join(dir, "blobs/sha256", path));
      expect(createHash("sha256").update(bytes).digest("hex")).toBe(path);
    }
  });

  test("defines how containers start, and the order of the layers", async () => {
    const [one] = await twoImages();
    if (!one) throw new Error("no image");
    const { archive, dir } = await open([one]);
    expect(await archive.config(one.reference)).toEqual({
      User: "10001:10001",
      Env: ["PATH=/usr/bin", "HOME=/workspace"],
      WorkingDir: "/workspace",
      Entrypoint: ["node", "/app/worker.mjs"],
      Cmd: ["run"],
      ExposedPorts: { "8080/tcp": {} },
    });
    const texts = await Promise.all(
      (await treeEntries(join(dir, "blobs/sha256"))).map(({ path }) =>
        readFile(join(dir, "blobs/sha256", path), "utf8"),
      ),
    );
    const config = texts
      .filter((text) => text.startsWith("{"))
      .map((text) => JSON.parse(text))
      .find(({ rootfs }) => rootfs);
    expect(config).toMatchObject({
      architecture: "amd64",
      os: "linux",
      rootfs: { type: "layers", diff_ids: one.layers.map(({ digest }) => digest) },
    });
    expect(config.history).toHaveLength(2);
  });

  test("has the same digests for the same images, and different ones for another user", async () => {
    const [first, second] = [await twoImages(), await twoImages()];
    expect(imageLayout(first, "amd64").digests).toEqual(imageLayout(second, "amd64").digests);
    const [one, two] = first;
    if (!one || !two) throw new Error("no images");
    const asRoot = { ...one, config: { ...one.config, user: "0:0" } };
    const [digest] = imageLayout([asRoot], "amd64").digests;
    expect(imageLayout(first, "amd64").digests).not.toContain(digest);
  });

  test("names an image that it doesn't contain", async () => {
    const { archive } = await open(await twoImages());
    await expect(archive.config("localhost/three:e2e")).rejects.toThrow("the archive has no localhost/three:e2e");
  });
});
