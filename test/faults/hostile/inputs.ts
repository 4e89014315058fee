/**
 * The inputs of one run, each used once, by kind. What was used is written down in order, so that a run that failed says
 * what it had tried.
 */
export class Inputs<T> {
  readonly used: string[] = [];
  readonly #left = new Map<string, { readonly name: string; readonly input: T }[]>();
  readonly #total: number;

  /** @param all [kind, name, input] */
  constructor(all: readonly (readonly [kind: string, name: string, input: T])[]) {
    this.#total = all.length;
    for (const [kind, name, input] of all) {
      const known = this.#left.get(kind) ?? [];
      known.push({ name, input });
      this.#left.set(kind, known);
    }
  }

  /** The next one of this kind; undefined when all were used. */
  take(kind: string): T | undefined {
    const next = this.#left.get(kind)?.shift();
    if (next) this.used.push(`${kind}: ${next.name}`);
    return next?.input;
  }

  get isEmpty(): boolean {
    return this.used.length === this.#total;
  }

  /** What is left, by kind. */
  get left(): Record<string, number> {
    return Object.fromEntries([...this.#left].map(([kind, { length }]) => [kind, length]).filter(([, n]) => n !== 0));
  }

  /** The line that a run prints for one kind of input. */
  summary(what: string): string {
    return `hostile inputs: ${this.used.length} tried: ${what}`;
  }
}
