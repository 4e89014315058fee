import {
  Counter,
  type CounterConfiguration,
  Gauge,
  type GaugeConfiguration,
  type IncreaseDataWithExemplar,
  type LabelValues,
} from "prom-client";

/**
 * What the labels of a metric had for values, those apart that name an Environment. They come from closed sets, so that
 * this stays as small with ten thousand Environments as with one, and says which series one of them can have: to find
 * these among the series of all would take longer with every Environment there is.
 */
class OtherLabels {
  readonly #names: readonly string[];
  readonly #seen = new Map<string, Readonly<Record<string, string>>>();

  /** @param own the labels that name an Environment. */
  constructor(all: readonly string[], own: readonly string[]) {
    this.#names = all.filter((name) => !own.includes(name));
  }

  see(labels: Readonly<Partial<Record<string, string | number>>>): void {
    const values = this.#names.map((name) => String(labels[name] ?? ""));
    const key = values.join("\0");
    if (this.#seen.has(key)) return;
    this.#seen.set(key, Object.fromEntries(this.#names.map((name, at) => [name, values[at] ?? ""])));
  }

  [Symbol.iterator](): Iterator<Readonly<Record<string, string>>> {
    return this.#seen.values();
  }
}

/** A counter of Environments. */
export class EnvironmentCounter<L extends string> extends Counter<L> {
  readonly others: OtherLabels;

  constructor(configuration: CounterConfiguration<L>, own: readonly string[]) {
    super(configuration);
    this.others = new OtherLabels(configuration.labelNames ?? [], own);
    // prom-client makes it a property of each counter, which a method here would not come before.
    const inc = this.inc.bind(this) as (labels: LabelValues<L>, value?: number) => void;
    this.inc = (labels?: LabelValues<L> | IncreaseDataWithExemplar<L> | number, value: number = 1) => {
      if (typeof labels !== "object") throw new TypeError("a counter of Environments needs their labels");
      // Of exemplars nobody here makes use.
      const of = labels as LabelValues<L>;
      this.others.see(of);
      inc(of, value);
    };
  }
}

/** A gauge of Environments; it is set, never moved. */
export class EnvironmentGauge<L extends string> extends Gauge<L> {
  readonly others: OtherLabels;

  constructor(configuration: GaugeConfiguration<L>, own: readonly string[]) {
    super(configuration);
    this.others = new OtherLabels(configuration.labelNames ?? [], own);
  }

  override set(labels: LabelValues<L> | number, value = 0): void {
    if (typeof labels === "number") throw new TypeError("a gauge of Environments needs their labels");
    this.others.see(labels);
    super.set(labels, value);
  }
}
