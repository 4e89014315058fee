/**
 * One session on the time line: which parts of its lane are seen, and where.
 *
 * @typedef {{kind: "waits" | "claimed" | "opened" | "runs", left: number, width: number}} Part in per cent of the lane
 * @typedef {{fromMs: number, toMs: number}} Window
 */

/**
 * The parts of a lane that are within the window, in order. A step that is not known is passed over: the part before it
 * goes on to the next one that is.
 *
 * @param {import("./state.js").Session} session @param {Window} window @returns {Part[]}
 */
export function partsOf(session, { fromMs, toMs }) {
  const { queuedAtMs, claimedAtMs, openedAtMs, beatAtMs, stoppedAtMs, lease, startedAtMs } = session;
  // The operator's own beat takes the lease before anything is opened: what runs is what has started.
  // A node tells whole seconds, and so seems to start containers before they were opened.
  const startMs = startedAtMs === null ? null : Math.max(startedAtMs, openedAtMs ?? startedAtMs);
  const runsAtMs = lease === "Operator" ? startMs : beatAtMs;
  /** @type {[Part["kind"], number | null][]} */
  const steps = [
    ["waits", queuedAtMs],
    ["claimed", claimedAtMs],
    ["opened", openedAtMs ?? startMs],
    ["runs", runsAtMs],
  ];
  const known = steps.filter(
    /** @returns {step is [Part["kind"], number]} */
    (step) => step[1] !== null,
  );
  const endMs = stoppedAtMs ?? toMs;
  const spanMs = toMs - fromMs;
  /** @param {number} ms */
  const clamp = (ms) => Math.min(toMs, Math.max(fromMs, ms));
  return known.flatMap(([kind, startMs], index) => {
    const nextMs = known[index + 1]?.[1] ?? endMs;
    if (nextMs < fromMs || startMs > toMs || nextMs < startMs) return [];
    const left = ((clamp(startMs) - fromMs) / spanMs) * 100;
    return [{ kind, left, width: ((clamp(nextMs) - fromMs) / spanMs) * 100 - left }];
  });
}

/** Where a session's end is, in per cent; null: not in the window. @param {number | null} ms @param {Window} window */
export function placeOf(ms, { fromMs, toMs }) {
  if (ms === null || ms < fromMs || ms > toMs) return null;
  return ((ms - fromMs) / (toMs - fromMs)) * 100;
}
