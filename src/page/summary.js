/** The summary at the top of the page: one sentence, the main figures, and which part of the Environments is shown. */
import { element } from "./elements.js";
import { healthOf } from "./state.js";
import { hasStopped } from "./text.js";

/** @typedef {import("./state.js").Environment} Environment */
/** @typedef {import("./state.js").Replica} Replica */
/** @typedef {import("./state.js").Session} Session */
/** @typedef {{value: number, detail?: string, isBad?: boolean}} Figure */

/** The time span of the figure of failed work items. */
const RECENT_MS = 60 * 60 * 1_000;
/** As in the alert BerthSessionsFail: the number and the share of failed work items that are no problem yet. */
const FAILED_OFTEN = 2;
const FAILED_SHARE = 0.2;

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
    const ended = endedSince(sessions, nowMs - RECENT_MS);
    const figures = environments.length === 0 ? [] : figuresOf(environments, ended);
    const isPart = served.length > 0 && served.length < shards;
    const headline = headlineOf(served, environments, ended);
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

/**
 * @param {Replica["served"]} served @param {readonly Environment[]} environments @param {readonly Session[]} ended
 * @returns {{text: string, state: string}}
 */
export function headlineOf(served, environments, ended) {
  if (served.length === 0) return { text: "This replica is on standby", state: "none" };
  if (environments.length === 0) return { text: "No Environments yet", state: "none" };
  const all = environments.map(healthOf);
  const total = `${all.length} Environment${all.length === 1 ? "" : "s"}`;
  const broken = all.filter((health) => health === "not-ready" || health === "degraded").length;
  if (broken > 0) return { text: `${broken} of ${total} ${broken === 1 ? "has" : "have"} a problem`, state: "bad" };
  const failing = environments.filter(({ key }) => areFailing(ended.filter(({ environment }) => environment === key)));
  if (failing.length > 0) return { text: `Work items fail in ${failing.length} of ${total}`, state: "bad" };
  const unknown = all.filter((health) => health === "unknown").length;
  if (unknown > 0) return { text: `Berth is checking ${unknown} of ${total}`, state: "waiting" };
  const ready = all.filter((health) => health === "ready").length;
  const text =
    ready === all.length ? "All Environments are ready" : `${ready} of ${total} ${ready === 1 ? "is" : "are"} ready`;
  return { text, state: "good" };
}

/**
 * @param {readonly Environment[]} environments @param {readonly Session[]} ended
 * @returns {[string, Figure][]}
 */
function figuresOf(environments, ended) {
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
      ["Running", { value: sum(({ sessions }) => sessions?.running), detail: `of ${max}` }],
      ["Warm", { value: sum(({ sessions }) => sessions?.warm) }],
      ["Sleeping", { value: sum(({ sessions }) => sessions?.sleeping) }],
      ["Failed", failedOf(ended)],
    );
  }
  if (has("Workers")) {
    const detail = `of ${sum(({ workers }) => workers?.desired)} ready`;
    figures.push(["Workers", { value: sum(({ workers }) => workers?.ready), detail }]);
  }
  return figures;
}

/** The work items that have ended, also the last ones of sleeping sessions. @param {Iterable<Session>} sessions @param {number} sinceMs */
function endedSince(sessions, sinceMs) {
  return [...sessions].filter((session) => hasStopped(session) && (session.stoppedAtMs ?? 0) >= sinceMs);
}

/** @param {readonly Session[]} ended */
const countFailed = (ended) => ended.filter(({ failed }) => failed).length;

/** @param {readonly Session[]} ended */
function areFailing(ended) {
  const failed = countFailed(ended);
  return failed > FAILED_OFTEN && failed / ended.length > FAILED_SHARE;
}

/** @param {readonly Session[]} ended @returns {Figure} */
function failedOf(ended) {
  const value = countFailed(ended);
  return { value, detail: `of ${ended.length} work items, last hour`, isBad: value > 0 };
}
