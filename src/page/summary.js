/** The summary at the top of the page: one sentence, the main figures, and which part of the Environments is shown. */
import { element } from "./elements.js";
import { healthOf } from "./state.js";

/** @typedef {import("./state.js").Environment} Environment */
/** @typedef {import("./state.js").Replica} Replica */
/** @typedef {import("./state.js").Session} Session */
/** @typedef {{value: number, detail?: string, isBad?: boolean}} Figure */

/** The time span of the figure of failed sessions. */
const RECENT_MS = 60 * 60 * 1_000;

export class Summary {
  /** @param {HTMLElement} section */
  constructor(section) {
    this.section = section;
    this.headline = /** @type {HTMLElement} */ (section.querySelector("h2"));
    this.figures = /** @type {HTMLElement} */ (section.querySelector("dl"));
    this.part = /** @type {HTMLElement} */ (section.querySelector("p"));
    this.before = "";
  }

  /**
   * @param {Replica} replica @param {readonly Environment[]} environments @param {Iterable<Session>} sessions
   * @param {number} nowMs
   */
  show({ shards, served }, environments, sessions, nowMs) {
    const figures = environments.length === 0 ? [] : figuresOf(environments, sessions, nowMs);
    const isPart = served.length > 0 && served.length < shards;
    const headline = headlineOf(served, environments);
    const now = JSON.stringify([headline, figures, served]);
    if (now === this.before) return;
    this.before = now;
    this.section.dataset["state"] = headline.state;
    this.headline.textContent = headline.text;
    document.title = `${headline.text} · Berth console`;
    this.part.textContent = isPart
      ? `This replica serves ${served.length} of ${shards} shards, and shows the Environments of these. Other replicas show the others.`
      : "";
    this.figures.replaceChildren(
      ...figures.map(([name, { value, detail = "", isBad = false }]) => {
        const text = element("dd", isBad ? "bad" : "", String(value), " ", element("small", "", detail));
        return element("div", "", element("dt", "", name), text);
      }),
    );
  }
}

/** @param {Replica["served"]} served @param {readonly Environment[]} environments */
function headlineOf(served, environments) {
  if (served.length === 0) return { text: "This replica is on standby", state: "none" };
  if (environments.length === 0) return { text: "No Environments yet", state: "none" };
  const all = environments.map(healthOf);
  const total = `${all.length} Environment${all.length === 1 ? "" : "s"}`;
  const broken = all.filter((health) => health === "not-ready" || health === "degraded").length;
  if (broken > 0) return { text: `${broken} of ${total} ${broken === 1 ? "has" : "have"} a problem`, state: "bad" };
  const unknown = all.filter((health) => health === "unknown").length;
  if (unknown > 0) return { text: `Berth is checking ${unknown} of ${total}`, state: "waiting" };
  const ready = all.filter((health) => health === "ready").length;
  const text =
    ready === all.length ? "All Environments are ready" : `${ready} of ${total} ${ready === 1 ? "is" : "are"} ready`;
  return { text, state: "good" };
}

/**
 * @param {readonly Environment[]} environments @param {Iterable<Session>} sessions @param {number} nowMs
 * @returns {[string, Figure][]}
 */
function figuresOf(environments, sessions, nowMs) {
  /** @param {(environment: Environment) => number | undefined} of */
  const sum = (of) => environments.reduce((total, environment) => total + (of(environment) ?? 0), 0);
  /** @param {Environment["mode"]} wanted */
  const has = (wanted) => environments.some(({ mode }) => mode === wanted);
  const ready = environments.filter(({ ready }) => ready.status === "True").length;
  /** @type {[string, Figure][]} */
  const figures = [
    ["Environments", { value: ready, detail: `of ${environments.length} ready` }],
    ["Queued", { value: sum(({ queue }) => queue?.depth) + sum(({ queue }) => queue?.pending) }],
  ];
  if (has("Sessions")) {
    const max = sum((environment) => (environment.sessions ? environment.max : 0));
    figures.push(
      ["Active", { value: sum(({ sessions }) => sessions?.active), detail: `of ${max}` }],
      ["Warm", { value: sum(({ sessions }) => sessions?.warm) }],
      ["Asleep", { value: sum(({ sessions }) => sessions?.sleeping) }],
      ["Failed", failedOf(sessions, nowMs - RECENT_MS)],
    );
  }
  if (has("Workers")) {
    const detail = `of ${sum(({ workers }) => workers?.desired)} ready`;
    figures.push(["Workers", { value: sum(({ workers }) => workers?.ready), detail }]);
  }
  return figures;
}

/** @param {Iterable<Session>} sessions @param {number} sinceMs @returns {Figure} */
function failedOf(sessions, sinceMs) {
  const ended = [...sessions].filter(({ phase, stoppedAtMs }) => phase === "ended" && (stoppedAtMs ?? 0) >= sinceMs);
  const value = ended.filter(({ failed }) => failed).length;
  return { value, detail: `of ${ended.length}, last hour`, isBad: value > 0 };
}
