import { oneLine, type Paint } from "../observe/terminal.ts";
import { type Explanation, explanationOf } from "./explanation.ts";
import { type GatherOptions, gather } from "./gather.ts";
import { idsOf } from "./ids.ts";
import { type Entry, timelineOf } from "./timeline.ts";
import type { Looked } from "./traces.ts";

const WHAT_WIDTH = 19;
const SOURCE_WIDTH = 11;
const MS_PART = /\.(\d{3})Z$/;

/** The story for a person: the ids, the timeline, and the outcome. */
export function storyText(story: Story, paint: Paint): string {
  const { asked, sessions, workItems, pods, environments, timeline, verdict, looked } = story;
  const named: readonly (readonly [string, readonly string[]])[] = [
    ["session", sessions],
    ["work item", workItems],
    ["Pod", pods],
    ["Environment", environments],
  ];
  // Ids may contain any character, and anyone who can write to a Pod, a Secret or an Event can change most of them.
  const known = named
    .filter(([, names]) => names.length > 0)
    .map(([what, names]) => `${what} ${names.map(oneLine).join(", ")}`);
  const head = `${paint.strong(oneLine(asked))}${known.length > 0 ? `: ${known.join("; ")}` : ""}\n`;
  const lines = timeline.map((entry) => lineOf(entry, paint)).join("");
  const notSearched = looked.filter(({ found }) => found === null);
  const notes = notSearched
    .map(({ where, note }) => paint.faint(`not searched: ${where}: ${oneLine(note ?? "")}\n`))
    .join("");
  const parts = [head, lines, notes, explanationText(verdict, paint)].filter((part) => part !== "");
  return parts.join("\n");
}

function lineOf({ at, what, source, message }: Entry, paint: Paint): string {
  // Kubernetes times have whole seconds: hide the milliseconds that were not measured.
  const time = at.replace(MS_PART, (part, ms: string) => (ms === "000" ? "Z    " : part));
  return `${paint.faint(time)}  ${what.padEnd(WHAT_WIDTH)}${paint.faint(source.padEnd(SOURCE_WIDTH + 1))}${oneLine(message)}\n`;
}

function explanationText({ standing, sentence, fix }: Explanation, paint: Paint): string {
  return `${colourOf(standing, paint)(oneLine(sentence))}\n-> ${oneLine(fix)}\n`;
}

function colourOf(standing: Explanation["standing"], paint: Paint): (text: string) => string {
  return standing === "unknown" ? paint.doubtful : paint.strong;
}

/** What happened to a session: everything that is known of it. */
export interface Story {
  readonly asked: string;
  /** All names that were found for it. */
  readonly sessions: readonly string[];
  readonly workItems: readonly string[];
  readonly pods: readonly string[];
  /** As `namespace/name`. */
  readonly environments: readonly string[];
  readonly timeline: readonly Entry[];
  readonly verdict: Explanation;
  readonly looked: readonly Looked[];
}

/** Collects all traces of a session and arranges them by time. */
export async function explain(options: GatherOptions): Promise<Story> {
  const traces = await gather(options);
  const { sessions, items, pods } = idsOf(traces);
  return {
    asked: traces.asked,
    sessions: [...sessions],
    workItems: [...items],
    pods: [...pods],
    environments: traces.environments.map(({ metadata }) => `${metadata.namespace}/${metadata.name}`),
    timeline: timelineOf(traces),
    verdict: explanationOf(traces),
    looked: traces.looked,
  };
}
