import type { PodCounts } from "./board.ts";
import { coloured, cut, elapsed, type Paint, pad, plain, type Style, seconds } from "./text.ts";
import { answeredTools, faultOf, STEPS, sinceQueued, type Track } from "./track.ts";

/** What the demo is doing. */
export type Phase = "serving" | "finishing" | "clearing up" | "ended";

/** Everything that the live display shows. */
export interface Scene {
  readonly phase: Phase;
  readonly elapsedMs: number;
  /** Until no more sessions arrive; undefined when nobody set an end. */
  readonly leftMs: number | undefined;
  /** Right part of the title: what runs here. */
  readonly about: string;
  /** Items that wait, and that were offered and not acknowledged yet. */
  readonly queue: { readonly depth: number; readonly pending: number };
  readonly pods: PodCounts;
  readonly served: number;
  readonly violations: number;
  readonly tracks: readonly Track[];
  readonly notices: readonly string[];
  /** Why the Environment does not serve; undefined while it does. */
  readonly obstacle: string | undefined;
  /** How to look in from elsewhere. */
  readonly hint: string;
}

/** What the terminal can show. */
export interface Screen {
  readonly columns: number;
  readonly rows: number;
  readonly colour: boolean;
}

/** Piece of a line: a text without styles, and its style. */
interface Cell {
  readonly text: string;
  readonly style?: Style | undefined;
}

const PHASES: Readonly<Record<Phase, string>> = {
  serving: "serving sessions",
  finishing: "finishing the last sessions",
  "clearing up": "clearing up",
  ended: "ended",
};

/** Below so many rows there are no blank lines. */
const ROOMY_ROWS = 18;
/** Notices that are shown, the newest. */
const SHOWN_NOTICES = 3;

/** The live display as lines, none wider than the screen and fewer than it has rows. */
export function renderFrame(scene: Scene, screen: Screen): string[] {
  const paint = screen.colour ? coloured : plain;
  const blank = screen.rows >= ROOMY_ROWS ? [""] : [];
  const top = [title(scene, screen, paint), ...blank, ...counts(scene, screen, paint), ...blank];
  const bottom = scene.phase === "ended" ? [] : [...blank, ...foot(scene, screen, paint)];
  // The cursor stands in the row behind the frame.
  const room = screen.rows - 1 - top.length - bottom.length;
  const lines = [...top, ...table(scene.tracks, room, screen, paint), ...bottom];
  return lines.slice(0, Math.max(1, screen.rows - 1));
}

function title(scene: Scene, screen: Screen, paint: Paint): string {
  const left = scene.leftMs !== undefined && scene.phase === "serving" ? `, ${elapsed(scene.leftMs)} left` : "";
  const state = `${elapsed(scene.elapsedMs)}  ${PHASES[scene.phase]}${left}`;
  const cells: Cell[] = [{ text: "Berth demo  ", style: "bold" }, { text: state }];
  const used = lengthOf(cells);
  const gap = screen.columns - used - scene.about.length;
  if (gap >= 2) cells.push({ text: " ".repeat(gap) }, { text: scene.about, style: "dim" });
  return line(cells, screen.columns, paint);
}

/** As many lines as the counts need, the most telling first; on a low screen one. */
function counts(scene: Scene, screen: Screen, paint: Paint): string[] {
  const { queue, pods, served, violations, tracks } = scene;
  const all: [name: string, value: string, style?: Style | undefined][] = [
    ["queue", String(queue.depth + queue.pending)],
    ["warm", String(pods.warm)],
    ["opening", String(pods.opening)],
    ["active", String(pods.active)],
    ["served", `${served} of ${tracks.length}`],
    ["finished Pods", String(pods.finished)],
    ["preparing", String(pods.preparing)],
    ["violations", String(violations), violations > 0 ? "red" : undefined],
  ];
  const lines: Cell[][] = [[]];
  for (const [name, value, style] of all) {
    const cells: Cell[] = [
      { text: `${name} `, style: style ?? "dim" },
      { text: value, style: style ?? "bold" },
    ];
    const last = lines.at(-1) ?? [];
    const gap: Cell[] = last.length > 0 ? [{ text: "   " }] : [];
    if (last.length > 0 && lengthOf([...last, ...gap, ...cells]) > screen.columns) lines.push(cells);
    else last.push(...gap, ...cells);
  }
  const shown = screen.rows >= ROOMY_ROWS ? lines : lines.slice(0, 1);
  return shown.map((cells) => line(cells, screen.columns, paint));
}

function foot(scene: Scene, screen: Screen, paint: Paint): string[] {
  const notices = scene.notices
    .slice(-SHOWN_NOTICES)
    .map((text) => line([{ text, style: "yellow" }], screen.columns, paint));
  if (scene.obstacle !== undefined) {
    notices.push(
      line([{ text: `The Environment does not serve. ${scene.obstacle}`, style: "red" }], screen.columns, paint),
    );
  }
  const end = scene.phase === "serving" ? "Ctrl-C ends it in order" : "Ctrl-C ends it at once";
  const hint = lengthOf([{ text: `${end}; look in with: ${scene.hint}` }]) <= screen.columns;
  const text = hint ? `${end}; look in with: ${scene.hint}` : end;
  return [...notices, line([{ text, style: "dim" }], screen.columns, paint)];
}

interface Column {
  readonly name: string;
  readonly width: number;
  readonly align?: "right";
  /** The lower, the longer it stays as the screen gets narrower. */
  readonly rank: number;
  readonly cells: (track: Track) => Cell[];
}

const timeColumn = (name: string, step: (typeof STEPS)[number], rank: number): Column => ({
  name,
  width: 7,
  align: "right",
  rank,
  cells: (track) => {
    const ms = sinceQueued(track, step);
    return [{ text: ms === undefined ? "" : seconds(ms) }];
  },
});

const TOOLS: Column = {
  name: "tools",
  width: 5,
  align: "right",
  rank: 4,
  cells: (track) => [{ text: track.plannedTools === 0 ? "" : `${answeredTools(track)}/${track.plannedTools}` }],
};

const COLUMNS: readonly Column[] = [
  { name: "#", width: 4, align: "right", rank: 0, cells: ({ number }) => [{ text: String(number) }] },
  {
    name: "pod",
    width: 8,
    rank: 3,
    cells: (track) => [{ text: shortPod(track), style: track.podGone ? "dim" : undefined }],
  },
  { name: "steps", width: STEPS.length, rank: 1, cells: marks },
  timeColumn("claimed", "claimed", 7),
  timeColumn("opened", "opened", 5),
  timeColumn("started", "started", 8),
  timeColumn("beat", "beat", 6),
  TOOLS,
  timeColumn("stopped", "stopped", 2),
];

const GAP = "  ";
/** What a session does is worth showing from so many columns on. */
const LEAST_ACTIVITY = 18;
/** So many come before the least telling columns. */
const GOOD_ACTIVITY = 32;
const LEAST_TELLING_RANK = 7;

function table(tracks: readonly Track[], room: number, screen: Screen, paint: Paint): string[] {
  if (room < 2) return [];
  const columns = columnsFor(screen.columns, tracks);
  const used = columns.reduce((sum, { width }) => sum + width + GAP.length, 0);
  const activityWidth = screen.columns - used;
  const head: Cell[] = columns.flatMap(({ name, width, align }) => [
    { text: pad(name, width, align === "right" ? "right" : "left") + GAP, style: "dim" as const },
  ]);
  const { shown, more } = choose(tracks, room - 1);
  const lines = [line(head, screen.columns, paint)];
  for (const track of shown) lines.push(line(row(track, columns, activityWidth), screen.columns, paint));
  if (more > 0) lines.push(line([{ text: `     and ${more} more`, style: "dim" }], screen.columns, paint));
  return lines;
}

function columnsFor(width: number, tracks: readonly Track[]): Column[] {
  const chosen = new Set<Column>();
  // Workers that are played call no tools.
  const useful = tracks.some(({ plannedTools }) => plannedTools > 0) ? COLUMNS : COLUMNS.filter((it) => it !== TOOLS);
  let used = 0;
  for (const column of useful.toSorted((a, b) => a.rank - b.rank)) {
    const next = used + column.width + GAP.length;
    // What a session does comes before the less telling times.
    const rest = column.rank >= LEAST_TELLING_RANK ? GOOD_ACTIVITY : column.rank > TOOLS.rank ? LEAST_ACTIVITY : 0;
    if (next + rest > width + GAP.length) break;
    chosen.add(column);
    used = next;
  }
  return COLUMNS.filter((column) => chosen.has(column));
}

/** All sessions that live, and of those that ended the latest, in the order of arrival. */
function choose(tracks: readonly Track[], room: number): { shown: Track[]; more: number } {
  const live = tracks.filter(({ at }) => at.stopped === undefined);
  if (live.length > room)
    return { shown: live.slice(0, Math.max(0, room - 1)), more: live.length - Math.max(0, room - 1) };
  const ended = tracks.filter(({ at }) => at.stopped !== undefined);
  const latest = room > live.length ? ended.slice(live.length - room) : [];
  return { shown: [...latest, ...live].sort((a, b) => a.number - b.number), more: 0 };
}

function row(track: Track, columns: readonly Column[], activityWidth: number): Cell[] {
  const cells = columns.flatMap(({ width, align, cells }): Cell[] => {
    const own = cells(track);
    const padding = { text: " ".repeat(Math.max(0, width - lengthOf(own))) };
    return align === "right" ? [padding, ...own, { text: GAP }] : [...own, padding, { text: GAP }];
  });
  if (activityWidth >= LEAST_ACTIVITY) cells.push(activity(track, activityWidth));
  if (track.at.stopped === undefined || faultOf(track) !== undefined) return cells;
  // What is over steps back.
  return cells.map(({ text, style }) => ({ text, style: style === "green" ? style : "dim" }));
}

/** One mark for each step: done, under way, to come. */
function marks(track: Track): Cell[] {
  const last = STEPS.findLastIndex((step) => track.at[step] !== undefined);
  const bad = faultOf(track) !== undefined;
  const ended = track.at.stopped !== undefined;
  return STEPS.map((step, index): Cell => {
    if (bad && index === last) return { text: "✗", style: "red" };
    if (track.at[step] !== undefined) return { text: "●", style: index === last && !ended ? "yellow" : "green" };
    // A watch may be behind: a step that must have been, since a later one was seen.
    return index < last ? { text: "●", style: "green" } : { text: "○", style: "dim" };
  });
}

/** The random end of the Pod's name: the rest is the same for all. */
function shortPod({ pod }: Track): string {
  return pod === undefined ? "" : cut(pod.slice(pod.lastIndexOf("-") + 1), 8);
}

function activity(track: Track, width: number): Cell {
  const fault = faultOf(track);
  if (fault !== undefined) return { text: cut(fault, width), style: "red" };
  const tool = track.tools.findLast(({ result }) => result !== undefined);
  const running = track.at.beat !== undefined ? track.tools.find(({ result }) => result === undefined) : undefined;
  if (running) return { text: cut(running.what, width), style: "cyan" };
  if (!tool) return { text: cut(track.prompt, width), style: "dim" };
  return { text: resultLine(tool.what, tool.result ?? "", width), style: tool.failed ? "red" : undefined };
}

/** Command and result in one line; the result is what one wants to see, so the command is cut first. */
function resultLine(what: string, result: string, width: number): string {
  const arrow = " → ";
  const most = Math.floor(width / 2);
  const shownResult = cut(result, Math.max(most, width - arrow.length - what.length));
  return cut(cut(what, width - arrow.length - shownResult.length) + arrow + shownResult, width);
}

function lengthOf(cells: readonly Cell[]): number {
  return cells.reduce((sum, { text }) => sum + [...text].length, 0);
}

/** Cells as one line that fits. */
function line(cells: readonly Cell[], columns: number, paint: Paint): string {
  let left = columns;
  let result = "";
  for (const { text, style } of cells) {
    const shown = cut(text, left);
    left -= [...shown].length;
    result += paint(shown.trim() === "" ? undefined : style, shown);
    if (left <= 0) break;
  }
  return paint === plain ? result.trimEnd() : result;
}
