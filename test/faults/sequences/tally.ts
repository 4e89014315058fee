/** Counts the steps and checks of all sequences of a run. */
export class Tally {
  sequences = 0;
  readonly #kinds: readonly string[];
  readonly #taken = new Map<string, number>();
  readonly #struck = new Map<string, number>();
  readonly #checked = new Map<string, number>();

  /** @param kinds all kinds of steps */
  constructor(kinds: readonly string[]) {
    this.#kinds = kinds;
  }

  taken(kind: string): void {
    this.#taken.set(kind, (this.#taken.get(kind) ?? 0) + 1);
  }

  /** Records that a step took effect. */
  struck(kind: string): void {
    this.#struck.set(kind, (this.#struck.get(kind) ?? 0) + 1);
  }

  checked(checks: ReadonlyMap<string, number>): void {
    for (const [invariant, count] of checks) this.#checked.set(invariant, (this.#checked.get(invariant) ?? 0) + count);
  }

  /** Kinds of steps that never occurred. */
  get untaken(): string[] {
    return this.#kinds.filter((kind) => !this.#taken.has(kind));
  }

  /** Kinds of steps that never took effect. */
  get idle(): string[] {
    return this.#kinds.filter((kind) => !this.#struck.has(kind));
  }

  get text(): string {
    const sum = (counts: ReadonlyMap<unknown, number>) => [...counts.values()].reduce((all, count) => all + count, 0);
    return [
      `sequences: ${this.sequences} run, ${sum(this.#taken)} steps, ${sum(this.#checked)} invariants checked`,
      "steps, and how often they took effect:",
      ...this.#kinds.map((kind) => `  ${kind}: ${this.#taken.get(kind) ?? 0}, ${this.#struck.get(kind) ?? 0}`),
      "invariants, and how often they were checked:",
      ...[...this.#checked].sort().map(([invariant, count]) => `  ${invariant}: ${count}`),
    ].join("\n");
  }
}
