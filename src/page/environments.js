/** The table of Environments, their problems, and the news for screen readers. */
import { clockTime } from "./text.js";

/** @typedef {import("./state.js").Environment} Environment */

/** Maximum number of problems shown; a longer list would be a log. */
const MOST_WRONG = 50;
/** Maximum number of changes announced in full. For more, only their number is announced. */
const MOST_TOLD = 3;

export class Environments {
  /**
   * @param {{table: HTMLTableElement, wrong: HTMLElement, nothing: HTMLElement}} elements
   * @param {(key: string) => void} onChoose
   */
  constructor({ table, wrong, nothing }, onChoose) {
    this.body = /** @type {HTMLTableSectionElement} */ (table.tBodies[0]);
    this.wrong = wrong;
    this.nothing = nothing;
    this.onChoose = onChoose;
    /** @type {Map<string, HTMLTableRowElement>} */
    this.rows = new Map();
    /** @type {Map<string, string>} */
    this.readyBefore = new Map();
    this.wrongBefore = "";
  }

  /** @param {readonly Environment[]} environments */
  show(environments) {
    const keys = new Set(environments.map(({ key }) => key));
    for (const [key, row] of this.rows) {
      if (keys.has(key)) continue;
      row.remove();
      this.rows.delete(key);
    }
    for (const [index, environment] of environments.entries()) {
      const row = this.rows.get(environment.key) ?? this.addRow(environment.key);
      if (this.body.rows[index] !== row) this.body.insertBefore(row, this.body.rows[index] ?? null);
      fill(row, environment);
    }
    this.showWrong(environments);
  }

  /** The text that a screen reader announces. @param {readonly Environment[]} environments @returns {string} */
  news(environments) {
    const said = [];
    for (const { key, ready } of environments) {
      const before = this.readyBefore.get(key);
      this.readyBefore.set(key, ready.status);
      if (before === undefined || before === ready.status) continue;
      said.push(ready.status === "True" ? `${key} is ready` : `${key} is not ready: ${ready.reason}`);
    }
    if (said.length > MOST_TOLD) return `${said.length} Environments changed: see the table`;
    return said.join(". ");
  }

  /** @param {string} key */
  addRow(key) {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = key;
    button.title = "Show its sessions";
    button.addEventListener("click", () => this.onChoose(key));
    head.append(button);
    row.append(head);
    for (let index = 0; index < 10; index += 1) {
      const cell = row.insertCell();
      if (index > 1) cell.className = "number";
    }
    this.rows.set(key, row);
    return row;
  }

  /** @param {readonly Environment[]} environments */
  showWrong(environments) {
    const conditions = environments.flatMap(({ key, wrong, ready }) => {
      const all = wrong.length > 0 || ready.status !== "False" ? wrong : [{ type: "Ready", ...ready }];
      return all.map(({ type, reason, message }) => ({ head: `${key}: ${type}, ${reason}`, when: "now", message }));
    });
    const warnings = environments
      .flatMap(({ key, warnings }) => warnings.map((warning) => ({ key, ...warning })))
      .sort((a, b) => b.atMs - a.atMs)
      .map(({ key, reason, message, atMs, times }) => {
        const when = times > 1 ? `${clockTime(atMs)}, ${times} times` : clockTime(atMs);
        return { head: `${key}: ${reason}`, when, message };
      });
    const all = [...conditions, ...warnings].slice(0, MOST_WRONG);
    const text = JSON.stringify(all);
    if (text === this.wrongBefore) return;
    this.wrongBefore = text;
    this.nothing.hidden = all.length > 0;
    this.wrong.replaceChildren(
      ...all.map(({ head, when, message }) => {
        const item = document.createElement("li");
        const title = document.createElement("strong");
        title.textContent = head;
        item.append(title, ` (${when}) ${message}`);
        return item;
      }),
    );
  }
}

/** @param {HTMLTableRowElement} row @param {Environment} environment */
function fill(row, { mode, max, ready, queue, sessions, workers }) {
  const isReady = ready.status === "True";
  const mark = isReady ? "✓" : ready.status === "False" ? "✕" : "…";
  const texts = [
    mode === "Sessions" ? "a Pod per session" : "always-on workers",
    isReady ? `${mark} ready` : `${mark} ${ready.reason}`,
    queue ? queue.depth + queue.pending : "–",
    sessions?.warm ?? "",
    sessions?.opening ?? "",
    sessions ? `${sessions.active} / ${max}` : "",
    sessions?.stopping ?? "",
    sessions ? (sessions.sleeping ?? 0) : "",
    workers ? `${workers.ready} / ${workers.desired}` : "",
    workers?.busy ?? "",
  ];
  row.dataset["ready"] = ready.status;
  for (const [index, text] of texts.entries()) {
    const cell = row.cells[index + 1];
    if (cell && cell.textContent !== String(text)) cell.textContent = String(text);
  }
}
