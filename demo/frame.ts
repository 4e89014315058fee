import { type Cell, lengthOf, line, type Screen } from "./cells.ts";
import type { Mode } from "./sample.ts";
import type { PodCounts } from "./session-pods.ts";
import { table } from "./table.ts";
import { coloured, elapsed, type Paint, pad, plain } from "./text.ts";
import { isServed, STEPS, type Track } from "./track.ts";
import type { WorkerCounts } from "./worker-pods.ts";

export type { Screen } from "./cells.ts";

/** What the demo is doing. */
export type Phase = "serving" | "finishing" | "cleaning up" | "ended";

/** Everything that the live display shows. */
export interface Scene {
  readonly phase: Phase;
  readonly elapsedMs: number;
  /** Time until no more sessions arrive; undefined if no end is set. */
  readonly leftMs: number | undefined;
  /** The right part of the title: what the demo runs on. */
  readonly about: string;
  readonly environments: readonly EnvironmentScene[];
  readonly violations: number;
  readonly notices: readonly string[];
  /** The address of the console. */
  readonly consoleUrl: string;
  /** A command to inspect the demo from another terminal. */
  readonly hint: string;
}

/** One Environment: what serves it, and its sessions. */
export interface EnvironmentScene {
  readonly name: string;
  readonly mode: Mode;
  /** Items that wait, and items that were offered but not acknowledged yet. */
  readonly queue: { readonly depth: number; readonly pending: number };
  /** Only in `sessions` mode. */
  readonly pods: PodCounts | undefined;
  /** Only in `workers` mode. */
  readonly workers: WorkerCounts | undefined;
  readonly tracks: readonly Track[];
  /** Why the Environment does not serve; undefined while it does. */
  readonly obstacle: string | undefined;
}

const PHASES: Readonly<Record<Phase, string>> = {
  serving: "serving sessions",
  finishing: "finishing the last sessions",
  "cleaning up": "cleaning up",
  ended: "ended",
};

const ABOUT: Readonly<Record<Mode, string>> = { sessions: "a Pod each", workers: "always-on workers" };

/** A screen with fewer rows gets no blank lines. */
const ROOMY_ROWS = 18;
/** The number of latest notices shown. */
const SHOWN_NOTICES = 3;

/** The live display as lines that fit the screen: none is wider, and they leave one row free. */
export function renderFrame(scene: Scene, screen: Screen): string[] {
  const paint = screen.colour ? coloured : plain;
  const blank = screen.rows >= ROOMY_ROWS ? [""] : [];
  const bottom = scene.phase === "ended" ? [] : [...blank, ...foot(scene, screen, paint)];
  // The cursor is in the row below the frame.
  const taken = 1 + bottom.length + scene.environments.length * (1 + blank.length);
  const shares = share(
    scene.environments.map(({ tracks }) => (tracks.length > 0 ? tracks.length + 1 : 0)),
    screen.rows - 1 - taken,
  );
  const nameWidth = Math.max(0, ...scene.environments.map(({ name }) => name.length));
  const blocks = scene.environments.flatMap((environment, index) => [
    ...blank,
    counts(environment, nameWidth, screen, paint),
    ...table(environment.tracks, environment.mode, shares[index] ?? 0, screen, paint),
  ]);
  const top = [title(scene, screen, paint), ...blocks].slice(0, Math.max(1, screen.rows - 1 - bottom.length));
  return [...top, ...bottom].slice(0, Math.max(1, screen.rows - 1));
}

/** Shares rows among several parts: equally, and what one part does not need goes to the others. */
export function share(wanted: readonly number[], rows: number): number[] {
  const parts = wanted.map(() => 0);
  let left = Math.max(0, rows);
  for (const [position, index] of [...wanted.keys()].sort((a, b) => at(wanted, a) - at(wanted, b)).entries()) {
    const part = Math.min(at(wanted, index), Math.floor(left / (wanted.length - position)));
    parts[index] = part;
    left -= part;
  }
  return parts;
}

const at = (values: readonly number[], index: number) => values[index] ?? 0;

function title(scene: Scene, screen: Screen, paint: Paint): string {
  const left = scene.leftMs !== undefined && scene.phase === "serving" ? `, ${elapsed(scene.leftMs)} left` : "";
  const state = `${elapsed(scene.elapsedMs)}  ${PHASES[scene.phase]}${left}`;
  const cells: Cell[] = [{ text: "Berth demo  ", style: "bold" }, { text: state }];
  if (scene.violations > 0) cells.push({ text: `  violations ${scene.violations}`, style: "red" });
  const used = lengthOf(cells);
  const gap = screen.columns - used - scene.about.length;
  if (gap >= 2) cells.push({ text: " ".repeat(gap) }, { text: scene.about, style: "dim" });
  return line(cells, screen.columns, paint);
}

/** A count in an Environment's line. */
interface Count {
  readonly cells: readonly Cell[];
  /** Lower ranks stay longer as the screen gets narrower. */
  readonly rank: number;
}

const COUNT_GAP = "   ";

/** One line: the Environment, its mode, and as many of its counts as fit. */
function counts(environment: EnvironmentScene, nameWidth: number, screen: Screen, paint: Paint): string {
  const { name, mode, tracks } = environment;
  const served = tracks.filter(isServed).length;
  const all: Count[] = [
    { rank: 0, cells: [{ text: pad(name, nameWidth), style: "bold" }] },
    { rank: 6, cells: [{ text: ABOUT[mode], style: "dim" }] },
    count("queue", environment.queue.depth + environment.queue.pending, 1),
    ...(mode === "sessions" ? podCounts(environment.pods) : workerCounts(environment.workers)),
    count("served", `${served}/${tracks.length}`, 2),
  ];
  const chosen = new Set<Count>();
  let used = 0;
  for (const it of all.toSorted((a, b) => a.rank - b.rank)) {
    const next = used + lengthOf(it.cells) + (used > 0 ? COUNT_GAP.length : 0);
    if (used > 0 && next > screen.columns) break;
    chosen.add(it);
    used = next;
  }
  const cells = all
    .filter((it) => chosen.has(it))
    .flatMap(({ cells }, index) => (index === 0 ? cells : [{ text: COUNT_GAP }, ...cells]));
  return line(cells, screen.columns, paint);
}

function podCounts(pods: PodCounts | undefined): Count[] {
  if (!pods) return [];
  return [
    count("warm", pods.warm, 3),
    count("running", pods.running, 4),
    count("sleeping", pods.sleeping, 5),
    count("ended", pods.ended, 8),
    count("preparing", pods.preparing, 9),
  ];
}

function workerCounts(workers: WorkerCounts | undefined): Count[] {
  if (!workers) return [];
  return [count("ready", `${workers.ready}/${workers.desired}`, 3), count("busy", workers.busy, 4)];
}

function count(name: string, value: number | string, rank: number): Count {
  return {
    rank,
    cells: [
      { text: `${name} `, style: "dim" },
      { text: String(value), style: "bold" },
    ],
  };
}

function foot(scene: Scene, screen: Screen, paint: Paint): string[] {
  const notices = scene.notices
    .slice(-SHOWN_NOTICES)
    .map((text) => line([{ text, style: "yellow" }], screen.columns, paint));
  for (const { name, obstacle } of scene.environments) {
    if (obstacle === undefined) continue;
    notices.push(line([{ text: `${name} does not serve. ${obstacle}`, style: "red" }], screen.columns, paint));
  }
  const isRoomy = screen.rows >= ROOMY_ROWS;
  const below = isRoomy ? hints(scene, screen.columns) : hints(scene, screen.columns).slice(0, 1);
  return [
    ...(isRoomy ? legend(screen, paint) : []),
    ...notices,
    ...below.map((text) => line([{ text, style: "dim" }], screen.columns, paint)),
  ];
}

/** What the marks of the steps mean: as much of it as fits in one line. */
function legend(screen: Screen, paint: Paint): string[] {
  const marks: Cell[] = [
    { text: "●", style: "green" },
    { text: " done " },
    { text: "○ due ", style: "dim" },
    { text: "◑", style: "cyan" },
    { text: " sleeps " },
    { text: "✗", style: "red" },
    { text: " failed" },
  ];
  const steps: Cell = { text: `${STEPS.join(" ")}: `, style: "dim" };
  const cells = [[steps, ...marks], marks].find((all) => lengthOf(all) <= screen.columns);
  return cells === undefined ? [] : [line(cells, screen.columns, paint)];
}

/** How to end the demo and where to watch it: in as few lines as possible, without those that don't fit. */
function hints({ phase, consoleUrl, hint }: Scene, columns: number): string[] {
  const end = phase === "serving" ? "Ctrl-C ends it cleanly" : "Ctrl-C ends it at once";
  const lines = [end];
  for (const text of [`watch it at ${consoleUrl}`, `inspect it with: ${hint}`]) {
    const joined = `${lines.at(-1)}; ${text}`;
    if (lengthOf([{ text: joined }]) <= columns) lines[lines.length - 1] = joined;
    else if (lengthOf([{ text }]) <= columns) lines.push(text);
  }
  return lines;
}
