/** Checks metric labels against docs/metric-labels.md. */
import { readFileSync } from "node:fs";
import type { Registry } from "prom-client";
import { CONDITION_TYPES } from "../../src/api/condition-types.ts";
import { END_REASON_LIST } from "../../src/api/reasons.ts";
import { sessionsStatus } from "../../src/api/status.ts";

const PAGE = new URL("../../docs/metric-labels.md", import.meta.url);

/** Value sets that the page links to instead of copying. */
const LINKED: Readonly<Record<string, readonly string[]>> = {
  "#status": Object.keys(sessionsStatus.shape),
  "#how-sessions-end": END_REASON_LIST,
  "#conditions": CONDITION_TYPES,
};

/** Labels with open values: people or another system's API name them. */
const OPEN = new Set([
  ...["namespace", "environment", "group", "lease", "version", "node", "quantile", "le"],
  ...["code", "call", "verb", "resource", "queue"],
]);

/** The values that docs/metric-labels.md documents, by `metric label`. */
export function documentedValues(): Map<string, ReadonlySet<string>> {
  const page = readFileSync(PAGE, "utf8");
  const rows = page.matchAll(/^\| `(berth_\w+)` \| `(\w+)` \| (.*) \|$/gm);
  return new Map([...rows].map(([, metric = "", label = "", text = ""]) => [`${metric} ${label}`, valuesOf(text)]));
}

function valuesOf(text: string): ReadonlySet<string> {
  const linked = Object.entries(LINKED).find(([anchor]) => text.includes(`${anchor})`));
  if (linked) return new Set(linked[1]);
  return new Set([...text.matchAll(/`([\w-]+)`/g)].map(([, value = ""]) => value));
}

/** Labels whose values the page must list. */
export function closedLabels(metrics: readonly { name: string; labelNames: readonly string[] }[]): string[] {
  return metrics.flatMap(({ name, labelNames }) =>
    labelNames.filter((label) => !OPEN.has(label)).map((label) => `${name} ${label}`),
  );
}

/** Throws if a metric has a label value that docs/metric-labels.md does not list. */
export async function expectDocumentedLabels(registry: Registry): Promise<void> {
  const samples = (await registry.getMetricsAsJSON()).flatMap(({ name, values }) =>
    values.map(({ labels }) => ({ metric: name, labels: labels as Record<string, string | number | undefined> })),
  );
  const unknown = undocumentedLabels(samples);
  if (unknown.length > 0) throw new Error(`docs/metric-labels.md lacks ${unknown.join(", ")}`);
}

/** Values that docs/metric-labels.md does not list, as `metric{label="value"}`. */
export function undocumentedLabels(
  samples: Iterable<{ metric: string; labels: Readonly<Record<string, string | number | undefined>> }>,
): string[] {
  const documented = documentedValues();
  const unknown = new Set<string>();
  for (const { metric, labels } of samples) {
    if (!metric.startsWith("berth_")) continue;
    for (const [label, value] of Object.entries(labels)) {
      if (OPEN.has(label) || value === undefined) continue;
      if (!documented.get(`${metric} ${label}`)?.has(String(value))) unknown.add(`${metric}{${label}="${value}"}`);
    }
  }
  return [...unknown];
}
