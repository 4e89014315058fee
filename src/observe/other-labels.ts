import {
  Counter,
  type CounterConfiguration,
  Gauge,
  type GaugeConfiguration,
  type IncreaseDataWithExemplar,
  type LabelValues,
} from "prom-client";

/**
 * The combinations of label values that a metric has had, without the labels that identify an Environment. The values
 * come from closed sets, so their number does not depend on the number of Environments. They give the possible series
 * of one Environment; a search through all series would take longer with each Environment.
 */
class OtherLabels {
  readonly #names: readonly string[];
  readonly #seen = new Map<string, Readonly<Record<string, string>>>();

  /** @param own the labels that identify an Environment. */
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
    // prom-client defines `inc` as a property of each instance, which hides a method of this class.
    const inc = this.inc.bind(this) as (labels: LabelValues<L>, value?: number) => void;
    this.inc = (labels?: LabelValues<L> | IncreaseDataWithExemplar<L> | number, value: number = 1) => {
      if (typeof labels !== "object") throw new TypeError("a counter of Environments needs their labels");
      // Exemplars are not used here.
      const of = labels as LabelValues<L>;
      this.others.see(of);
      inc(of, value);
    };
  }
}

/** A gauge of Environments. It supports `set` only. */
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
