import { appendFile, readFile } from "node:fs/promises";
import { join } from "node:path";
import { realClock, sleep } from "../../../src/core/clock.ts";
import type { NodeControl } from "../../../testbed/real-node/control-protocol.ts";
import type { Place } from "../../support/leak-search.ts";

/** A file in the run's folder, with a JSON object for each process. */
const PROCESSES = "processes";
/** Sessions are short; this is frequent enough to catch the processes of most. */
const PAUSE_MS = 1_000;

/** A process that was seen on the node. */
export interface SeenProcess {
  /** UID of its Pod; undefined for a program of the node. */
  readonly pod?: string | undefined;
  /** Id of its container. */
  readonly container?: string | undefined;
  readonly arguments: readonly string[];
  /** As `NAME=value`. */
  readonly variables: readonly string[];
}

/** Records the arguments and environment of every process on the node, once each. */
export class ProcessWatch implements AsyncDisposable {
  readonly #ending = new AbortController();
  readonly #running: Promise<void>;

  constructor(control: NodeControl, dir: string) {
    this.#running = this.#run(control, join(dir, PROCESSES));
  }

  async #run(control: NodeControl, file: string): Promise<void> {
    // By process id and arguments, because a process can execute another program.
    const seen = new Set<string>();
    do {
      // The node may be ending.
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
        const { pod, container, variables = [] } = environment ?? {};
        return `${JSON.stringify({ pod, container, arguments: words, variables } satisfies SeenProcess)}\n`;
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

/** Credentials that a sandbox's program rightly has in its environment. */
const OWN = /^ANTHROPIC_(WORK_SECRET|ENVIRONMENT_KEY)=/;
const SANDBOX = /^ANTHROPIC_ENVIRONMENT_ID=/;

/** Whether it is a program in a session's or a worker's Pod. */
export function isInSandbox({ pod, variables }: SeenProcess): boolean {
  return pod !== undefined && variables.some((variable) => SANDBOX.test(variable));
}

/** Arguments and environments, without the credentials that a sandbox's program may have. */
export function processPlaces(processes: readonly SeenProcess[]): Place[] {
  return processes.map((process) => {
    const { pod = "the node", arguments: words, variables } = process;
    const own = isInSandbox(process) ? OWN : undefined;
    const rest = variables.filter((variable) => !own?.test(variable));
    // Only the program's name, because further arguments may contain the credential.
    const where = `process ${words[0]} of ${pod}`;
    return { where, text: [...words, ...rest].join("\n") };
  });
}
