import type { Protocol } from "../../model/rules.ts";

/**
 * What a mutation removes. The keys of the protocol's model are the rules that the design marks (M); no mutation of one
 * may survive. The others are:
 * - `precondition`: a uid or resourceVersion in a write;
 * - `identity`: a check that an object is the intended one;
 * - `bound`: a limit in time or number;
 * - `error`: an error is never read as zero, as empty or as success;
 * - `guard`: any other condition that keeps Berth from acting.
 */
export type Guard = keyof Protocol | "precondition" | "identity" | "bound" | "error" | "guard";

/** One change to one file that removes a rule. Its tests must fail. */
export interface Mutation {
  /** What the changed code does. */
  readonly name: string;
  readonly file: string;
  readonly guard: Guard;
  /** A text that occurs exactly once in the file. */
  readonly find: string;
  readonly replace: string;
  /** Test files, the fastest first: the run stops at the first failure. */
  readonly tests: readonly string[];
}

/** The mutations of one file. `tests` apply to every mutation without its own. */
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

/** All mutations in one list. */
export function mutationsOf(files: readonly FileMutations[]): Mutation[] {
  return files.flatMap(({ file, tests, mutations }) => mutations.map((each) => ({ file, tests, ...each })));
}

/**
 * The source with the mutation applied.
 * @throws {Error} the text to replace does not occur exactly once
 */
export function mutated(source: string, { name, file, find, replace }: Mutation): string {
  const parts = source.split(find);
  if (parts.length !== 2) throw new Error(`${file}: "${name}": the text occurs ${parts.length - 1} times: ${find}`);
  return parts.join(replace);
}
