import { slotName } from "../../src/pods/turns.ts";
import type { AuditEntry } from "../../testbed/cluster/audit.ts";

/** One session's start. Times are in milliseconds since the epoch. */
export interface Start {
  readonly kind: string;
  readonly namespace: string;
  readonly pod: string;
  /** The turn of the Pod that ran the item. 0: the Pod has no turns. */
  readonly turn: number;
  readonly queuedAt: number;
  readonly offeredAt: number;
  readonly acknowledgedAt: number;
  /** The first line of the session's program. */
  readonly startedAt: number;
  /** The first heartbeat. */
  readonly beatAt: number;
}

export const toStarted = ({ queuedAt, startedAt }: Start) => startedAt - queuedAt;
export const toBeat = ({ queuedAt, beatAt }: Start) => beatAt - queuedAt;

/**
 * The steps of a start in order. Each ends with the answer to its last request, as the server recorded it. `patched`: what
 * the program waits for, the Secret and the Pod, or for a woken Pod only the Secret.
 */
export const STEPS = [
  "offered",
  "journaled",
  "Pod read",
  "acknowledged",
  "patched",
  "program started",
  "first heartbeat",
] as const;

/** The duration of each step since the previous one, in milliseconds. */
export type Steps = Readonly<Record<(typeof STEPS)[number], number>>;

/** The parts of one start that the API server's audit log shows. */
export interface Measured {
  readonly steps: Steps;
  /**
   * From the offer to the answers of these patches, without the time during which the API server worked on a request of
   * this start: what the serving process takes itself, its connections included.
   */
  readonly ownMs: number;
}

/**
 * Finds the steps of a start in the audit log. Undefined if the log lacks one of its requests, as for a cold Pod.
 * @param entries requests in the start's namespace by the user that served it
 */
export function measuredOf(start: Start, entries: readonly AuditEntry[]): Measured | undefined {
  const { queuedAt, offeredAt, acknowledgedAt, startedAt, beatAt } = start;
  const names = { pods: start.pod, secrets: slotName(start.pod, start.turn) };
  const own = entries.filter(({ code }) => code < 300);
  const since = Math.floor(offeredAt);
  const first = (verb: string, resource: keyof typeof names) =>
    own.find((entry) => {
      const isAbout = entry.resource === resource && entry.name === names[resource] && entry.subresource === "";
      return isAbout && entry.verb === verb && entry.receivedAt >= since;
    });
  const [journal, read] = [first("create", "secrets"), first("get", "pods")];
  const secret = first("patch", "secrets");
  // A woken Pod is patched after its line.
  const pod = start.turn > 1 ? secret : first("patch", "pods");
  if (!journal || !read || !secret || !pod) return undefined;
  const patchedAt = Math.max(secret.completedAt, pod.completedAt);
  const times = [
    ...[queuedAt, offeredAt, journal.completedAt, read.completedAt, acknowledgedAt],
    ...[patchedAt, startedAt, beatAt],
  ];
  const steps = Object.fromEntries(STEPS.map((step, at) => [step, (times[at + 1] ?? 0) - (times[at] ?? 0)])) as Steps;
  const busy = covered(
    [journal, read, secret, pod].map(({ receivedAt, completedAt }) => [receivedAt, completedAt] as const),
    [offeredAt, patchedAt],
  );
  return { steps, ownMs: patchedAt - offeredAt - busy };
}

/** Adds to each start what the audit log shows of it. @param userOf who serves the starts of a kind */
export function withMeasured<S extends Start>(
  starts: readonly S[],
  entries: readonly AuditEntry[],
  userOf: (kind: string) => string,
): (S & { readonly measured?: Measured })[] {
  const byNamespace = Map.groupBy(entries, ({ namespace }) => namespace);
  return starts.map((start) => {
    const own = (byNamespace.get(start.namespace) ?? []).filter(({ user }) => user === userOf(start.kind));
    const measured = measuredOf(start, own);
    return measured ? { ...start, measured } : start;
  });
}

type Interval = readonly [from: number, to: number];

/** The length of the part of a window that the intervals cover. */
function covered(intervals: readonly Interval[], [from, to]: Interval): number {
  let reached = from;
  let sum = 0;
  for (const [start, end] of intervals.toSorted(([a], [b]) => a - b)) {
    const begin = Math.max(start, reached);
    const stop = Math.min(end, to);
    if (stop <= begin) continue;
    sum += stop - begin;
    reached = stop;
  }
  return sum;
}

/** Date.parse ignores what is below a millisecond. */
export function millisecondsOf(rfc3339: string): number {
  const [, fraction = ""] = /\.\d{3}(\d+)Z$/.exec(rfc3339) ?? [];
  return Date.parse(rfc3339) + (fraction === "" ? 0 : Number(`0.${fraction}`));
}
