/** Runs a job of a workflow of GitHub Actions on this machine, with stand-ins for its actions. */
import { spawn } from "node:child_process";
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { parse } from "yaml";

/** A step of a job; the fields are the workflow's. */
export interface Step {
  readonly id?: string;
  readonly name?: string;
  readonly if?: string;
  readonly uses?: string;
  readonly run?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly with?: Readonly<Record<string, unknown>>;
  readonly "working-directory"?: string;
}

export interface Job {
  readonly permissions: Readonly<Record<string, string>>;
  readonly steps: readonly Step[];
}

/** The values of expressions, by path: `steps.names.outputs.image`. */
export type Values = Map<string, string>;

/** The inputs of an action. An input that its stand-in doesn't read is a mistake. */
export class Inputs {
  readonly #left: Map<string, string>;

  constructor(inputs: Iterable<readonly [string, string]>) {
    this.#left = new Map(inputs);
  }

  /** Returns an input, or undefined if the workflow doesn't set it. */
  read(name: string): string | undefined {
    const value = this.#left.get(name);
    this.#left.delete(name);
    return value;
  }

  /** @throws {Error} the workflow doesn't set it */
  need(name: string): string {
    const value = this.read(name);
    if (!value) throw new Error(`the input ${name} is missing`);
    return value;
  }

  /** @throws {Error} an input was not read */
  end(): void {
    if (this.#left.size > 0) throw new Error(`the action has no input ${[...this.#left.keys()].join(", ")}`);
  }
}

/** Replaces an action. Resolves with its outputs. */
export type Action = (inputs: Inputs) => Promise<Readonly<Record<string, string>>>;

export interface Workshop {
  /** The checkout. */
  readonly workspace: string;
  /** The folder for the runner's files. */
  readonly temp: string;
  /** The whole environment of a step, before its own variables. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly actions: Readonly<Record<string, Action>>;
  /** Those of all contexts but `steps`. */
  readonly values: ReadonlyMap<string, string>;
  /** Called when a step starts. */
  readonly onStep?: (title: string) => void;
}

/** How a step went. */
export interface Done {
  readonly title: string;
  readonly skipped: boolean;
  readonly ms: number;
}

/**
 * Replaces each expression in a text.
 * @throws {Error} an expression has no value; GitHub would use an empty text
 */
export function filled(template: string, values: ReadonlyMap<string, string>): string {
  return template.replaceAll(/\$\{\{\s*(.+?)\s*\}\}/g, (_all, path: string) => {
    const value = values.get(path);
    if (value === undefined) throw new Error(`\${{ ${path} }} has no value`);
    return value;
  });
}

/** Whether a step's condition holds: `PATH != 'text'` or `PATH == 'text'`. */
export function holds(condition: string, values: ReadonlyMap<string, string>): boolean {
  const [, path = "", operator, wanted = ""] = /^([\w.-]+) (!=|==) '([^']*)'$/.exec(condition) ?? [];
  if (operator === undefined) throw new Error(`what "${condition}" means is not known here: add it`);
  // A variable that the repository doesn't have is an empty text.
  return ((values.get(path) ?? "") === wanted) === (operator === "==");
}

/** Reads one job and the workflow's variables. */
export async function readJob(file: string, name: string): Promise<{ job: Job; env: Record<string, string> }> {
  const { jobs, env = {} } = parse(await readFile(file, "utf8"));
  if (jobs[name] === undefined) throw new Error(`${file} has no job ${name}`);
  return { job: jobs[name], env };
}

/**
 * Runs the steps in order.
 * @throws {Error} a step failed; the message has its name and the end of its output
 */
export async function runJob({ steps }: Job, workshop: Workshop): Promise<{ done: Done[]; values: Values }> {
  const values: Values = new Map(workshop.values);
  const done: Done[] = [];
  for (const step of steps) {
    const title = step.name ?? step.uses?.split("@")[0] ?? step.run?.split("\n")[0] ?? "";
    const started = performance.now();
    workshop.onStep?.(title);
    const skipped = step.if !== undefined && !holds(step.if, values);
    try {
      const outputs = skipped ? {} : await runStep(step, workshop, values);
      for (const [key, value] of Object.entries(outputs))
        if (step.id !== undefined) values.set(`steps.${step.id}.outputs.${key}`, value);
    } catch (error) {
      throw new Error(`step "${title}": ${error instanceof Error ? error.message : error}`, { cause: error });
    }
    done.push({ title, skipped, ms: performance.now() - started });
  }
  return { done, values };
}

async function runStep(step: Step, workshop: Workshop, values: Values): Promise<Readonly<Record<string, string>>> {
  if (step.uses !== undefined) {
    const name = step.uses.split("@")[0] ?? "";
    const action = workshop.actions[name];
    if (action === undefined) throw new Error(`there is no replacement for ${name} here: add it`);
    const given = Object.entries(step.with ?? {}).map(([key, value]) => [key, filled(String(value), values)] as const);
    const inputs = new Inputs(given);
    const outputs = await action(inputs);
    inputs.end();
    return outputs;
  }
  return await runScript(step, workshop, values);
}

/** Runs a script as GitHub does on Linux if the step names no shell: with `bash -e`. */
async function runScript(step: Step, { workspace, temp, env }: Workshop, values: Values) {
  const dir = await mkdtemp(join(temp, "step-"));
  const [script, output] = [join(dir, "script.sh"), join(dir, "output")];
  await writeFile(script, filled(step.run ?? "", values));
  await writeFile(output, "");
  const own = Object.entries(step.env ?? {}).map(([key, value]) => [key, filled(value, values)] as const);
  const folder = filled(step["working-directory"] ?? ".", values);
  const child = spawn("bash", ["-e", script], {
    cwd: folder.startsWith("/") ? folder : join(workspace, folder),
    env: { ...env, ...Object.fromEntries(own), GITHUB_OUTPUT: output },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const exited = new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  const [out, err, code] = await Promise.all([text(child.stdout), text(child.stderr), exited]);
  if (code !== 0)
    throw new Error(`bash ended with ${code}\n${`${out}${err}`.split("\n").slice(-LAST_LINES).join("\n")}`);
  return outputsOf(await readFile(output, "utf8"));
}

/** How much of a failed step's output is shown. */
const LAST_LINES = 40;

function outputsOf(file: string): Record<string, string> {
  const lines = file.split("\n").filter((line) => line !== "");
  return Object.fromEntries(
    lines.map((line) => {
      const at = line.indexOf("=");
      if (at < 1) throw new Error(`"${line}" in GITHUB_OUTPUT is not KEY=VALUE`);
      return [line.slice(0, at), line.slice(at + 1)];
    }),
  );
}
