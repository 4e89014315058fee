import { explore } from "../../model/explore.ts";
import type { Scope } from "../../model/scopes.ts";

/** What came of a scope: all of its variants together. */
export interface Verdict {
  readonly states: number;
  /** Properties that fail, sorted. */
  readonly fails: readonly string[];
  /** The words of each failure, with a shortest way to it. */
  readonly ways: ReadonlyMap<string, readonly string[]>;
}

/** Explores every variant of a scope. @throws {Error} one has more states than are explored. */
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

/** The first word of a failure is the property. */
function propertiesOf(words: readonly string[]): string[] {
  return [...new Set(words.map((text) => text.split(" ")[0] ?? ""))].sort();
}

/** For the message of a test that fails. */
export function wordsOf({ ways }: Verdict): string {
  return [...ways].map(([words, way]) => `${words}\n${way.map((step) => `    ${step}`).join("\n")}`).join("\n");
}
