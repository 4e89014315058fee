/** One series of a page of metrics. */
export interface Sample {
  /** The name of the series, with `_bucket`, `_sum` or `_count`. */
  readonly name: string;
  /** The name of its family. */
  readonly metric: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/**
 * Parses the part of Prometheus' text format that prom-client writes.
 * @throws {Error} if a line is neither comment nor sample
 */
export function parseMetrics(text: string): Sample[] {
  const samples: Sample[] = [];
  let family = "";
  for (const line of text.split("\n")) {
    const [, type] = /^# TYPE (\S+) /.exec(line) ?? [];
    if (type !== undefined) family = type;
    if (line.trim() === "" || line.startsWith("#")) continue;
    const [, name, labels = "", value] = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
    if (name === undefined || value === undefined) throw new Error(`no sample: ${line}`);
    const metric = name.startsWith(family) ? family : name;
    samples.push({ name, metric, labels: parseLabels(labels), value: numberOf(value) });
  }
  return samples;
}

/** The sum of all series with this name and these labels; undefined if there is none. */
export function sumOf(
  samples: readonly Sample[],
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number | undefined {
  const own = Object.entries(labels);
  const found = samples.filter(
    (sample) => sample.name === name && own.every(([label, value]) => sample.labels[label] === value),
  );
  return found.length === 0 ? undefined : found.reduce((sum, { value }) => sum + value, 0);
}

function parseLabels(text: string): Record<string, string> {
  const pairs = text.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g);
  const plain = (value: string) => value.replaceAll(/\\(.)/g, (_all, char: string) => (char === "n" ? "\n" : char));
  return Object.fromEntries([...pairs].map(([, label = "", value = ""]) => [label, plain(value)]));
}

function numberOf(text: string): number {
  if (text === "+Inf") return Number.POSITIVE_INFINITY;
  return text === "-Inf" ? Number.NEGATIVE_INFINITY : Number(text);
}
