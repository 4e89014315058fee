/** A line of the text format: name with labels, and value. */
const SAMPLE = /^(berth_[a-z_]+)(\{[^}]*\})? (\S+)$/;
/** Of a histogram only how often and how much: the buckets would fill the page. */
const LEFT_OUT = /_bucket$/;
/** Labels that every sample of an Environment carries, and requests of the idle loops, which differ from run to run. */
const OF_AN_ENVIRONMENT = /environment="/;

/** What changed between two readings of /metrics for an Environment, a line each: counters and histogram counts. */
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
