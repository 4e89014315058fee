/**
 * `npm run mutate [-- --only TEXT] [--changed REF] [--tests FILE] [--list] [--jobs N]`: removes one rule at a time from
 * the code and reports the mutations that no test detects. `--tests` runs these files instead of each mutation's own,
 * for example to show what random histories detect. Generated mutants do not fit. Stryker 10 does not support
 * TypeScript 7, which has no compiler API. It also makes thousands of mutants for `src/sessions` alone, and none
 * removes a resourceVersion or uid from a request, which most rules of the protocol are about.
 */
import { execFileSync, fork } from "node:child_process";
import { once } from "node:events";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { MUTATIONS } from "./list.ts";
import { breaksModelRule, type Mutation } from "./mutation.ts";
import type { Result, Task } from "./worker.ts";

/** Longer than any test file takes on a busy machine. It also detects mutations that cause an endless loop. */
const TIMEOUT_MS = 90_000;

/** The share of mutations that may survive. Of those that break a rule of the protocol's model, none may. */
const MOST_SURVIVORS = 0.05;

const SECOND_MS = 1_000;

/** One mutation and its result. */
export interface Outcome {
  readonly mutation: Mutation;
  readonly result: Result;
}

/** What is wrong with a run; empty: nothing. */
export function problems(outcomes: readonly Outcome[]): string[] {
  const of = (is: Result["is"]) => outcomes.filter(({ result }) => result.is === is);
  const survived = of("survived");
  const invalid = of("invalid").map(({ mutation, result }) => `${mutation.name}: ${"why" in result ? result.why : ""}`);
  const rules = survived.filter(({ mutation }) => breaksModelRule(mutation));
  const most = Math.floor(outcomes.length * MOST_SURVIVORS);
  return [
    ...invalid,
    ...rules.map(({ mutation }) => `${mutation.name}: breaks a rule of the protocol, but no test fails`),
    ...(survived.length > most ? [`${survived.length} mutations survived; at most ${most} may survive`] : []),
  ];
}

/** A process with a warm vitest. It is replaced after a timeout. */
class Runner {
  #child: ReturnType<typeof fork> | null = null;

  async run(task: Task): Promise<Result> {
    this.#child ??= fork(join(import.meta.dirname, "worker.ts"), {
      detached: true,
      stdio: ["ignore", "ignore", "inherit", "ipc"],
    });
    const child = this.#child;
    const stop = new AbortController();
    const timer = setTimeout(() => stop.abort(), TIMEOUT_MS * task.tests.length);
    try {
      child.send(task);
      const [result] = (await Promise.race([
        once(child, "message", { signal: stop.signal }),
        once(child, "exit", { signal: stop.signal }).then(() => {
          throw new Error("the process with the tests ended");
        }),
      ])) as [Result];
      return result;
    } catch (error) {
      this.close();
      if (!stop.signal.aborted) return { is: "invalid", why: String(error) };
      return task.mutation
        ? { is: "killed", by: `a test did not end: ${task.tests.join(", ")}` }
        : { is: "invalid", why: "did not end" };
    } finally {
      clearTimeout(timer);
      stop.abort();
    }
  }

  /** Ends the process and its workers. */
  close(): void {
    const pid = this.#child?.pid;
    this.#child = null;
    if (pid === undefined) return;
    try {
      process.kill(-pid, "SIGKILL");
    } catch {
      // The process has already ended.
    }
  }
}

/** Runs all tasks, `jobs` at a time, and calls `done` for each. */
async function runAll(tasks: readonly Task[], jobs: number, done: (task: Task, result: Result) => void): Promise<void> {
  const waiting = [...tasks];
  const lane = async () => {
    const runner = new Runner();
    try {
      for (let task = waiting.shift(); task; task = waiting.shift()) done(task, await runner.run(task));
    } finally {
      runner.close();
    }
  };
  await Promise.all(Array.from({ length: Math.min(jobs, tasks.length) }, lane));
}

/** Files that differ from a git reference, in the working tree. */
function changedSince(reference: string): Set<string> {
  const root = join(import.meta.dirname, "..", "..");
  const text = execFileSync("git", ["diff", "--name-only", reference], { cwd: root, encoding: "utf8" });
  return new Set(text.split("\n"));
}

function chosen({
  only = [""],
  changed,
  tests: deciding,
}: {
  only?: string[] | undefined;
  changed?: string | undefined;
  tests?: string[] | undefined;
}): Mutation[] {
  const files = changed === undefined ? null : changedSince(changed);
  const picked = MUTATIONS.filter(
    ({ name, file, tests }) =>
      only.some((text) => `${file}: ${name}`.includes(text)) &&
      (files === null || files.has(file) || tests.some((test) => files.has(test))),
  );
  return deciding ? picked.map((each) => ({ ...each, tests: deciding })) : picked;
}

function secondsSince(startedMs: number): number {
  return Math.round((performance.now() - startedMs) / SECOND_MS);
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      only: { type: "string", multiple: true },
      changed: { type: "string" },
      tests: { type: "string", multiple: true },
      list: { type: "boolean" },
      jobs: { type: "string" },
    },
  });
  const mutations = chosen(values);
  if (values.list) {
    for (const { file, guard, name } of mutations) console.log(`${file} (${guard}): ${name}`);
    return 0;
  }
  const jobs = Number(values.jobs ?? availableParallelism());
  const startedMs = performance.now();
  const outcomes: Outcome[] = [];
  const tests = [...new Set(mutations.flatMap((each) => each.tests))];
  // Tests that fail without a mutation would detect every mutation.
  const broken = new Set<string>();
  await runAll(
    tests.map((test) => ({ mutation: null, tests: [test] })),
    jobs,
    (task, result) => {
      if (result.is === "survived") return;
      for (const test of task.tests) broken.add(test);
      console.error(`fails without any mutation: ${result.is === "killed" ? result.by : result.why}`);
    },
  );
  console.log(`${tests.length - broken.size} of ${tests.length} test files pass, after ${secondsSince(startedMs)} s`);
  const note = (mutation: Mutation, result: Result) => {
    outcomes.push({ mutation, result });
    const more = result.is === "killed" ? `, by ${result.by}` : result.is === "invalid" ? `: ${result.why}` : "";
    console.log(`${result.is.padEnd(8)} ${mutation.file} (${mutation.guard}): ${mutation.name}${more}`);
  };
  const [decidable, undecidable] = [true, false].map((is) =>
    mutations.filter((each) => each.tests.every((test) => !broken.has(test)) === is),
  ) as [Mutation[], Mutation[]];
  for (const mutation of undecidable) note(mutation, { is: "invalid", why: "its tests also fail without it" });
  await runAll(
    decidable.map((mutation) => ({ mutation, tests: mutation.tests })),
    jobs,
    ({ mutation }, result) => mutation && note(mutation, result),
  );
  const count = (is: Result["is"]) => outcomes.filter(({ result }) => result.is === is).length;
  const found = problems(outcomes);
  for (const problem of found) console.error(problem);
  console.log(
    `${outcomes.length} mutations: ${count("killed")} killed, ${count("survived")} survived, in ${secondsSince(startedMs)} s`,
  );
  return found.length === 0 ? 0 : 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) process.exitCode = await main();
