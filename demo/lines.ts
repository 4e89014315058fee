import type { BoardEvent } from "./board.ts";
import { seconds } from "./text.ts";
import { faultOf, isWoken, type Step, sinceQueued, type Track } from "./track.ts";

/** The line for an event when there is no terminal, starting with the seconds since the start; undefined: not shown. */
export function eventLine(event: BoardEvent, startedAt: number): string | undefined {
  const text = textOf(event);
  if (text === undefined) return undefined;
  const time = ((event.at - startedAt) / 1_000).toFixed(1).padStart(7);
  return `${time}s  ${whoseOf(event)}${text}`;
}

/** The Environment, and the session's number in it. */
function whoseOf(event: BoardEvent): string {
  if ("track" in event) return `${event.track.environment} ${event.track.number}: `;
  return event.environment === undefined ? "" : `${event.environment}: `;
}

function textOf(event: BoardEvent): string | undefined {
  switch (event.type) {
    case "step":
      return stepText(event.track, event.step);
    case "tool":
      return `${event.tool.what} -> ${event.tool.failed ? "failed: " : ""}${event.tool.result ?? ""}`;
    case "asleep":
      return `sleeps in Pod ${event.track.pod}`;
    case "pod-gone":
      return `Pod ${event.track.pod} was deleted`;
    case "trouble":
    case "notice":
      return event.text;
  }
}

function stepText(track: Track, step: Step): string | undefined {
  const after = seconds(sinceQueued(track, step) ?? 0);
  switch (step) {
    case "queued":
      return `${track.earlier ? "comes back" : "queued"}: ${track.prompt}`;
    case "claimed":
      return track.mode === "workers" ? `claimed by worker ${track.pod} after ${after}` : `claimed after ${after}`;
    case "opened":
      return `${isWoken(track) ? "woken" : "opened"} in Pod ${track.pod} after ${after}`;
    case "started":
      return `session started after ${after}`;
    case "heartbeat":
      return `first heartbeat after ${after}`;
    case "stopped": {
      const fault = faultOf(track);
      return fault === undefined ? `served, stopped after ${after}` : `NOT served after ${after}: ${fault}`;
    }
  }
}
