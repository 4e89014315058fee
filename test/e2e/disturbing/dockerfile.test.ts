import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { OpenArchive } from "../../../testbed/images/archive.ts";
import { Buildah, type BuiltImage } from "../../../testbed/images/buildah.ts";
import { buildImages, writeNodeImage } from "../../../testbed/images/images.ts";
import { copyContext } from "../../../testbed/images/operator.ts";
import { treeEntries } from "../../../testbed/images/tree.ts";
import { hasNodeControl } from "../support/provided.ts";

// The Dockerfile as people build it, by a real builder. It loads the machine for minutes, so nothing else runs beside it;
// it needs no cluster, but what a node needs: root, and Debian's packages.

/** Per build: an installation by npm, a bundler, and the root file system copied for every stage. */
const BUILD_TIMEOUT_MS = 900_000;
const ROOT = join(import.meta.dirname, "..", "..", "..");
const BASE = "docker.io/library/node:24-slim";

// The hook below would fail where the run is skipped: it runs before what skips each test.
describe.skipIf(!hasNodeControl() || inject("e2eSkipped"))("the image that the Dockerfile makes", () => {
  let dir: string;
  let context: string;
  let buildah: Buildah;
  let image: BuiltImage;

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), "berth-dockerfile-"));
    // Edits of the checkout would make the two builds differ.
    context = await copyContext(ROOT, join(dir, "context"));
    buildah = new Buildah(join(dir, "buildah"));
    const base = join(dir, "base.tar");
    await writeNodeImage(base, BASE);
    await buildah.load(base);
    image = await buildah.build(context, "localhost/first:1");
  }, BUILD_TIMEOUT_MS);
  afterAll(async () => {
    // Everything of buildah's is in the same folder.
    await rm(dir, { recursive: true, force: true });
  });

  test("starts the operator as a user who is nobody, with nothing of the machine that built it", () => {
    expect(image.config).toMatchObject({
      User: "65532:65532",
      WorkingDir: "/app",
      Entrypoint: ["node", "--max-semi-space-size=8", "/app/bin/berth.mjs"],
      Cmd: ["run"],
      ExposedPorts: { "8080/tcp": {}, "8081/tcp": {} },
    });
    expect(image.config.Env?.map((line) => line.split("=")[0])).toEqual(["PATH", "NODE_ENV", "UV_THREADPOOL_SIZE"]);
  });

  test(
    "holds, file by file, what the image of the end-to-end tests holds, and starts alike",
    async () => {
      const { archive, images } = await buildImages({ context });
      const ours = await OpenArchive.open(archive, join(dir, "archive"));
      const { reference } = images.berth;
      const wanted = await contents(join(await ours.unpack(reference, join(dir, "ours")), "app"));
      expect([...wanted.keys()]).toContain("dist/main.js");
      await buildah.inRoot("localhost/first:1", async (root) => {
        expect(await contents(join(root, "app"))).toEqual(wanted);
        expect(await readdir(join(root, "build")).catch(() => [])).toEqual([]);
        expect(await readdir(join(root, "usr/local/etc")).catch(() => [])).toEqual([]);
      });
      const { User, Env, WorkingDir, Entrypoint, Cmd, ExposedPorts } = image.config;
      expect(await ours.config(reference)).toEqual({ User, Env, WorkingDir, Entrypoint, Cmd, ExposedPorts });
    },
    BUILD_TIMEOUT_MS,
  );

  test(
    "is the same, to the digest, when it is built again",
    async () => {
      const again = await buildah.build(context, "localhost/second:1");
      expect(again).toEqual(image);
    },
    BUILD_TIMEOUT_MS,
  );

  // On the same base: a worker's image is no image of the operator's, but a base takes its time to load.
  test(
    "has a sister: the example of a worker's, with the SDK of its version, and where its user may write",
    async () => {
      const examples = join(ROOT, "examples");
      const tag = "localhost/worker:1";
      const { config } = await buildah.build(examples, tag, join(examples, "images", "typescript.Dockerfile"));
      expect(config).toMatchObject({ User: "10001:10001", WorkingDir: "/app", Cmd: ["node", "main.mjs"] });
      await buildah.inRoot(tag, async (root) => {
        const program = await readFile(join(root, "app/main.mjs"), "utf8");
        expect(program).toBe(await readFile(join(examples, "worker/worker.mjs"), "utf8"));
        const sdk = "node_modules/@anthropic-ai/sdk/package.json";
        const version = async (path: string) => JSON.parse(await readFile(join(path, sdk), "utf8")).version;
        expect(await version(join(root, "app"))).toBe(await version(ROOT));
        const owners = ["workspace", "mnt/memory"].map(async (path) => (await stat(join(root, path))).uid);
        expect(await Promise.all(owners)).toEqual([10_001, 10_001]);
      });
    },
    BUILD_TIMEOUT_MS,
  );
});

/** Every path below a folder, and what is there. */
async function contents(root: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const entry of await treeEntries(root)) {
    const hash =
      "source" in entry
        ? createHash("sha256")
            .update(await readFile(entry.source))
            .digest("hex")
        : "";
    found.set(entry.path, `${entry.type} ${"target" in entry ? entry.target : hash}`);
  }
  return found;
}
