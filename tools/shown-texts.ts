/** Makes recorded texts reproducible: it replaces the names, ids and times of a run by those of the page. */
export interface Run {
  readonly namespace: string;
  readonly name: string;
  readonly environmentId: string;
  readonly node: string;
}

const SHOWN = {
  namespace: "agents",
  name: "research",
  environmentId: "env_011CZkZ9X2dpNyB7HsEFoRfW",
  node: "node-1",
  pod: "berth-research-6vd4nqhz",
  address: "127.0.0.1:4010",
  time: "2026-01-02T03:04:05Z",
  operator: "system:serviceaccount:berth-system:berth-operator",
  nodes: 3,
  age: "2m",
} as const;

/** The number of spaces between kubectl's columns. */
const GAP = 3;
const EVENT_GAP = 2;

/** A text of a run, as the page shows it. */
export function shownText(text: string, run: Run): string {
  return (
    text
      .replaceAll(`"operator-${run.namespace}"`, `"${SHOWN.operator}"`)
      .replaceAll(`${run.namespace}/${run.name}`, `${SHOWN.namespace}/${SHOWN.name}`)
      .replaceAll(`${run.namespace}/second`, `${SHOWN.namespace}/second`)
      .replaceAll(run.namespace, SHOWN.namespace)
      .replaceAll(`environment="${run.name}"`, `environment="${SHOWN.name}"`)
      .replaceAll(`environment=${run.name}`, `environment=${SHOWN.name}`)
      .replaceAll(new RegExp(`\\bberth-${run.name}-[a-z0-9]{8}\\b`, "g"), SHOWN.pod)
      .replaceAll(/\bSecret key\b/g, `Secret ${SHOWN.name}-key`)
      .replaceAll('secrets "key"', `secrets "${SHOWN.name}-key"`)
      .replaceAll(`secrets ${SHOWN.namespace}/key`, `secrets ${SHOWN.namespace}/${SHOWN.name}-key`)
      .replaceAll(run.environmentId, SHOWN.environmentId)
      .replaceAll(run.node, SHOWN.node)
      .replaceAll(/\b(work|session)_[0-9A-Za-z]{24}\b/g, "$1_01EXAMPLE")
      .replaceAll(/\b127\.0\.0\.1:\d+\b/g, SHOWN.address)
      .replaceAll(/\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\b/g, SHOWN.time)
      .replaceAll(/\b0\/\d+ nodes are available: \d+ /g, `0/${SHOWN.nodes} nodes are available: ${SHOWN.nodes} `)
      .replaceAll(/\b0\/\d+ nodes are available: (?=\d+ Preemption)/g, "")
      // Which of the calls detects the fault first varies.
      .replaceAll(/\bWork API (stats|list): /g, "Work API poll: ")
      .replaceAll(/\b\d+ sessions in a row/g, "3 sessions in a row")
  );
}

/** A table of `kubectl get`, with the page's name for the Environment and one age for all rows. */
export function shownTable(table: string, run: Run): string {
  const [head = [], ...rows] = columnsOf(shownText(table, run));
  const age = head.indexOf("AGE");
  const shown = rows.map((row) =>
    row.map((cell, column) => {
      if (column === age) return SHOWN.age;
      return cell === run.name || cell.endsWith(`/${run.name}`) ? cell.replace(run.name, SHOWN.name) : cell;
    }),
  );
  return padded([head, ...shown.sort(([a = ""], [b = ""]) => (a < b ? -1 : 1))], GAP);
}

/** The output of `kubectl describe`: conditions of these types, and each kind of Event once. */
export function shownDescription(description: string, run: Run, types: readonly string[]): string {
  const lines = shownText(description, run).split("\n");
  const conditions = conditionsOf(lines).filter((block) => types.includes(fieldOf(block, "Type")));
  const gap = ["    ..."];
  return [
    "...",
    "Status:",
    "  Conditions:",
    ...conditions.flatMap((block, index) => (index === 0 ? block : [...gap, ...block])),
    "    ...",
    "Events:",
    ...eventsOf(lines),
  ].join("\n");
}

/** A table of `kubectl events` in its order, with one age for all rows. */
export function shownEvents(table: string, run: Run): string {
  // The only title of two words would be taken for two columns.
  const [head = [], ...rows] = columnsOf(shownText(table, run).replace("LAST SEEN", "LAST_SEEN"));
  const titles = head.map((title) => title.replace("_", " "));
  return padded([titles, ...rows.map(([, ...cells]) => [SHOWN.age, ...cells])], GAP);
}

function conditionsOf(lines: readonly string[]): string[][] {
  const start = lines.indexOf("  Conditions:");
  const blocks: string[][] = [];
  for (const line of lines.slice(start + 1)) {
    if (!line.startsWith("    ")) break;
    if (/^ {4}Last Transition Time:/.test(line)) blocks.push([]);
    blocks.at(-1)?.push(line);
  }
  return blocks;
}

function fieldOf(block: readonly string[], field: string): string {
  return block.find((line) => line.trim().startsWith(`${field}:`))?.split(/:\s+/)[1] ?? "";
}

/** The first Event of each kind: the page shows which Events exist, not how many. */
function eventsOf(lines: readonly string[]): string[] {
  const start = lines.findIndex((line) => line.startsWith("Events:"));
  const rest = lines.slice(start + 1).filter((line) => line.trim() !== "");
  const [head = [], , ...events] = cellsOf(rest.map((line) => line.replace(/^ {2}/, "")).join("\n"));
  const seen = new Set<string>();
  const kept = events.flatMap(([type = "", reason = "", , from = "", ...message]) => {
    const words = message.join("  ");
    const kind = `${type} ${reason} ${words}`;
    if (seen.has(kind)) return [];
    seen.add(kind);
    return [[type, reason, SHOWN.age, from, words]];
  });
  if (kept.length === 0) return ["  <none>"];
  const ruled = [head, head.map((title) => "-".repeat(title.length)), ...kept];
  return padded(ruled, EVENT_GAP)
    .split("\n")
    .map((line) => `  ${line}`);
}

/** Splits rows at the positions of the titles, because a cell may be empty. */
function columnsOf(table: string): string[][] {
  const lines = table.split("\n").filter((line) => line.trim() !== "");
  const starts = [...(lines[0] ?? "").matchAll(/\S+/g)].map(({ index }) => index);
  return lines.map((line) => starts.map((start, column) => line.slice(start, starts[column + 1]).trim()));
}

function cellsOf(table: string): string[][] {
  return table
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map((line) => line.trimEnd().split(/\s{2,}/));
}

function padded(rows: readonly (readonly string[])[], gap: number): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd((widths[column] ?? 0) + gap))
        .join("")
        .trimEnd(),
    )
    .join("\n");
}
