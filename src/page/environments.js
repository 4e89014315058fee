/** The table of Environments, and the news for screen readers. */
import { healthOf } from "./state.js";

/** @typedef {import("./state.js").Environment} Environment */

/** Maximum number of changes announced in full. For more, only their number is announced. */
const MOST_TOLD = 3;
/** Rows that are shown before the user asks for all. */
const FIRST_ROWS = 10;

export class Environments {
  /**
   * @param {{table: HTMLTableElement, filter: HTMLInputElement, count: HTMLElement, more: HTMLElement}} elements
   * @param {(key: string) => void} onChoose
   */
  constructor({ table, filter, count, more }, onChoose) {
    this.table = table;
    this.head = /** @type {HTMLTableRowElement} */ (table.tHead?.rows[0]);
    this.body = /** @type {HTMLTableSectionElement} */ (table.tBodies[0]);
    this.filter = filter;
    this.count = count;
    this.more = more;
    this.onChoose = onChoose;
    this.showsAll = false;
    /** @type {readonly Environment[]} */
    this.environments = [];
    /** @type {Map<string, HTMLTableRowElement>} */
    this.rows = new Map();
    /** @type {Map<string, string>} */
    this.readyBefore = new Map();
    // In a narrow window the rows are cards, which some browsers do not take for a table.
    for (const [role, elements] of Object.entries({
      table: [table],
      rowgroup: [table.tHead, this.body],
      row: [this.head],
      columnheader: this.head.cells,
    })) {
      for (const element of elements) element?.setAttribute("role", role);
    }
    filter.addEventListener("input", () => this.show(this.environments));
    more.addEventListener("click", () => {
      this.showsAll = true;
      this.show(this.environments);
    });
  }

  /** @param {readonly Environment[]} environments those with problems first */
  show(environments) {
    this.environments = environments;
    const word = this.filter.value.trim().toLowerCase();
    const found = environments.filter((environment) => searchText(environment).includes(word));
    const shown = this.showsAll ? found : found.slice(0, FIRST_ROWS);
    this.showRows(shown);
    this.table.hidden = shown.length === 0;
    this.table.classList.toggle("no-workers", !environments.some(({ mode }) => mode === "Workers"));
    this.count.textContent = word === "" ? "" : `${found.length} of ${environments.length} Environments`;
    this.more.hidden = shown.length === found.length;
    this.more.textContent = `Show all ${found.length} Environments`;
  }

  /** @param {readonly Environment[]} environments */
  showRows(environments) {
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
    row.setAttribute("role", "row");
    const head = document.createElement("th");
    head.scope = "row";
    head.setAttribute("role", "rowheader");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = key;
    button.title = "Show its sessions";
    button.addEventListener("click", () => this.onChoose(key));
    head.append(button);
    row.append(head);
    for (const { textContent, className } of [...this.head.cells].slice(1)) {
      const cell = row.insertCell();
      cell.setAttribute("role", "cell");
      cell.className = className;
      // A narrow window shows no head, but the name of each cell.
      cell.dataset["name"] = textContent ?? "";
    }
    this.rows.set(key, row);
    return row;
  }
}

/** @param {Environment} environment */
function searchText(environment) {
  const { key, mode, wrong } = environment;
  return [key, mode, stateText(environment), ...wrong.map(({ reason }) => reason)].join(" ").toLowerCase();
}

/** Mark and word, so that color is never the only sign. @param {Environment} environment */
function stateText(environment) {
  const { ready, wrong } = environment;
  switch (healthOf(environment)) {
    case "not-ready":
      return `✕ ${ready.reason}`;
    case "degraded":
      return `! ${wrong[0]?.reason}`;
    case "ready":
      return "✓ Ready";
    default:
      return `… ${ready.reason}`;
  }
}

/** @param {HTMLTableRowElement} row @param {Environment} environment */
function fill(row, environment) {
  const { mode, max, queue, sessions, workers } = environment;
  const texts = [
    mode,
    stateText(environment),
    queue ? queue.depth + queue.pending : "–",
    sessions?.warm ?? "",
    sessions ? `${sessions.running} / ${max}` : "",
    sessions?.stopping ?? "",
    sessions ? (sessions.sleeping ?? 0) : "",
    workers ? `${workers.ready} / ${workers.desired}` : "",
    workers?.busy ?? "",
  ];
  row.dataset["health"] = healthOf(environment);
  for (const [index, text] of texts.entries()) {
    const cell = row.cells[index + 1];
    if (!cell || cell.textContent === String(text)) continue;
    cell.textContent = String(text);
    cell.classList.toggle("zero", text === 0);
  }
}
