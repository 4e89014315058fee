import { explore } from "../../model/explore.ts";
import type { Scope } from "../../model/scopes.ts";

// Explores scopes of the model and summarizes their failures.

/** Most scopes take a second or two; a busy machine may need much longer. */
export const PATIENCE_MS = 300_000;

/** The result of a scope, over all of its variants. */
export interface Verdict {
  readonly states: number;
  /** The failed properties, sorted. */
  readonly fails: readonly string[];
  /** The text of each failure, with a shortest path to it. */
  readonly ways: ReadonlyMap<string, readonly string[]>;
}

/** Explores every variant of a scope. @throws {Error} if one has more states than the limit */
export function judge({ name, variants }: Pick<Scope, "name" | "variants">): Verdict {
  let states = 0;
  const ways = new Map<string, readonly string[]>();
  for (const rules of variants) {
    const explored = explore(rules);
    if (!explored.isComplete) throw new Error(`${name}: not explored to its end, at ${explored.states} states`);
    states += explored.states;
    for (const [words, way] of explored.failures) if (!ways.has(words)) ways.set(words, way);
  }
  return { states, fails: propertiesOf([...ways.keys()]), ways };
}

/** The first word of a failure names the property. */
function propertiesOf(words: readonly string[]): string[] {
  return [...new Set(words.map((text) => text.split(" ")[0] ?? ""))].sort();
}

/** The failures as text, for the message of a failed test. */
export function wordsOf({ ways }: Verdict): string {
  return [...ways].map(([words, way]) => `${words}\n${way.map((step) => `    ${step}`).join("\n")}`).join("\n");
}
