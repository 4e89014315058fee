import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { MissingToolError } from "../cluster/missing.ts";
import { bundleWorker } from "../workers/programs.ts";
import { findProgram } from "./commands.ts";
import { debianRecipe } from "./debian.ts";
import { goWorkerRecipe } from "./go.ts";
import { entriesKey, keyOf } from "./keys.ts";
import { importedModules, moduleEntries } from "./modules.ts";
import { npmRecipe } from "./npm.ts";
import type { ImageConfig, ImageSpec, LayerBlob } from "./oci.ts";
import { operatorLayer } from "./operator.ts";
import { packageEntries } from "./packages.ts";
import { pythonRecipe, pythonWorkerRecipe } from "./python.ts";
import type { LayerRecipe, LayerStore } from "./store.ts";
import type { TarEntry } from "./tar.ts";
import { directory, file } from "./tree.ts";

/** The PATH of every Debian base image. */
const PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/** Unprivileged users that exist on no machine. The operator's image gets its user from its Dockerfile. */
const WORKER_USER = 10_001;
const SIMULATOR_USER = 65_532;
const PAUSE_USER = 65_535;
const SIMULATOR_PORT = 8000;
const WORKER = `${WORKER_USER}:${WORKER_USER}`;
const ROOT_USER = "0:0";
const EXAMPLES = join("examples", "worker");
const GO_EXAMPLES = join("examples", "worker-go");
/** The workers' working directory: a mount point if the root file system is read-only. */
const WORKSPACE = "workspace";
/** Where sessions with a memory find it. */
const MEMORY = "mnt/memory";
/** The package in package.json that contains Node, and the path of its program. */
const NODE_PACKAGE = `node-linux-${process.arch}`;
const PROGRAM_MODE = 0o755;
/** The type of the program header that names an interpreter (elf(5)). */
const PT_INTERP = 3;

export const IMAGE_NAMES = [
  "berth-pause",
  "berth",
  "berth-worker-typescript",
  "berth-worker-python",
  "berth-worker-go",
  "berth-simulator",
  "berth-rootuser",
] as const;
export type ImageName = (typeof IMAGE_NAMES)[number];

/** Returns how a Pod refers to an image. No registry has the name, so nothing is pulled by mistake. */
export function referenceOf(name: ImageName): string {
  return `localhost/${name}:e2e`;
}

/** Builds a record with a value for every image. */
export function byName<T>(of: (name: ImageName, index: number) => T): Record<ImageName, T> {
  return Object.fromEntries(IMAGE_NAMES.map((name, i) => [name, of(name, i)])) as Record<ImageName, T>;
}

/** Returns the layers that nearly all images share: Debian, and Node on top of it. */
async function makeBase(root: string, store: LayerStore): Promise<[debian: LayerBlob, node: LayerBlob]> {
  return [await store.layer(await debianRecipe()), await store.layer(await nodeRecipe(root))];
}

/**
 * Builds a stand-in for Node's official image, for builds that can't use a registry: the layers of the other images,
 * and npm.
 */
export async function makeNodeImage(root: string, store: LayerStore, reference: string): Promise<ImageSpec> {
  const layers = [...(await makeBase(root, store)), await store.layer(npmRecipe())];
  return { reference, layers, config: { user: "", env: { PATH }, entrypoint: [], cmd: ["node"] } };
}

/**
 * Returns every image with its layers. Builds the layers that aren't in the store.
 * @param context the folder of the Dockerfile and of the files that it copies
 */
export async function makeImages(
  root: string,
  store: LayerStore,
  context: string = root,
): Promise<Record<ImageName, ImageSpec>> {
  const make = async (recipe: LayerRecipe | Promise<LayerRecipe>) => await store.layer(await recipe);
  const [debian, node] = await makeBase(root, store);
  const worker = await make(workerRecipe(root));
  const python = await make(pythonRecipe(debian));
  const pythonWorker = await make(pythonWorkerRecipe(join(root, EXAMPLES), [debian, python], workFolders()));
  const goWorker = await make(goWorkerRecipe(join(root, GO_EXAMPLES), workFolders()));
  const operator = await operatorLayer(context, store);
  const configs: Record<ImageName, { layers: readonly LayerBlob[]; config: ImageConfig }> = {
    "berth-pause": { layers: [await make(pauseRecipe())], config: PAUSE },
    berth: { layers: [debian, node, operator.layer], config: withPath(operator.config) },
    "berth-worker-typescript": { layers: [debian, node, worker], config: workerConfig(WORKER) },
    "berth-worker-python": {
      layers: [debian, python, pythonWorker],
      config: { ...workerConfig(WORKER), entrypoint: ["python3", "/app/worker.py"] },
    },
    "berth-worker-go": { layers: [debian, goWorker], config: { ...workerConfig(WORKER), entrypoint: ["worker"] } },
    "berth-simulator": { layers: [debian, node, await make(simulatorRecipe(root))], config: SIMULATOR },
    // For a test of runAsNonRoot: the same image with root as its user.
    "berth-rootuser": { layers: [debian, node, worker], config: workerConfig(ROOT_USER) },
  };
  return byName((name) => ({ reference: referenceOf(name), ...configs[name] }));
}

/** Returns a recipe for files in memory, which are their own key. */
function inMemory(name: string, entries: readonly TarEntry[]): LayerRecipe {
  return { name, key: keyOf(name, entriesKey(entries)), make: async () => entries };
}

function withPath(config: ImageConfig): ImageConfig {
  return { ...config, env: { PATH, ...config.env } };
}

async function nodeRecipe(root: string): Promise<LayerRecipe> {
  const program = join(root, "node_modules", NODE_PACKAGE, "bin", "node");
  const content = await readFile(program).catch(() => {
    throw new MissingToolError(`The package ${NODE_PACKAGE} is not installed: run npm ci (without --omit=optional)`);
  });
  return inMemory("node", [
    directory("usr"),
    directory("usr/local"),
    directory("usr/local/bin"),
    file("usr/local/bin/node", content, PROGRAM_MODE),
  ]);
}

// A process with id 1 only gets signals that it handles, so a plain `sleep` would outlive its grace period.
const PAUSE: ImageConfig = {
  user: `${PAUSE_USER}:${PAUSE_USER}`,
  env: { PATH: "/bin" },
  entrypoint: ["/bin/busybox", "sh", "-c", "trap 'exit 0' TERM INT; /bin/busybox sleep 2147483647 & wait"],
};

async function pauseRecipe(): Promise<LayerRecipe> {
  const content = await readFile(findProgram("busybox"));
  if (isDynamic(content)) {
    throw new MissingToolError(
      "busybox is dynamically linked, and its image has no shared libraries: run apt-get install busybox-static",
    );
  }
  return inMemory("busybox", [directory("bin"), file("bin/busybox", content, PROGRAM_MODE)]);
}

/** Whether a 64-bit little-endian ELF program names an interpreter (elf(5)), as all programs but static ones do. */
function isDynamic(program: Buffer): boolean {
  const [table, entrySize, count] = [
    Number(program.readBigUInt64LE(32)),
    program.readUInt16LE(54),
    program.readUInt16LE(56),
  ];
  return Array.from({ length: count }, (_, i) => program.readUInt32LE(table + i * entrySize)).includes(PT_INTERP);
}

function workerConfig(user: string): ImageConfig {
  return {
    user,
    env: { PATH, NODE_ENV: "production", HOME: `/${WORKSPACE}` },
    workdir: `/${WORKSPACE}`,
    entrypoint: ["node", "/app/worker.mjs"],
  };
}

/** Returns the example workers, each bundled with the SDK. */
async function workerRecipe(root: string): Promise<LayerRecipe> {
  const examples = join(root, EXAMPLES);
  const names = (await readdir(examples)).filter((name) => name.endsWith(".mjs"));
  return inMemory("TypeScript worker", [
    directory("app"),
    ...(await Promise.all(names.map(async (name) => file(`app/${name}`, await bundleWorker(join(examples, name)))))),
    ...workFolders(),
  ]);
}

/** Returns the folders that a worker may write to. */
function workFolders(): TarEntry[] {
  return [WORKSPACE, MEMORY].map((path) => directory(path, PROGRAM_MODE, WORKER_USER));
}

const SIMULATOR: ImageConfig = {
  user: `${SIMULATOR_USER}:${SIMULATOR_USER}`,
  env: { PATH, NODE_ENV: "production" },
  workdir: "/app",
  entrypoint: ["node", "/app/simulator/main.ts", "--host", "0.0.0.0", "--port", String(SIMULATOR_PORT)],
  ports: [SIMULATOR_PORT],
};

async function simulatorRecipe(root: string): Promise<LayerRecipe> {
  const modules = await importedModules(root, "simulator/main.ts");
  return inMemory("simulator", [
    directory("app"),
    // Declares the sources as ES modules.
    file("app/package.json", `${JSON.stringify({ type: "module" })}\n`),
    ...moduleEntries(modules, "app"),
    ...(await packageEntries(root, modules.packages, "app")),
  ]);
}
