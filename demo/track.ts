import type { Mode } from "./sample.ts";
import type { Message } from "./sessions.ts";

/** The steps of a session with its own Pod, in order. */
export const STEPS = ["queued", "claimed", "opened", "started", "heartbeat", "stopped"] as const;
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

/** One work item of a session, and how far it has come. */
export interface Track {
  /** The name of its Environment. */
  readonly environment: string;
  readonly mode: Mode;
  /** The session's number: starts at 1, in order of arrival in its Environment. */
  readonly number: number;
  readonly workId: string;
  readonly sessionId: string;
  readonly prompt: string;
  /** The number of tool calls in its script. */
  readonly plannedTools: number;
  /** The session's work item before this one: the session came back. */
  readonly earlier: Track | undefined;
  /** What the last tool call must return if the session is in the same Pod as before. */
  readonly finds: string | undefined;
  /** The message with which the session comes back. */
  readonly next: Message | undefined;
  /** When each step was seen, in milliseconds on the simulator's clock. */
  readonly at: Partial<Record<Step, number>>;
  readonly tools: ToolTrack[];
  /** Where it runs: in its own Pod, or in the Pod of the worker that claimed it. */
  pod: string | undefined;
  /** The session sleeps in its Pod since this work item ended. */
  asleep: boolean;
  /** The Pod was deleted. */
  podGone: boolean;
  /** Its own worker ended it, with the sessions token. */
  endedByWorker: boolean;
  /** What went wrong with it. */
  trouble: string | undefined;
}

type TrackStart = Pick<
  Track,
  "environment" | "mode" | "number" | "workId" | "sessionId" | "prompt" | "plannedTools" | "earlier" | "finds" | "next"
>;

export function newTrack(fields: TrackStart): Track {
  return {
    ...fields,
    ...{ at: {}, tools: [], pod: undefined, asleep: false, podGone: false, endedByWorker: false, trouble: undefined },
  };
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

/** Whether the session came back to the Pod in which it slept. */
export function isWoken({ earlier, pod }: Track): boolean {
  return earlier !== undefined && pod !== undefined && pod === earlier.pod;
}

/** Whether the work item passed every step without trouble. */
export function isServed(track: Track): boolean {
  return track.at.stopped !== undefined && faultOf(track) === undefined;
}

/** Why an ended work item was not served; undefined if it was, or has not ended. */
export function faultOf(track: Track): string | undefined {
  const { at, plannedTools, endedByWorker, trouble, finds, tools } = track;
  if (trouble !== undefined) return trouble;
  if (at.stopped === undefined) return undefined;
  if (at.heartbeat === undefined) return "ended without a first heartbeat";
  const missing = plannedTools - answeredTools(track);
  if (missing > 0) return `ended with ${missing} of ${plannedTools} tool calls unanswered`;
  if (!endedByWorker) return "ended by a client other than its worker";
  if (finds === undefined || !isWoken(track)) return undefined;
  const found = tools.at(-1)?.result;
  return found === finds ? undefined : `did not find its file in its Pod, but found: ${found}`;
}

/** Limits memory; views cut longer texts further. */
const MAX_LINE = 200;
/** Blank or control characters: a tool's output must neither break lines nor move the cursor. */
const UNPRINTABLE = /[\s\p{Cc}\p{Cf}\p{Co}\p{Cn}]+/gu;
/** Characters of two columns or none: their width differs between terminals. */
const UNEVEN = /[^\u0020-\u02ff\u0370-\u0482\u048a-\u058f\u2010-\u2027\u2190-\u21ff\u25a0-\u25ff\u2713-\u2718]/gu;

/** Any text as one line of characters that are one column wide each. */
export function oneLine(text: string): string {
  return text
    .slice(0, MAX_LINE * 4)
    .replaceAll(UNPRINTABLE, " ")
    .replaceAll(UNEVEN, "?")
    .trim()
    .slice(0, MAX_LINE)
    .trimEnd();
}
