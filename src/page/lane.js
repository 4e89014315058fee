/**
 * The visible parts of one session's lane on the time line, and their positions.
 *
 * @typedef {{kind: "waits" | "claimed" | "opened" | "runs" | "sleeps", left: number, width: number}} Part in percent of the lane
 * @typedef {{fromMs: number, toMs: number}} Window
 */

/**
 * Returns the parts of a lane within the window, in order. The part before an unknown step extends to the next known
 * step.
 *
 * @param {import("./state.js").Session} session @param {Window} window @returns {Part[]}
 */
export function partsOf(session, { fromMs, toMs }) {
  const { queuedAtMs, claimedAtMs, openedAtMs, beatAtMs, stoppedAtMs, lease, startedAtMs, phase } = session;
  // Under lease: Operator the operator's heartbeat precedes the opening of the Pod, so the container start counts. A
  // node reports whole seconds, so a container may seem to start before its Pod was opened.
  const startMs = startedAtMs === null ? null : Math.max(startedAtMs, openedAtMs ?? startedAtMs);
  const runsAtMs = lease === "Operator" ? startMs : beatAtMs;
  /** @type {[Part["kind"], number | null][]} */
  const steps = [
    ["waits", queuedAtMs],
    ["claimed", claimedAtMs],
    ["opened", openedAtMs ?? startMs],
    ["runs", runsAtMs],
    ["sleeps", phase === "sleeping" ? stoppedAtMs : null],
  ];
  const known = steps.filter(
    /** @returns {step is [Part["kind"], number]} */
    (step) => step[1] !== null,
  );
  const endMs = phase === "sleeping" ? toMs : (stoppedAtMs ?? toMs);
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

/** Position of a session's end in percent; null outside the window. @param {number | null} ms @param {Window} window */
export function placeOf(ms, { fromMs, toMs }) {
  if (ms === null || ms < fromMs || ms > toMs) return null;
  return ((ms - fromMs) / (toMs - fromMs)) * 100;
}
