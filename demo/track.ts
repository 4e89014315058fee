import type { Mode } from "./sample.ts";

/** The steps of a session with a Pod of its own, in their order. */
export const STEPS = ["queued", "claimed", "opened", "started", "beat", "stopped"] as const;
export type Step = (typeof STEPS)[number];

/** The steps of a session: nothing is opened for one that an always-on worker takes. */
export function stepsOf(mode: Mode): readonly Step[] {
  return mode === "sessions" ? STEPS : STEPS.filter((step) => step !== "opened" && step !== "started");
}

/** A call of a tool, and what came of it. */
export interface ToolTrack {
  readonly id: string;
  /** The command of `bash`; the name and the file of others. One line. */
  readonly what: string;
  /** One line; undefined while it runs. */
  result: string | undefined;
  failed: boolean;
}

/** One session, as far as it was seen to come. */
export interface Track {
  /** Name of its Environment. */
  readonly environment: string;
  readonly mode: Mode;
  /** From 1, in the order of arrival in its Environment. */
  readonly number: number;
  readonly workId: string;
  readonly sessionId: string;
  readonly prompt: string;
  /** Calls that its script will make. */
  readonly plannedTools: number;
  /** When each step was seen; milliseconds of the simulator's clock. */
  readonly at: Partial<Record<Step, number>>;
  readonly tools: ToolTrack[];
  /** Where it runs: its own Pod, or that of the worker that took it. */
  pod: string | undefined;
  /** The Pod is gone from the API. */
  podGone: boolean;
  /** Ended by its own worker, with its sessions token. */
  endedByWorker: boolean;
  /** What should not have happened to it, in words. */
  trouble: string | undefined;
}

type TrackStart = Pick<Track, "environment" | "mode" | "number" | "workId" | "sessionId" | "prompt" | "plannedTools">;

export function newTrack(fields: TrackStart): Track {
  return { ...fields, at: {}, tools: [], pod: undefined, podGone: false, endedByWorker: false, trouble: undefined };
}

/** Milliseconds from being queued to a step; undefined while one of the two was not seen. */
export function sinceQueued(track: Track, step: Step): number | undefined {
  const { queued, [step]: at } = track.at;
  return queued === undefined || at === undefined ? undefined : Math.max(0, at - queued);
}

/** The furthest step. */
export function stepOf(track: Track): Step {
  return STEPS.findLast((step) => track.at[step] !== undefined) ?? "queued";
}

export function answeredTools(track: Track): number {
  return track.tools.filter(({ result }) => result !== undefined).length;
}

/** The whole way, to its end, without trouble. */
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

/** Why a session that ended was not served, in words; undefined when it was, or has not ended. */
export function faultOf(track: Track): string | undefined {
  const { at, plannedTools, endedByWorker, trouble } = track;
  if (trouble !== undefined) return trouble;
  if (at.stopped === undefined) return undefined;
  if (at.beat === undefined) return "ended without a first beat";
  const missing = plannedTools - answeredTools(track);
  if (missing > 0) return `ended with ${missing} of ${plannedTools} tool calls unanswered`;
  return endedByWorker ? undefined : "ended by somebody else than its worker";
}

/** Longer texts are cut by whoever shows them; this is for memory. */
const MAX_LINE = 200;
/** Blank or control: a tool's output must neither break lines nor move the cursor. */
const UNPRINTABLE = /[\s\p{Cc}\p{Cf}\p{Co}\p{Cn}]+/gu;
/** Two columns wide, or none: their width differs from terminal to terminal. */
const UNEVEN = /[^\u0020-\u02ff\u0370-\u058f\u2010-\u2027\u2190-\u21ff\u25a0-\u25ff\u2713-\u2718]/gu;

/** A text of any origin as one line of characters that are one column wide each. */
export function oneLine(text: string): string {
  return text
    .slice(0, MAX_LINE * 4)
    .replaceAll(UNPRINTABLE, " ")
    .replaceAll(UNEVEN, "?")
    .trim()
    .slice(0, MAX_LINE);
}
