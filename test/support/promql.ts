/** Checks which of Berth's metrics and labels a PromQL expression names. */
import { createMetrics } from "../../src/observe/metrics.ts";
import { documentedValues } from "./label-values.ts";

/** Labels that Prometheus adds to every series of a target, to its own series, or to buckets. */
const OF_TARGETS = new Set(["cluster", "job", "instance", "pod", "namespace", "le"]);

interface KnownMetric {
  readonly name: string;
  readonly labelNames: readonly string[];
}

const metrics = createMetrics().registry.getMetricsAsArray() as unknown as readonly KnownMetric[];
const known = new Map(metrics.map((metric) => [metric.name, metric]));

/** The metric family of a series: a histogram's for its buckets, sum and count. */
export function familyOf(name: string): string {
  return known.has(name) ? name : name.replace(/_(bucket|sum|count)$/, "");
}

/** Berth's metric families in an expression. */
export function familiesIn(expr: string): string[] {
  return [...expr.matchAll(/\bberth_[a-z_]+[a-z]\b/g)].map(([name]) => familyOf(name));
}

/** The parts of an expression that match nothing: metrics, labels and values that Berth does not have. */
export function deadPartsOf(expr: string): string[] {
  const dead = familiesIn(expr).filter((name) => !known.has(name));
  const documented = documentedValues();
  for (const [, name = "", matchers = ""] of expr.matchAll(/\b(berth_[a-z_]+)\{([^}]*)\}/g)) {
    const family = familyOf(name);
    for (const [, label = "", , text = ""] of matchers.matchAll(/(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"/g)) {
      if (!known.get(family)?.labelNames.includes(label) && !OF_TARGETS.has(label)) dead.push(`${family}{${label}}`);
      const values = documented.get(`${family} ${label}`);
      if (!values) continue;
      for (const value of text.split("|")) if (!values.has(value)) dead.push(`${family}{${label}="${value}"}`);
    }
  }
  return dead;
}
