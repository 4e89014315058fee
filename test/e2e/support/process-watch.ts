import { appendFile, readFile } from "node:fs/promises";
import { join } from "node:path";
import { realClock, sleep } from "../../../src/core/clock.ts";
import type { NodeControl } from "../../../testbed/real-node/control-protocol.ts";
import type { Place } from "../../support/leak-search.ts";

/** File within the folder of a run: a JSON object for each process. */
const PROCESSES = "processes";
/** Sessions are short: often enough to see the processes of most. */
const PAUSE_MS = 1_000;

/** A process as it was seen on the node. */
export interface SeenProcess {
  /** UID of its Pod; undefined for a program of the node. */
  readonly pod?: string | undefined;
  readonly arguments: readonly string[];
  /** As `NAME=value`. */
  readonly variables: readonly string[];
}

/** Writes down arguments and environment of every process that it sees on the node, as long as it runs, each once. */
export class ProcessWatch implements AsyncDisposable {
  readonly #ending = new AbortController();
  readonly #running: Promise<void>;

  constructor(control: NodeControl, dir: string) {
    this.#running = this.#run(control, join(dir, PROCESSES));
  }

  async #run(control: NodeControl, file: string): Promise<void> {
    // By id and arguments: a process becomes another program.
    const seen = new Set<string>();
    do {
      // The node may be on its way out.
      const processes = await control.processes().catch(() => []);
      const fresh = processes.flatMap(({ pid, arguments: words }) => {
        const key = `${pid} ${words.join(" ")}`;
        if (seen.has(key)) return [];
        seen.add(key);
        return { pid, words };
      });
      if (fresh.length === 0) continue;
      const environments = await control.environments(fresh.map(({ pid }) => pid)).catch(() => []);
      const lines = fresh.map(({ pid, words }) => {
        const environment = environments.find((one) => one.pid === pid);
        const process = { pod: environment?.pod, arguments: words, variables: environment?.variables ?? [] };
        return `${JSON.stringify(process satisfies SeenProcess)}\n`;
      });
      await appendFile(file, lines.join(""), { mode: 0o600 });
    } while (await sleep(realClock, PAUSE_MS, this.#ending.signal));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    await this.#running;
  }
}

/** Every process that was seen in this run. */
export async function seenProcesses(dir: string): Promise<SeenProcess[]> {
  const text = await readFile(join(dir, PROCESSES), "utf8").catch(() => "");
  return text.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line) as SeenProcess]));
}

/** What a sandbox's program is given by its environment is its own. */
const OWN = /^ANTHROPIC_(WORK_SECRET|ENVIRONMENT_KEY)=/;
const SANDBOX = /^ANTHROPIC_ENVIRONMENT_ID=/;

/** Whether it is a program in a session's or a worker's Pod. */
export function isInSandbox({ pod, variables }: SeenProcess): boolean {
  return pod !== undefined && variables.some((variable) => SANDBOX.test(variable));
}

/** Arguments and environments, without what a sandbox's program is to have. */
export function processPlaces(processes: readonly SeenProcess[]): Place[] {
  return processes.map((process) => {
    const { pod = "the node", arguments: words, variables } = process;
    const own = isInSandbox(process) ? OWN : undefined;
    const rest = variables.filter((variable) => !own?.test(variable));
    // No more of the arguments: they may hold what is looked for.
    const where = `process ${words[0]} of ${pod}`;
    return { where, text: [...words, ...rest].join("\n") };
  });
}
