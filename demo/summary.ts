import { type Distribution, distribution } from "../simulator/report.ts";
import type { Mode } from "./sample.ts";
import { count, pad, seconds } from "./text.ts";
import { faultOf, isServed, isWoken, type Step, sinceQueued, stepsOf, type Track } from "./track.ts";

/** What is known of one Environment at the end. */
export interface EnvironmentOutcome {
  readonly name: string;
  readonly mode: Mode;
  readonly tracks: readonly Track[];
  /** With always-on workers: the largest number that Berth requested. */
  readonly mostWorkers: number | undefined;
}

/** What is known at the end. */
export interface Outcome {
  readonly environments: readonly EnvironmentOutcome[];
  readonly elapsedMs: number;
  /** Violations of the Work API's protocol, one per line. */
  readonly violations: readonly string[];
  /** What is left over, one per line. */
  readonly leftovers: ReadonlySet<string>;
  /** Whether the demo searched for leftovers. */
  readonly looked: boolean;
  /** Other failures: a process that ended, a timeout. */
  readonly failures: readonly string[];
  /** The operator's requests to the API server by kind (`patch pods`); undefined if they could not be counted. */
  readonly apiRequests: ReadonlyMap<string, number> | undefined;
  /** The operator's requests to the Work API by call. */
  readonly workRequests: ReadonlyMap<string, number> | undefined;
  /** A person ended the demo: unclaimed sessions may stay in the queue. */
  readonly interrupted: boolean;
  /** Where the operator's log was kept; undefined: it was not. */
  readonly log: string | undefined;
}

export interface Figures {
  readonly arrived: number;
  readonly served: number;
  /** Seconds since queued; undefined if no session got that far. */
  readonly waits: readonly { readonly name: string; readonly distribution: Distribution | undefined }[];
}

/** The step that ends a wait. */
const STEP_NAMES: Readonly<Record<Step, string>> = {
  queued: "queued",
  claimed: "acknowledged",
  opened: "Pod opened",
  started: "session started",
  heartbeat: "first heartbeat",
  stopped: "stopped",
};

const SECOND_MS = 1_000;

/** @param mode decides which steps its sessions have */
export function figuresOf(tracks: readonly Track[], mode: Mode): Figures {
  const waitsFor = (step: Step) =>
    tracks.flatMap((track) => {
      const ms = sinceQueued(track, step);
      return ms === undefined ? [] : [ms / SECOND_MS];
    });
  return {
    arrived: tracks.length,
    served: tracks.filter(isServed).length,
    waits: stepsOf(mode)
      .filter((step) => step !== "queued")
      .map((step) => ({ name: STEP_NAMES[step], distribution: distribution(waitsFor(step)) })),
  };
}

/** Everything that is wrong, one per line; empty: nothing is. */
export function problemsOf(outcome: Outcome): string[] {
  const { environments, violations, leftovers, failures } = outcome;
  const problems = [...failures];
  for (const track of allTracks(outcome)) {
    const fault = faultOf(track) ?? unfinished(track, outcome);
    if (fault !== undefined) problems.push(`${track.environment} ${track.number} (${track.workId}): ${fault}`);
  }
  if (!outcome.interrupted && failures.length === 0) {
    const empty = environments.filter(({ tracks }) => tracks.length === 0);
    problems.push(...empty.map(({ name }) => `no session arrived in ${name}`));
  }
  problems.push(...violations.map((text) => `protocol violation: ${text}`));
  problems.push(...[...leftovers].map((text) => `left over: ${text}`));
  return problems;
}

function allTracks({ environments }: Outcome): Track[] {
  return environments.flatMap(({ tracks }) => tracks);
}

function unfinished(track: Track, { interrupted }: Outcome): string | undefined {
  if (track.at.stopped !== undefined) return undefined;
  if (track.at.claimed !== undefined) return "claimed, but its work item did not end";
  return interrupted ? undefined : "never claimed";
}

/** More problems are not listed one by one. */
const SHOWN_PROBLEMS = 20;
/** The number of most frequent request kinds that are named. */
const SHOWN_KINDS = 3;
const NAME_WIDTH = 22;
const FIGURE_WIDTH = 8;

/** The summary as lines without styles. */
export function summaryLines(outcome: Outcome): string[] {
  const tracks = allTracks(outcome);
  const served = tracks.filter(isServed).length;
  const sessions = tracks.filter(({ earlier }) => earlier === undefined).length;
  const problems = problemsOf(outcome);
  const waiting = tracks.filter(({ at }) => at.claimed === undefined && at.stopped === undefined).length;
  const lines = [
    `Served ${served} of ${count(tracks.length, "work item")} of ${count(sessions, "session")}` +
      ` in ${seconds(outcome.elapsedMs)}` +
      `${toolText(tracks)}${waiting > 0 && outcome.interrupted ? `; ${waiting} stayed in the queue` : ""}.`,
    "",
    ...outcome.environments.flatMap((environment) => [...environmentLines(environment), ""]),
    ...requestLines(outcome, served),
    `Protocol violations   ${outcome.violations.length === 0 ? "none" : outcome.violations.length}`,
    `Left over             ${leftoverText(outcome)}`,
  ];
  if (problems.length > 0) {
    const more = problems.length - SHOWN_PROBLEMS;
    lines.push("", "Problems:", ...problems.slice(0, SHOWN_PROBLEMS).map((text) => `  - ${text}`));
    if (more > 0) lines.push(`  - and ${more} more`);
  }
  if (outcome.log !== undefined) lines.push("", `The operator's log is in ${outcome.log}`);
  return lines;
}

function leftoverText({ leftovers, looked }: Outcome): string {
  if (leftovers.size > 0) return String(leftovers.size);
  return looked ? "nothing" : "not checked";
}

function toolText(tracks: readonly Track[]): string {
  const tools = tracks.flatMap((track) => track.tools).filter(({ result }) => result !== undefined);
  const failedToolCalls = tools.filter(({ failed }) => failed).length;
  const toolCalls = tools.length;
  if (toolCalls === 0) return "";
  const failed = failedToolCalls === 0 ? "" : `, ${failedToolCalls} of them failed`;
  return `, with ${count(toolCalls, "tool call")}${failed}`;
}

/** One Environment: how many work items it served and how, and how long they waited. */
function environmentLines({ name, mode, tracks, mostWorkers = 0 }: EnvironmentOutcome): string[] {
  const figures = figuresOf(tracks, mode);
  const how = mode === "sessions" ? "a Pod for each session" : `by at most ${count(mostWorkers, "worker")}`;
  return [
    `${name}: ${figures.served} of ${figures.arrived} served, ${how}`,
    ...wakeLines(tracks),
    ...latencyTable(figures),
  ];
}

/** How many sessions that came back were woken in their own Pod, and how many files they found there. */
function wakeLines(tracks: readonly Track[]): string[] {
  const back = tracks.filter(({ earlier }) => earlier !== undefined);
  if (back.length === 0) return [];
  const looked = back.filter(({ finds }) => finds !== undefined);
  const found = looked.filter((track) => isWoken(track) && isServed(track));
  const files = looked.length === 0 ? "" : `, own files found: ${found.length} of ${looked.length}`;
  return [`  woken in their own Pod: ${back.filter(isWoken).length} of ${back.length}${files}`];
}

function latencyTable({ waits }: Figures): string[] {
  const right = (text: string) => pad(text, FIGURE_WIDTH, "right");
  const head = pad("  from queued to", NAME_WIDTH) + ["p50", "p90", "p99", "max"].map(right).join("");
  const rows = waits.flatMap(({ name, distribution }) => {
    if (!distribution) return [];
    const { p50, p90, p99, max } = distribution;
    return [
      pad(`    ${name}`, NAME_WIDTH) + [p50, p90, p99, max].map((value) => right(seconds(value * SECOND_MS))).join(""),
    ];
  });
  return rows.length === 0 ? ["  No session was claimed."] : [head, ...rows];
}

function requestLines(outcome: Outcome, served: number): string[] {
  const line = (name: string, requests: ReadonlyMap<string, number> | undefined) => {
    const label = pad(name, 22);
    if (!requests) return `${label}not counted`;
    const total = [...requests.values()].reduce((sum, value) => sum + value, 0);
    const most = [...requests].sort((a, b) => b[1] - a[1]).slice(0, SHOWN_KINDS);
    const shares = most.map(([kind, value]) => `${kind} ${value}`).join(", ");
    const each = served > 0 ? `, ${(total / served).toFixed(1)} per work item` : "";
    return `${label}${total}${each}${shares === "" ? "" : ` (${shares})`}`;
  };
  return [
    "The operator's requests, including those while idle:",
    line("  to the API server", outcome.apiRequests),
    line("  to the Work API", outcome.workRequests),
  ];
}
