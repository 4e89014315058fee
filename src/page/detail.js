/** The details of one session: its times, why it ended, and commands to learn more. */
import { command, element } from "./elements.js";
import { between, clockTime, hasStopped, shellWord, stateText } from "./text.js";

/** @typedef {import("./state.js").Session} Session */

export class Detail {
  /** @param {HTMLElement} section @param {() => void} onClose */
  constructor(section, onClose) {
    this.section = section;
    this.title = /** @type {HTMLElement} */ (section.querySelector("h3"));
    this.fields = /** @type {HTMLElement} */ (section.querySelector("dl"));
    this.commands = /** @type {HTMLElement} */ (section.querySelector(".commands"));
    this.before = "";
    /** @type {string | null} */
    this.id = null;
    const close = () => {
      this.id = null;
      section.hidden = true;
      onClose();
    };
    section.querySelector("button")?.addEventListener("click", close);
    section.addEventListener("keydown", ({ key }) => {
      if (key === "Escape") close();
    });
  }

  /** @param {Session} session */
  open(session) {
    this.id = session.id;
    this.show(session);
    this.section.focus();
  }

  /** @param {Session | undefined} session undefined: it is no longer known */
  show(session) {
    this.section.hidden = session === undefined;
    if (session === undefined) return;
    const fields = fieldsOf(session);
    const now = JSON.stringify([session.id, fields]);
    // Do not replace text that a person may be selecting.
    if (now === this.before) return;
    this.before = now;
    this.title.textContent = `Pod ${session.pod}`;
    this.fields.replaceChildren(
      ...Object.entries(fields).flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]),
    );
    this.commands.replaceChildren(...commandsOf(session).map(command));
  }
}

/** @param {Session} session @returns {Record<string, string>} */
function fieldsOf(session) {
  const { queuedAtMs: queued, startedAtMs, lease } = session;
  /** @param {number | null} at */
  const step = (at) => (at === null ? "Unknown" : `${clockTime(at)}, after ${between(queued, at)}`);
  const reason = [session.reason, session.message].filter(Boolean).join(": ");
  return {
    Environment: session.environment,
    State: stateText(session),
    ...(reason !== "" && { Reason: reason }),
    Queued: queued === null ? "Unknown" : clockTime(queued),
    Claimed: step(session.claimedAtMs),
    Opened: step(session.openedAtMs),
    // A node reports whole seconds, so a difference would look too precise.
    "Container started": startedAtMs === null ? "Unknown" : `${clockTime(startedAtMs)}, by its node's clock`,
    "First heartbeat": lease === "Operator" ? `${step(session.beatAtMs)}, by Berth` : step(session.beatAtMs),
    Ended: hasStopped(session) ? step(session.stoppedAtMs) : "Not yet",
    "Work item": session.workId,
    Session: session.sessionId,
  };
}

/** @param {Pick<Session, "environment" | "pod" | "sessionId" | "phase" | "failed">} session */
export function commandsOf({ environment, pod, sessionId, phase, failed }) {
  const [namespace] = environment.split("/");
  // The Pod of a session that ended well is deleted after some seconds.
  const hasPod = phase !== "ended" || failed;
  const asked = shellWord(sessionId);
  return [
    ...(hasPod ? [`kubectl -n ${namespace} logs ${pod}`, `kubectl -n ${namespace} describe pod ${pod}`] : []),
    ...(asked === null ? [] : [`berth explain ${asked} -n ${namespace}`]),
  ];
}
