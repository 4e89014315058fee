import type { Protocol } from "../../model/rules.ts";

/**
 * What a mutation takes away. A rule of the protocol's model is one that the design marks (M): no mutation of it may
 * survive. The others:
 * - `precondition`: a uid or resourceVersion that a write names;
 * - `identity`: a check that something read is what was meant;
 * - `bound`: a limit in time or number;
 * - `error`: an error is never read as zero, as empty or as success;
 * - `guard`: any other condition that keeps Berth from acting.
 */
export type Guard = keyof Protocol | "precondition" | "identity" | "bound" | "error" | "guard";

/** One change to one file that takes a rule away. The fitting tests must fail with it. */
export interface Mutation {
  /** What the changed code does, in words. */
  readonly name: string;
  readonly file: string;
  readonly guard: Guard;
  /** A text that occurs once in the file. */
  readonly find: string;
  readonly replace: string;
  /** Test files, the quickest first: the first one that fails decides. */
  readonly tests: readonly string[];
}

/** The mutations of one file. `tests` are those of every mutation that names none of its own. */
export interface FileMutations {
  readonly file: string;
  readonly tests: readonly string[];
  readonly mutations: readonly (Omit<Mutation, "file" | "tests"> & Partial<Pick<Mutation, "tests">>)[];
}

const OTHER_GUARDS: ReadonlySet<string> = new Set<Guard>(["precondition", "identity", "bound", "error", "guard"]);

/** Whether the mutation breaks a rule that the design marks (M). */
export function breaksModelRule({ guard }: Mutation): boolean {
  return !OTHER_GUARDS.has(guard);
}

/** The list in one piece. */
export function mutationsOf(files: readonly FileMutations[]): Mutation[] {
  return files.flatMap(({ file, tests, mutations }) => mutations.map((each) => ({ file, tests, ...each })));
}

/** The source with the mutation in it. @throws {Error} when the text to replace does not occur exactly once */
export function mutated(source: string, { name, file, find, replace }: Mutation): string {
  const parts = source.split(find);
  if (parts.length !== 2) throw new Error(`${file}: "${name}": the text occurs ${parts.length - 1} times: ${find}`);
  return parts.join(replace);
}
