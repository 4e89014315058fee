import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, copyFile, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Image, performDockerfile } from "../../testbed/images/dockerfile.ts";
import { render } from "../support/chart.ts";
import { useCluster } from "../support/cluster.ts";
import { freePort } from "../support/free-port.ts";

/** An npm installation and a build. */
const BUILD_TIMEOUT_MS = 300_000;
const PATIENCE_MS = 60_000;
const ROOT = join(import.meta.dirname, "..", "..");

const cluster = useCluster();
let dir: string;
let image: Image;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "berth-image-"));
  // The image runs as another user.
  await chmod(dir, 0o755);
  image = await performDockerfile(ROOT, dir);
}, BUILD_TIMEOUT_MS);
afterAll(() => rm(dir, { recursive: true, force: true }));

/** Starts the image like a container: with its user and variables, and none of this process's. */
function start(args: readonly string[], env: Readonly<Record<string, string>> = {}): ChildProcess {
  const [program = "", ...words] = image.entrypoint;
  const inside = (word: string) => (word.startsWith("/") ? join(image.root, word) : word);
  const isRoot = process.getuid?.() === 0;
  return spawn(
    join(image.root, "usr/local/bin", program),
    [...words.map(inside), ...(args.length ? args : image.cmd)],
    {
      cwd: "/",
      env: { ...image.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
      ...(isRoot ? { uid: image.user, gid: image.user } : {}),
    },
  );
}

async function outcome(child: ChildProcess): Promise<{ code: number | null; text: string }> {
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
  }
  const [code] = (await once(child, "close")) as [number | null];
  return { code, text };
}

test("the image prints its version when run as a user without write access", async () => {
  const { version } = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8"));
  expect(image.user).toBeGreaterThan(0);
  expect(await outcome(start(["version"]))).toEqual({ code: 0, text: `${version}\n` });
});

test("the image contains the build and the licenses of its dependencies, and nothing else", async () => {
  const app = join(image.root, "app");
  expect((await readdir(app)).sort()).toEqual(["LICENSE", "bin", "dist", "package.json"]);
  const built = await readdir(join(app, "dist"), { recursive: true, withFileTypes: true });
  const files = built
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => relative(join(app, "dist"), join(parentPath, name)));
  expect(files).toEqual(expect.arrayContaining(["LICENCES.txt", "main.js"]));
  // The console's page, next to its modules.
  const page = ["page/icon.svg", "page/index.html", "page/style.css"];
  expect(files.filter((name) => !name.endsWith(".js")).sort()).toEqual(["LICENCES.txt", ...page]);
});

test("the image runs with the chart's arguments, becomes ready, and exits with 0", async () => {
  const ports = { metrics: await freePort(), health: await freePort() };
  const namespace = await cluster.createNamespace("image");
  const { container } = await render(namespace, {
    metrics: { port: ports.metrics },
    health: { port: ports.health },
    namespaces: [namespace],
  });
  const kubeconfig = join(dir, "kubeconfig");
  await copyFile(cluster.operatorKubeconfig, kubeconfig);
  await chmod(kubeconfig, 0o644);
  // Does not use the Lease of another operator.
  const child = start([...container.args, "--leader-elect=false"], { KUBECONFIG: kubeconfig });
  const ended = outcome(child);
  const ready = async () => (await fetch(`http://127.0.0.1:${ports.health}/readyz`)).status;
  await expect.poll(() => ready().catch(String), { timeout: PATIENCE_MS }).toBe(200);
  expect((await fetch(`http://127.0.0.1:${ports.metrics}/metrics`)).status).toBe(200);
  child.kill("SIGTERM");
  const { code, text } = await ended;
  expect({ code, last: JSON.parse(text.trim().split("\n").at(-1) ?? "").msg }).toEqual({
    code: 0,
    last: "berth stops",
  });
});
