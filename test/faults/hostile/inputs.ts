import { readFaultSettings } from "../support/settings.ts";

const { long, sample: isSample } = readFaultSettings();

/** The long run multiplies the number of inputs. */
export const TIMES = long ? 10 : 1;

/** How many of this number of inputs a run has: a sample has a quarter of them. */
export function extentOf(count: number): number {
  return Math.ceil(count * (isSample ? 0.25 : 1));
}

/**
 * The inputs of one run by kind. Each is used once, in a recorded order, so that a failed run can report what it tried.
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

  /** The next input of this kind; undefined once all are used. */
  take(kind: string): T | undefined {
    const next = this.#left.get(kind)?.shift();
    if (next) this.used.push(`${kind}: ${next.name}`);
    return next?.input;
  }

  get isEmpty(): boolean {
    return this.used.length === this.#total;
  }

  /** The number of unused inputs by kind. */
  get left(): Record<string, number> {
    return Object.fromEntries([...this.#left].map(([kind, { length }]) => [kind, length]).filter(([, n]) => n !== 0));
  }

  /** The summary line of a run for one kind of input. */
  summary(what: string): string {
    return `hostile inputs: ${this.used.length} tried: ${what}`;
  }
}
