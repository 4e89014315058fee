import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { copyFile, cp, link, mkdir, readFile, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, isAbsolute, join } from "node:path";
import { delimiter } from "node:path/posix";
import { promisify } from "node:util";
import { keyOf, treeKey } from "./keys.ts";
import type { ImageConfig } from "./oci.ts";
import { touch } from "./store.ts";

/** The result of a Dockerfile: a folder with the root file system, and how to start it. */
export interface Image {
  readonly root: string;
  readonly user: number;
  readonly env: Readonly<Record<string, string>>;
  /** The entrypoint. Its first word is a program of the base image. */
  readonly entrypoint: readonly string[];
  /** The arguments if the container gives none. */
  readonly cmd: readonly string[];
}

/** The network may be slow, and npm has its own timeouts. */
const RUN_TIMEOUT_MS = 300_000;
const MAX_OUTPUT_BYTES = 16 * 1024 ** 2;
/** The command that takes long and depends only on the lock file. */
const INSTALLS = /^npm ci\b/;

export interface PerformOptions {
  /**
   * The folder for the results of `npm ci` by lock file, on the same file system as the stages. Later runs link to it,
   * so nothing may write to the files of a package afterwards. Without this folder, nothing is kept.
   */
  readonly installs?: string;
}

/**
 * Executes a Dockerfile in folders of this machine, without a base image, using this machine's Node. Supports only the
 * instructions that this project uses, and throws for any other.
 * @param context the folder to build, with its .dockerignore
 * @param dir an empty folder for the stages
 */
export async function performDockerfile(context: string, dir: string, options: PerformOptions = {}): Promise<Image> {
  const text = await readFile(join(context, "Dockerfile"), "utf8");
  const allowed = (await readFile(join(context, ".dockerignore"), "utf8")).split("\n");
  const stages = new Map<string, Stage>();
  let stage: Stage | undefined;
  for (const { instruction, rest } of instructionsOf(text)) {
    if (instruction === "FROM") {
      const name = / AS (\S+)$/.exec(rest)?.[1] ?? `stage-${stages.size}`;
      stage = await Stage.make(join(dir, name), options.installs);
      stages.set(name, stage);
    } else if (instruction === "COPY") {
      await stage?.copy(rest, context, allowed, stages);
    } else {
      await stage?.perform(instruction, rest);
    }
  }
  if (!stage) throw new Error("the Dockerfile has no FROM");
  return stage.image();
}

/**
 * Returns how containers of the image start, from the last stage of a Dockerfile. Doesn't include settings of the base
 * image.
 */
export function finalConfig(text: string): ImageConfig {
  const all = instructionsOf(text);
  const last = all.slice(all.findLastIndex(({ instruction }) => instruction === "FROM"));
  const values = (name: string) => last.filter(({ instruction }) => instruction === name).map(({ rest }) => rest);
  const [cmd, workdir] = [values("CMD").at(-1), values("WORKDIR").at(-1)];
  return {
    user: values("USER").at(-1) ?? "",
    env: Object.assign({}, ...values("ENV").map(variablesOf)),
    entrypoint: JSON.parse(values("ENTRYPOINT").at(-1) ?? "[]"),
    ports: values("EXPOSE").flatMap((rest) => rest.split(" ").map(Number)),
    ...(cmd !== undefined && { cmd: JSON.parse(cmd) }),
    ...(workdir !== undefined && { workdir }),
  };
}

function instructionsOf(text: string): { readonly instruction: string; readonly rest: string }[] {
  return text
    .split("\n")
    .filter((line) => !/^\s*(#|$)/.test(line))
    .map((line) => {
      const [, instruction = "", rest = ""] = /^(\w+)\s+(.*)$/.exec(line) ?? [];
      return { instruction, rest };
    });
}

function variablesOf(rest: string): Record<string, string> {
  return Object.fromEntries([...rest.matchAll(/(\w+)=(\S*)/g)].map(([, name, value]) => [name, value]));
}

class Stage {
  readonly #root: string;
  readonly #installs: string | undefined;
  /** A hash of everything that made the stage what it is. */
  #state = keyOf(process.version, process.arch);
  #workdir = "/";
  #user = 0;
  #entrypoint: string[] = [];
  #cmd: string[] = [];
  readonly #env: Record<string, string> = {};

  private constructor(root: string, installs: string | undefined) {
    this.#root = root;
    this.#installs = installs;
  }

  /** Creates a stage with Node where its official image has it. */
  static async make(root: string, installs?: string): Promise<Stage> {
    const bin = join(root, "usr", "local", "bin");
    await mkdir(bin, { recursive: true });
    const node = join(bin, "node");
    // A copy takes 120 MB per stage, but a link doesn't work across file systems.
    await link(process.execPath, node).catch(() => copyFile(process.execPath, node));
    return new Stage(root, installs);
  }

  async perform(instruction: string, rest: string): Promise<void> {
    this.#state = keyOf(this.#state, instruction, rest);
    switch (instruction) {
      case "WORKDIR":
        this.#workdir = rest;
        await mkdir(this.#path("."), { recursive: true });
        return;
      case "RUN":
        return this.#installs !== undefined && INSTALLS.test(rest)
          ? await this.#runOnce(rest, join(this.#installs, this.#state))
          : await this.#run(rest);
      case "ENV":
        Object.assign(this.#env, variablesOf(rest));
        return;
      case "USER":
        this.#user = Number(rest.split(":")[0]);
        return;
      case "ENTRYPOINT":
        this.#entrypoint = JSON.parse(rest);
        return;
      case "CMD":
        this.#cmd = JSON.parse(rest);
        return;
      case "EXPOSE":
        return;
      default:
        throw new Error(`unknown instruction ${instruction}: implement it in dockerfile.ts`);
    }
  }

  /** Copies files by name and folders by content, like COPY. */
  async copy(
    text: string,
    context: string,
    allowed: readonly string[],
    stages: ReadonlyMap<string, Stage>,
  ): Promise<void> {
    const [, from, words = ""] = /^(?:--from=(\S+) )?(.*)$/.exec(text) ?? [];
    const paths = words.split(" ");
    const target = paths.pop() ?? "";
    for (const path of paths) {
      const stage = from === undefined ? undefined : stages.get(from);
      if (from !== undefined && !stage) throw new Error(`unknown stage ${from}`);
      const source = stage ? stage.#path(path) : join(context, path);
      if (from === undefined && !allowed.includes(`!${path}`)) throw new Error(`.dockerignore excludes ${path}`);
      const isFolder = (await stat(source)).isDirectory();
      const into = target.endsWith("/") && !isFolder ? join(target, basename(path)) : target;
      await mkdir(dirname(this.#path(into)), { recursive: true });
      // Without this option, a link's target would become a path of this machine.
      await cp(source, this.#path(into), { recursive: true, verbatimSymlinks: true });
      // The files of another stage follow from that stage's state, and no install comes after this.
      this.#state = keyOf(this.#state, into, stage ? stage.#state : await treeKey(source));
    }
  }

  image(): Image {
    return {
      root: this.#root,
      user: this.#user,
      env: this.#env,
      entrypoint: this.#entrypoint,
      cmd: this.#cmd,
    };
  }

  /** Runs a command unless `kept` has its result for the same files. */
  async #runOnce(command: string, kept: string): Promise<void> {
    if (await stat(kept).catch(() => undefined)) {
      await rm(this.#root, { recursive: true });
      await linkFolder(kept, this.#root);
      await touch(kept);
    } else {
      await this.#run(command);
      const half = `${kept}.${randomBytes(4).toString("hex")}`;
      await mkdir(dirname(kept), { recursive: true });
      await linkFolder(this.#root, half);
      await rename(half, kept);
      // `cp -a` preserved the times of the original.
      await touch(kept);
    }
  }

  async #run(command: string): Promise<void> {
    const path = [dirname(process.execPath), process.env["PATH"]].join(delimiter);
    const options = {
      cwd: this.#path("."),
      env: { ...process.env, ...this.#env, PATH: path },
      timeout: RUN_TIMEOUT_MS,
      maxBuffer: MAX_OUTPUT_BYTES,
    };
    try {
      await promisify(execFile)("sh", ["-c", command], options);
    } catch (error) {
      const { stdout = "", stderr = "" } = error as { stdout?: string; stderr?: string };
      throw new Error(`RUN ${command}: ${stdout}${stderr}`, { cause: error });
    }
  }

  #path(path: string): string {
    return join(this.#root, isAbsolute(path) ? path : join(this.#workdir, path));
  }
}

/** Copies a folder as hard links, because node_modules has thousands of files. */
async function linkFolder(from: string, to: string): Promise<void> {
  await promisify(execFile)("cp", ["-al", from, to]);
}
