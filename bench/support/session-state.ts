import type { Table } from "../scenario.ts";
import type { LiveItem } from "./live-work.ts";

const NUMBER_BYTES = 8;
/** The lengths that the API server uses. */
const UID_BYTES = 36;
const VERSION_BYTES = 8;

/**
 * Computes how much must be known of a live session to send its heartbeats, to notice its end, and to settle it.
 * Strings count one byte per character, numbers 8 bytes. What all sessions of an Environment share isn't counted.
 */
export function stateNeeded(
  podName: string,
  { workId, sessionId, acknowledgedAt }: LiveItem,
): Table & { bytes: number } {
  // The API writes microseconds.
  const echo = acknowledgedAt.length + 3;
  const parts: [what: string, why: string, bytes: number][] = [
    ["name of Pod and Secret", "to read, patch and delete them", podName.length],
    ["uid of the Pod", "to tell the Pod from another one with the same name", UID_BYTES],
    ["uid of the Secret", "the same", UID_BYTES],
    ["resourceVersion of the Secret", "the precondition of each write", VERSION_BYTES],
    ["resourceVersion of the Pod", "to skip watch events without news", VERSION_BYTES],
    ["work id", "to send heartbeats and stop the item", workId.length],
    ["session id", "Events, and to detect two items of one session", sessionId.length],
    ["acknowledged_at", "to detect that another client acknowledged the item", acknowledgedAt.length],
    ["last heartbeat", "the value that the next heartbeat echoes", echo],
    [
      "TTL, sending of the last heartbeat by two clocks, of the last one without an answer",
      "the lease's end",
      4 * NUMBER_BYTES,
    ],
    ["due time of the next heartbeat", "", NUMBER_BYTES],
    ["start and deadline of the container", "maxDurationSeconds", 2 * NUMBER_BYTES],
    ["state, completed steps", "some flags", NUMBER_BYTES],
  ];
  const bytes = parts.reduce((sum, part) => sum + part[2], 0);
  return {
    bytes,
    title: "State needed for a live session",
    columns: ["what", "what for", "bytes"],
    rows: [...parts, ["all", "", bytes]],
  };
}
