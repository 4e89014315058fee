/**
 * The state that the server reported, and the user's selection of it.
 *
 * @typedef {object} Session
 * @property {string} id
 * @property {string} environment
 * @property {string} workId
 * @property {string} sessionId
 * @property {string} pod
 * @property {"Worker" | "Operator"} lease
 * @property {"running" | "stopping" | "sleeping" | "ended"} phase
 * @property {number | null} queuedAtMs
 * @property {number | null} claimedAtMs
 * @property {number | null} openedAtMs
 * @property {number | null} startedAtMs
 * @property {number | null} beatAtMs
 * @property {number | null} stoppedAtMs
 * @property {string | null} reason
 * @property {string} message
 * @property {boolean} failed
 * @property {number | null} [sleepsUntilMs]
 *
 * @typedef {object} Environment
 * @property {string} key
 * @property {"Sessions" | "Workers"} mode
 * @property {number} max
 * @property {{status: string, reason: string, message: string}} ready
 * @property {{type: string, reason: string, message: string}[]} wrong
 * @property {{depth: number, pending: number} | null} queue
 * @property {{warm: number, preparing: number, running: number, stopping: number, sleeping?: number} | null} sessions
 * @property {{desired: number, replicas: number, ready: number, busy: number} | null} workers
 * @property {{reason: string, message: string, atMs: number, times: number}[]} warnings
 *
 * @typedef {{identity: string, version: string, docsUrl: string, shards: number, served: number[]}} Replica
 *
 * @typedef {object} Change
 * @property {number} nowMs
 * @property {boolean} [whole]
 * @property {Replica} [replica]
 * @property {{set: Environment[], gone: string[]}} [environments]
 * @property {{set: Session[], gone: string[]}} [sessions]
 *
 * @typedef {{environment: string, which: string, find: string}} Choice
 */

/** The health of an Environment; the first one needs attention the most. */
const HEALTH = /** @type {const} */ (["not-ready", "degraded", "unknown", "stopped", "ready"]);
/** Reasons why an Environment is not ready because a user wants that. */
const WANTED = new Set(["Paused", "Deleting"]);

/** @param {Environment} environment @returns {typeof HEALTH[number]} */
export function healthOf({ ready, wrong }) {
  if (ready.status === "False") return WANTED.has(ready.reason) ? "stopped" : "not-ready";
  if (wrong.length > 0) return "degraded";
  return ready.status === "True" ? "ready" : "unknown";
}

/** Those with problems first, then by name. @param {Iterable<Environment>} environments @returns {Environment[]} */
export function inOrder(environments) {
  /** @param {Environment} environment */
  const rank = (environment) => HEALTH.indexOf(healthOf(environment));
  return [...environments].sort((a, b) => rank(a) - rank(b) || (a.key < b.key ? -1 : 1));
}

/** The filters of sessions, except "all". @type {Record<string, (session: Session) => boolean>} */
const KINDS = {
  live: ({ phase }) => phase !== "ended" && phase !== "sleeping",
  sleeping: ({ phase }) => phase === "sleeping",
  failed: ({ failed }) => failed,
};

/** Of a session that slept when the operator started, only its sleep is known. @param {Session} session */
const beginOf = ({ queuedAtMs, stoppedAtMs }) => queuedAtMs ?? stoppedAtMs ?? 0;

export class State {
  constructor() {
    /** @type {Replica | null} */
    this.replica = null;
    /** @type {Map<string, Environment>} */
    this.environments = new Map();
    /** @type {Map<string, Session>} */
    this.sessions = new Map();
    /** The server's clock minus ours. */
    this.aheadMs = 0;
  }

  /** The current time of the server's clock. */
  get nowMs() {
    return Date.now() + this.aheadMs;
  }

  /** @param {Change} change */
  take(change) {
    this.aheadMs = change.nowMs - Date.now();
    if (change.whole) {
      this.environments.clear();
      this.sessions.clear();
    }
    if (change.replica) this.replica = change.replica;
    for (const key of change.environments?.gone ?? []) this.environments.delete(key);
    for (const environment of change.environments?.set ?? []) this.environments.set(environment.key, environment);
    for (const id of change.sessions?.gone ?? []) this.sessions.delete(id);
    for (const session of change.sessions?.set ?? []) this.sessions.set(session.id, session);
  }

  /** The chosen sessions, newest first. @param {Choice} choice @returns {Session[]} */
  chosen({ environment, which, find }) {
    const word = find.trim().toLowerCase();
    return [...this.sessions.values()]
      .filter((session) => environment === "" || session.environment === environment)
      .filter((session) => (KINDS[which] ?? (() => true))(session))
      .filter(
        ({ pod, workId, sessionId }) => word === "" || `${pod} ${workId} ${sessionId}`.toLowerCase().includes(word),
      )
      .sort((a, b) => beginOf(b) - beginOf(a) || (a.id < b.id ? -1 : 1));
  }
}
