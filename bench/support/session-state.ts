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
    ["uid of the Pod", "another Pod of the same name is not ours", UID_BYTES],
    ["uid of the Secret", "the same", UID_BYTES],
    ["resourceVersion of the Secret", "each write of it carries it", VERSION_BYTES],
    ["resourceVersion of the Pod", "a watch event that is no news", VERSION_BYTES],
    ["work id", "to beat and to stop the item", workId.length],
    ["session id", "Events, and two items of one session", sessionId.length],
    ["acknowledged_at", "acknowledged again: it is somebody else's", acknowledgedAt.length],
    ["last heartbeat", "what the next beat has to echo", echo],
    ["TTL, sending of the last beat by two clocks, of the last without an answer", "the lease's end", 4 * NUMBER_BYTES],
    ["due time of the next beat", "", NUMBER_BYTES],
    ["start and deadline of the container", "maxDurationSeconds", 2 * NUMBER_BYTES],
    ["state, steps that were taken", "some flags", NUMBER_BYTES],
  ];
  const bytes = parts.reduce((sum, part) => sum + part[2], 0);
  return {
    bytes,
    title: "State that is needed of a live session",
    columns: ["what", "what for", "bytes"],
    rows: [...parts, ["all", "", bytes]],
  };
}
