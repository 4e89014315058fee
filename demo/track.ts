import type { Mode } from "./sample.ts";

/** The steps of a session with its own Pod, in order. */
export const STEPS = ["queued", "claimed", "opened", "started", "beat", "stopped"] as const;
export type Step = (typeof STEPS)[number];

/** The steps of a session: an always-on worker's session opens no Pod. */
export function stepsOf(mode: Mode): readonly Step[] {
  return mode === "sessions" ? STEPS : STEPS.filter((step) => step !== "opened" && step !== "started");
}

/** A tool call and its result. */
export interface ToolTrack {
  readonly id: string;
  /** The command of `bash`, or the name and file of another tool. One line. */
  readonly what: string;
  /** One line; undefined while the call runs. */
  result: string | undefined;
  failed: boolean;
}

/** One session, and how far it has come. */
export interface Track {
  /** The name of its Environment. */
  readonly environment: string;
  readonly mode: Mode;
  /** Starts at 1, in order of arrival in its Environment. */
  readonly number: number;
  readonly workId: string;
  readonly sessionId: string;
  readonly prompt: string;
  /** The number of tool calls in its script. */
  readonly plannedTools: number;
  /** When each step was seen, in milliseconds on the simulator's clock. */
  readonly at: Partial<Record<Step, number>>;
  readonly tools: ToolTrack[];
  /** Where it runs: in its own Pod, or in the Pod of the worker that claimed it. */
  pod: string | undefined;
  /** The Pod was deleted. */
  podGone: boolean;
  /** Its own worker ended it, with the sessions token. */
  endedByWorker: boolean;
  /** What went wrong with it. */
  trouble: string | undefined;
}

type TrackStart = Pick<Track, "environment" | "mode" | "number" | "workId" | "sessionId" | "prompt" | "plannedTools">;

export function newTrack(fields: TrackStart): Track {
  return { ...fields, at: {}, tools: [], pod: undefined, podGone: false, endedByWorker: false, trouble: undefined };
}

/** Milliseconds from queued to a step; undefined if either was not seen. */
export function sinceQueued(track: Track, step: Step): number | undefined {
  const { queued, [step]: at } = track.at;
  return queued === undefined || at === undefined ? undefined : Math.max(0, at - queued);
}

/** The latest step. */
export function stepOf(track: Track): Step {
  return STEPS.findLast((step) => track.at[step] !== undefined) ?? "queued";
}

export function answeredTools(track: Track): number {
  return track.tools.filter(({ result }) => result !== undefined).length;
}

/** Whether the session passed every step without trouble. */
export function isServed(track: Track): boolean {
  const { at, plannedTools, endedByWorker, trouble } = track;
  return (
    at.stopped !== undefined &&
    at.beat !== undefined &&
    endedByWorker &&
    answeredTools(track) >= plannedTools &&
    trouble === undefined
  );
}

/** Why an ended session was not served; undefined if it was, or has not ended. */
export function faultOf(track: Track): string | undefined {
  const { at, plannedTools, endedByWorker, trouble } = track;
  if (trouble !== undefined) return trouble;
  if (at.stopped === undefined) return undefined;
  if (at.beat === undefined) return "ended without a first beat";
  const missing = plannedTools - answeredTools(track);
  if (missing > 0) return `ended with ${missing} of ${plannedTools} tool calls unanswered`;
  return endedByWorker ? undefined : "ended by somebody else than its worker";
}

/** Limits memory; views cut longer texts further. */
const MAX_LINE = 200;
/** Blank or control characters: a tool's output must neither break lines nor move the cursor. */
const UNPRINTABLE = /[\s\p{Cc}\p{Cf}\p{Co}\p{Cn}]+/gu;
/** Characters of two columns or none: their width differs between terminals. */
const UNEVEN = /[^\u0020-\u02ff\u0370-\u058f\u2010-\u2027\u2190-\u21ff\u25a0-\u25ff\u2713-\u2718]/gu;

/** Any text as one line of characters that are one column wide each. */
export function oneLine(text: string): string {
  return text
    .slice(0, MAX_LINE * 4)
    .replaceAll(UNPRINTABLE, " ")
    .replaceAll(UNEVEN, "?")
    .trim()
    .slice(0, MAX_LINE);
}
