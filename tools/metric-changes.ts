/** A line of the text format: name with labels, and value. */
const SAMPLE = /^(berth_[a-z_]+)(\{[^}]*\})? (\S+)$/;
/** Omit histogram buckets, which would fill the page; counts and sums are enough. */
const LEFT_OUT = /_bucket$/;
/** Only samples of an Environment: requests of idle loops differ from run to run. */
const OF_AN_ENVIRONMENT = /environment="/;

/** What changed for an Environment between two scrapes of /metrics, one per line: counters and histogram counts. */
export function metricChanges(before: string, after: string): string {
  const known = samples(before);
  return [...samples(after)]
    .flatMap(([key, value]) => {
      const change = value - (known.get(key) ?? 0);
      const counted = /_(total|count)(\{|$)/.test(key);
      return counted && change !== 0 ? [`${key} ${change}`] : [];
    })
    .sort()
    .join("\n");
}

function samples(text: string): Map<string, number> {
  const found = new Map<string, number>();
  for (const line of text.split("\n")) {
    const [, name = "", labels = "", value = ""] = SAMPLE.exec(line) ?? [];
    if (name === "" || LEFT_OUT.test(name) || !OF_AN_ENVIRONMENT.test(labels)) continue;
    found.set(`${name}${labels}`, Number(value));
  }
  return found;
}
