import { type Cell, lengthOf, line, type Screen } from "./cells.ts";
import type { Mode } from "./sample.ts";
import { cut, type Paint, pad, seconds } from "./text.ts";
import { answeredTools, faultOf, STEPS, type Step, sinceQueued, stepsOf, type Track } from "./track.ts";

interface Column {
  readonly name: string;
  readonly width: number;
  readonly align?: "right";
  /** Lower ranks stay longer as the screen gets narrower. */
  readonly rank: number;
  readonly cells: (track: Track) => Cell[];
}

/** Fits `3600.0s`. */
const TIME_WIDTH = 7;

const timeColumn = (name: string, step: Step, rank: number): Column => ({
  name,
  width: Math.max(TIME_WIDTH, name.length),
  align: "right",
  rank,
  cells: (track) => {
    const ms = sinceQueued(track, step);
    return [{ text: ms === undefined ? "" : seconds(ms) }];
  },
});

const podColumn = (name: string): Column => ({
  name,
  width: 8,
  rank: 3,
  cells: (track) => [{ text: shortPod(track), style: track.podGone ? "dim" : undefined }],
});

const NUMBER: Column = {
  name: "#",
  width: 4,
  align: "right",
  rank: 0,
  cells: ({ number }) => [{ text: String(number) }],
};
const MARKS: Column = { name: "steps", width: STEPS.length, rank: 1, cells: marks };
const TOOLS: Column = {
  name: "tools",
  width: 5,
  align: "right",
  rank: 4,
  cells: (track) => [{ text: track.plannedTools === 0 ? "" : `${answeredTools(track)}/${track.plannedTools}` }],
};

/** Both have the same widths on a screen of 80 columns. */
const COLUMNS: Readonly<Record<Mode, readonly Column[]>> = {
  sessions: [
    NUMBER,
    podColumn("pod"),
    MARKS,
    timeColumn("claimed", "claimed", 7),
    timeColumn("opened", "opened", 5),
    timeColumn("started", "started", 8),
    timeColumn("heartbeat", "heartbeat", 6),
    TOOLS,
    timeColumn("stopped", "stopped", 2),
  ],
  workers: [
    NUMBER,
    podColumn("worker"),
    MARKS,
    timeColumn("claimed", "claimed", 5),
    timeColumn("heartbeat", "heartbeat", 6),
    TOOLS,
    timeColumn("stopped", "stopped", 2),
  ],
};

const GAP = "  ";
/** The activity column is worth showing from this width on. */
const LEAST_ACTIVITY = 18;
/** The activity column gets this width before the least useful columns are shown. */
const GOOD_ACTIVITY = 32;
const LEAST_TELLING_RANK = 7;

/** The sessions of one mode as lines, at most `room` including the header. */
export function table(tracks: readonly Track[], mode: Mode, room: number, screen: Screen, paint: Paint): string[] {
  if (room < 2) return [];
  const columns = columnsFor(screen.columns, tracks, mode);
  const used = columns.reduce((sum, { width }) => sum + width + GAP.length, 0);
  const activityWidth = screen.columns - used;
  const head: Cell[] = columns.flatMap(({ name, width, align }) => [
    { text: pad(name, width, align === "right" ? "right" : "left") + GAP, style: "dim" as const },
  ]);
  const { shown, more } = choose(tracks, room - 1);
  const lines = [line(head, screen.columns, paint)];
  if (more > 0)
    lines.push(line([{ text: `     ${more} newer items are not shown`, style: "dim" }], screen.columns, paint));
  for (const track of shown) lines.push(line(row(track, columns, activityWidth), screen.columns, paint));
  return lines;
}

function columnsFor(width: number, tracks: readonly Track[], mode: Mode): Column[] {
  const all = COLUMNS[mode];
  const chosen = new Set<Column>();
  // Simulated workers call no tools.
  const useful = tracks.some(({ plannedTools }) => plannedTools > 0) ? all : all.filter((it) => it !== TOOLS);
  let used = 0;
  for (const column of useful.toSorted((a, b) => a.rank - b.rank)) {
    const next = used + column.width + GAP.length;
    // The activity comes before the less useful times.
    const rest = column.rank >= LEAST_TELLING_RANK ? GOOD_ACTIVITY : column.rank > TOOLS.rank ? LEAST_ACTIVITY : 0;
    if (next + rest > width + GAP.length) break;
    chosen.add(column);
    used = next;
  }
  return all.filter((column) => chosen.has(column));
}

/**
 * All live work items and the latest ended ones. If even the live ones don't fit, those that were queued first. The
 * newest are at the top, and a session's work items are one below the other.
 */
function choose(tracks: readonly Track[], room: number): { shown: Track[]; more: number } {
  const live = tracks.filter(({ at }) => at.stopped === undefined);
  const ended = tracks.filter(({ at }) => at.stopped !== undefined);
  const shown =
    live.length > room
      ? live.slice(0, room - 1)
      : [...live, ...ended.slice(Math.max(0, ended.length + live.length - room))];
  const latest = new Map(tracks.map(({ number, at }) => [number, at.queued ?? 0]));
  const of = ({ number }: Track) => latest.get(number) ?? 0;
  shown.sort((a, b) => of(b) - of(a) || b.number - a.number || (b.at.queued ?? 0) - (a.at.queued ?? 0));
  return { shown, more: Math.max(0, live.length - shown.length) };
}

function row(track: Track, columns: readonly Column[], activityWidth: number): Cell[] {
  const cells = columns.flatMap(({ width, align, cells }): Cell[] => {
    const own = cells(track);
    const padding = { text: " ".repeat(Math.max(0, width - lengthOf(own))) };
    return align === "right" ? [padding, ...own, { text: GAP }] : [...own, padding, { text: GAP }];
  });
  if (activityWidth >= LEAST_ACTIVITY) cells.push(activity(track, activityWidth));
  if (track.at.stopped === undefined || faultOf(track) !== undefined) return cells;
  // Ended work items are dimmed.
  return cells.map(({ text, style }) => ({ text, style: style === "green" || style === "cyan" ? style : "dim" }));
}

/** One mark for each step: done, in progress, or pending. The last one is a half moon while the session sleeps. */
function marks(track: Track): Cell[] {
  const steps = stepsOf(track.mode);
  const last = steps.findLastIndex((step) => track.at[step] !== undefined);
  const bad = faultOf(track) !== undefined;
  const ended = track.at.stopped !== undefined;
  return steps.map((step, index): Cell => {
    if (bad && index === last) return { text: "✗", style: "red" };
    if (track.asleep && step === "stopped") return { text: "◑", style: "cyan" };
    if (track.at[step] !== undefined) return { text: "●", style: index === last && !ended ? "yellow" : "green" };
    // A watch may lag: an earlier step must have happened once a later one did.
    return index < last ? { text: "●", style: "green" } : { text: "○", style: "dim" };
  });
}

/** The random suffix of the Pod's name: the rest is the same for all. */
function shortPod({ pod }: Track): string {
  return pod === undefined ? "" : cut(pod.slice(pod.lastIndexOf("-") + 1), 8);
}

function activity(track: Track, width: number): Cell {
  const fault = faultOf(track);
  if (fault !== undefined) return { text: cut(fault, width), style: "red" };
  const tool = track.tools.findLast(({ result }) => result !== undefined);
  const running = track.at.heartbeat !== undefined ? track.tools.find(({ result }) => result === undefined) : undefined;
  if (running) return { text: cut(running.what, width), style: "cyan" };
  if (!tool) return { text: cut(track.prompt, width), style: "dim" };
  return { text: resultLine(tool.what, tool.result ?? "", width), style: tool.failed ? "red" : undefined };
}

/** Command and result in one line. The result is more useful, so the command is cut first. */
function resultLine(what: string, result: string, width: number): string {
  const arrow = " → ";
  const most = Math.floor(width / 2);
  const shownResult = cut(result, Math.max(most, width - arrow.length - what.length));
  return cut(cut(what, width - arrow.length - shownResult.length) + arrow + shownResult, width);
}
