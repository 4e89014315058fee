/** Texts for times and states. */

const SECOND_MS = 1_000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;

const CLOCK = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});

const MINUTES = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

const DATE = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

/** @param {number | null} ms epoch milliseconds */
export function clockTime(ms) {
  return ms === null ? "" : CLOCK.format(ms);
}

/** A time on an axis. A long axis leaves out the seconds. @param {number} ms @param {number} spanMs */
export function axisTime(ms, spanMs) {
  return (spanMs < HOUR_MS ? CLOCK : MINUTES).format(ms);
}

/** The time of day, or the date if that is a day or more away. @param {number | null} ms epoch milliseconds */
export function comingTime(ms) {
  return ms !== null && ms - Date.now() >= 24 * HOUR_MS ? DATE.format(ms) : clockTime(ms);
}

/** `0.12 s`, `4 min 03 s`. Never below 0, since clocks of machines differ. @param {number} ms */
export function duration(ms) {
  const positive = Math.max(0, ms);
  if (positive < 10 * SECOND_MS) return `${(positive / SECOND_MS).toFixed(2)} s`;
  if (positive < MINUTE_MS) return `${(positive / SECOND_MS).toFixed(1)} s`;
  if (positive < HOUR_MS) return `${Math.floor(positive / MINUTE_MS)} min ${two((positive % MINUTE_MS) / SECOND_MS)} s`;
  return `${Math.floor(positive / HOUR_MS)} h ${two((positive % HOUR_MS) / MINUTE_MS)} min`;
}

/** @param {number} value */
const two = (value) => String(Math.floor(value)).padStart(2, "0");

/** @param {number | null} from @param {number | null} to */
export function between(from, to) {
  return from === null || to === null ? "" : duration(to - from);
}

/**
 * Mark and word of a session's state, so that color is never the only sign. @param {import("./state.js").Session}
 * session
 */
export function stateText(session) {
  if (session.phase === "sleeping") return `sleeping until ${comingTime(session.sleepsUntilMs ?? null)}`;
  if (session.phase !== "ended") return session.phase;
  return `${endMark(session)} ${session.reason ?? "Unknown"}`;
}

/** Whether its work item has ended, also if the session sleeps. @param {import("./state.js").Session} session */
export function hasStopped({ phase }) {
  return phase === "ended" || phase === "sleeping";
}

/** Each lane is a work item, and a session has several. @param {readonly import("./state.js").Session[]} chosen @param {number} all */
export function countText(chosen, all) {
  const sessions = new Set(chosen.map(({ environment, sessionId }) => `${environment}/${sessionId}`)).size;
  return `${chosen.length} of ${all} work items, ${sessions} session${sessions === 1 ? "" : "s"}`;
}

/** @param {import("./state.js").Session} session */
export function endMark(session) {
  return session.failed ? "✕" : "✓";
}

/** Describes the lane for screen readers. @param {import("./state.js").Session} session */
export function laneText(session) {
  const { queuedAtMs: queued, claimedAtMs, openedAtMs, beatAtMs, stoppedAtMs, phase } = session;
  const asleep = phase === "sleeping" ? [stateText(session)] : [];
  if (queued === null && phase === "sleeping") return asleep.join();
  /** @type {[string, number | null][]} */
  const steps = [
    ["claimed", claimedAtMs],
    ["opened", openedAtMs],
    ["first heartbeat", beatAtMs],
    ["ended", hasStopped(session) ? stoppedAtMs : null],
  ];
  const known = steps.filter(([, at]) => at !== null).map(([word, at]) => `${word} after ${between(queued, at)}`);
  return [`queued ${clockTime(queued)}`, ...known, ...asleep].join(", ");
}

/**
 * An id as one word of a shell command; null: it can't be one. The server at an Environment's address chooses ids.
 *
 * @param {string} id
 */
export function shellWord(id) {
  if (/^[A-Za-z0-9][\w.:-]*$/.test(id)) return id;
  return /^-|\p{Cc}/u.test(id) ? null : `'${id.replaceAll("'", "'\\''")}'`;
}
