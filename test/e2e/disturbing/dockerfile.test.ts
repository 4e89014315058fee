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
import { bundleWorker } from "../../../testbed/workers/programs.ts";
import { hasNodeControl } from "../support/provided.ts";
import { readSettings } from "../support/settings.ts";

// Builds the Dockerfile with a real builder, as users do. It loads the machine for minutes, so nothing else runs at the
// same time. It needs no cluster, but the same as a node: root and Debian's packages.

/** Each build runs an npm installation and a bundler, and copies the root file system for every stage. */
const BUILD_TIMEOUT_MS = 900_000;
const ROOT = join(import.meta.dirname, "..", "..", "..");
const BASE = "docker.io/library/node:24-slim";

// The hook below would fail in a skipped run, because it runs before each test's own skip.
describe.skipIf(!hasNodeControl() || inject("e2eSkipped"))("the image that the Dockerfile builds", () => {
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
    // All files of buildah are in the same folder.
    await rm(dir, { recursive: true, force: true });
  });

  test("starts the operator as an unprivileged user, and contains nothing of the machine that built it", () => {
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
    "has the same files as the image of the end-to-end tests, and starts the same way",
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

  // Not registered, because CI reports skipped tests as failures.
  if (readSettings().long) {
    test(
      "has the same digest when it is built again",
      async () => {
        const again = await buildah.build(context, "localhost/second:1");
        expect(again).toEqual(image);
      },
      BUILD_TIMEOUT_MS,
    );
  }

  // Built on the same base, because a base takes time to load, although a worker's image is not the operator's.
  test(
    "has a sister: the example worker image, with one file as in the end-to-end tests, and writable directories",
    async () => {
      const examples = join(ROOT, "examples");
      const tag = "localhost/worker:1";
      const dockerfile = join(examples, "images", "typescript.Dockerfile");
      const { config } = await buildah.build(examples, tag, { dockerfile });
      expect(config).toMatchObject({ User: "10001:10001", WorkingDir: "/app", Cmd: ["node", "main.mjs"] });
      await buildah.inRoot(tag, async (root) => {
        const [program, wanted] = await Promise.all([
          readFile(join(root, "app/main.mjs"), "utf8"),
          bundleWorker(join(examples, "worker/worker.mjs")),
        ]);
        expect(withoutComments(program)).toBe(withoutComments(wanted));
        expect(await readdir(join(root, "app"))).toEqual(["main.mjs"]);
        const owners = ["workspace", "mnt/memory"].map(async (path) => (await stat(join(root, path))).uid);
        expect(await Promise.all(owners)).toEqual([10_001, 10_001]);
      });
    },
    BUILD_TIMEOUT_MS,
  );
});

/** The bundler names each module by its path, which depends on the folder of the packages. */
const withoutComments = (program: string) => program.replaceAll(/^\s*\/\/.*$/gm, "");

/** Every path below a folder, with its content. */
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
