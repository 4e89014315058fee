import { execFile } from "node:child_process";
import { copyFile, cp, mkdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, isAbsolute, join } from "node:path";
import { delimiter } from "node:path/posix";
import { promisify } from "node:util";

/** What an image is once its Dockerfile is through: a folder that stands for its root, and how it is started. */
export interface Image {
  readonly root: string;
  readonly user: number;
  readonly env: Readonly<Record<string, string>>;
  /** Entrypoint; its first word is a program of the base image. */
  readonly entrypoint: readonly string[];
  /** Arguments where the container gives none. */
  readonly cmd: readonly string[];
}

/** The network may be slow; npm has time-outs of its own. */
const RUN_TIMEOUT_MS = 300_000;
const MAX_OUTPUT_BYTES = 16 * 1024 ** 2;

/**
 * Does what a Dockerfile says in folders of this machine: there is no base image, Node stands for it. Knows the
 * instructions that this project's uses, and throws for any other.
 * @param context folder that is built, with its .dockerignore.
 * @param dir empty folder for the stages.
 */
export async function performDockerfile(context: string, dir: string): Promise<Image> {
  const text = await readFile(join(context, "Dockerfile"), "utf8");
  const allowed = (await readFile(join(context, ".dockerignore"), "utf8")).split("\n");
  const stages = new Map<string, Stage>();
  let stage: Stage | undefined;
  for (const line of text.split("\n")) {
    if (/^\s*(#|$)/.test(line)) continue;
    const [, instruction = "", rest = ""] = /^(\w+)\s+(.*)$/.exec(line) ?? [];
    if (instruction === "FROM") {
      const name = / AS (\S+)$/.exec(rest)?.[1] ?? `stage-${stages.size}`;
      stage = await Stage.make(join(dir, name));
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

class Stage {
  readonly #root: string;
  #workdir = "/";
  #user = 0;
  #entrypoint: string[] = [];
  #cmd: string[] = [];
  readonly #env: Record<string, string> = {};

  private constructor(root: string) {
    this.#root = root;
  }

  /** With Node, where its official image has it. */
  static async make(root: string): Promise<Stage> {
    const bin = join(root, "usr", "local", "bin");
    await mkdir(bin, { recursive: true });
    await copyFile(process.execPath, join(bin, "node"));
    return new Stage(root);
  }

  async perform(instruction: string, rest: string): Promise<void> {
    switch (instruction) {
      case "WORKDIR":
        this.#workdir = rest;
        await mkdir(this.#path("."), { recursive: true });
        return;
      case "RUN":
        return await this.#run(rest);
      case "ENV":
        for (const [, name = "", value = ""] of rest.matchAll(/(\w+)=(\S*)/g)) this.#env[name] = value;
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
        throw new Error(`what ${instruction} does is not known here: add it`);
    }
  }

  /** Files by name, and the contents of folders, as COPY does it. */
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
      if (from !== undefined && !stage) throw new Error(`there is no stage ${from}`);
      const source = stage ? stage.#path(path) : join(context, path);
      if (from === undefined && !allowed.includes(`!${path}`)) throw new Error(`.dockerignore keeps ${path} out`);
      const isFolder = (await stat(source)).isDirectory();
      const into = target.endsWith("/") && !isFolder ? join(target, basename(path)) : target;
      await mkdir(dirname(this.#path(into)), { recursive: true });
      await cp(source, this.#path(into), { recursive: true });
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
