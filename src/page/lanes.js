/** The grid of sessions. It may have thousands of rows, but only visible ones have elements. */
import { partsOf, placeOf } from "./lane.js";
import { axisTime, between, clockTime, endMark, hasStopped, laneText, stateText } from "./text.js";

/** Additional rows above and below the visible ones, so that scrolling shows no gap. */
const SPARE_ROWS = 8;
/** Number of marks on the axis. */
const TICKS = 4;

/** @typedef {import("./state.js").Session} Session */

/**
 * Elements of one row, created once and filled repeatedly.
 * @typedef {object} Row
 * @property {HTMLElement} element
 * @property {Record<string, HTMLElement>} cells
 * @property {Record<string, HTMLElement>} parts
 * @property {HTMLElement} end
 */

export class Lanes {
  /** @param {HTMLElement} grid @param {(session: Session) => void} onOpen */
  constructor(grid, onOpen) {
    this.grid = grid;
    this.room = /** @type {HTMLElement} */ (grid.querySelector(".room"));
    this.body = /** @type {HTMLElement} */ (grid.querySelector(".rows"));
    this.head = /** @type {HTMLElement} */ (grid.querySelector(".head"));
    this.axis = /** @type {HTMLElement} */ (grid.querySelector(".axis"));
    this.onOpen = onOpen;
    /** @type {readonly Session[]} */
    this.sessions = [];
    /** @type {Row[]} */
    this.rows = [];
    /** @type {string | null} */
    this.selected = null;
    this.window = { fromMs: 0, toMs: 1 };
    this.isDue = false;
    grid.addEventListener("scroll", () => this.redraw(), { passive: true });
    grid.addEventListener("keydown", (event) => this.onKey(event));
    grid.addEventListener("click", (event) => this.onClick(event));
    new ResizeObserver(() => this.redraw()).observe(grid);
    for (let index = 0; index <= TICKS; index += 1) {
      const tick = document.createElement("span");
      tick.className = "tick";
      tick.setAttribute("aria-hidden", "true");
      tick.style.left = `${(index / TICKS) * 100}%`;
      this.axis.append(tick);
    }
  }

  /** @param {readonly Session[]} sessions @param {{fromMs: number, toMs: number}} window */
  show(sessions, window) {
    this.sessions = sessions;
    this.window = window;
    this.redraw();
  }

  /** Redraws once before the next frame, however often it is called. */
  redraw() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.draw();
    });
  }

  /** The height of a row, which is larger in a narrow window. The head is as high as a row. */
  get rowPx() {
    return this.head.offsetHeight;
  }

  draw() {
    const { grid, sessions, rowPx } = this;
    // Nothing has a size while the grid is hidden.
    if (rowPx === 0) return;
    this.room.style.height = `${sessions.length * rowPx}px`;
    grid.style.setProperty("--rows", String(sessions.length));
    grid.setAttribute("aria-rowcount", String(sessions.length + 1));
    const inSight = Math.ceil(grid.clientHeight / rowPx);
    const above = Math.floor(grid.scrollTop / rowPx) - SPARE_ROWS;
    const first = Math.max(0, Math.min(above, sessions.length - inSight - 2 * SPARE_ROWS));
    const shown = sessions.slice(first, first + inSight + 2 * SPARE_ROWS);
    this.body.style.transform = `translateY(${first * rowPx}px)`;
    while (this.rows.length < shown.length) this.addRow();
    let active = "";
    for (const [index, row] of this.rows.entries()) {
      const session = shown[index];
      row.element.hidden = session === undefined;
      if (session === undefined) continue;
      this.fill(row, session, first + index);
      if (session.id === this.selected) active = row.element.id;
    }
    if (active === "") grid.removeAttribute("aria-activedescendant");
    else grid.setAttribute("aria-activedescendant", active);
    this.drawAxis();
  }

  drawAxis() {
    const { fromMs, toMs } = this.window;
    const spanMs = toMs - fromMs;
    for (const [index, tick] of [...this.axis.querySelectorAll(".tick")].entries()) {
      setText(tick, axisTime(fromMs + (spanMs * index) / TICKS, spanMs));
    }
  }

  addRow() {
    const element = document.createElement("div");
    element.className = "row";
    element.id = `row-${this.rows.length}`;
    element.setAttribute("role", "row");
    /** @type {Record<string, HTMLElement>} */
    const cells = {};
    const names = ["pod", "environment", "state", "lane", "queued", "opened", "beat", "stopped"];
    for (const [index, name] of names.entries()) {
      const cell = document.createElement("span");
      cell.setAttribute("role", "gridcell");
      cell.setAttribute("aria-colindex", String(index + 1));
      cell.className = name === "lane" ? "as-lane lane" : index > 3 ? "as-text" : name;
      cells[name] = cell;
      element.append(cell);
    }
    /** @type {Record<string, HTMLElement>} */
    const parts = {};
    for (const kind of ["waits", "claimed", "opened", "runs", "sleeps"]) {
      const part = document.createElement("i");
      part.className = `part ${kind}`;
      parts[kind] = part;
      cells["lane"]?.append(part);
    }
    const [start, tail] = [document.createElement("span"), document.createElement("span")];
    start.className = "start";
    cells["start"] = start;
    cells["tail"] = tail;
    cells["pod"]?.append(start, tail);
    const earlier = document.createElement("small");
    earlier.setAttribute("aria-hidden", "true");
    cells["earlier"] = earlier;
    const end = document.createElement("b");
    end.className = "end";
    end.setAttribute("aria-hidden", "true");
    const words = document.createElement("span");
    words.className = "unseen";
    cells["words"] = words;
    cells["lane"]?.append(end, earlier, words);
    this.body.append(element);
    this.rows.push({ element, cells, parts, end });
  }

  /** @param {Row} row @param {Session} session @param {number} index */
  fill({ element, cells, parts, end }, session, index) {
    element.dataset["id"] = session.id;
    element.dataset["phase"] = session.phase;
    element.classList.toggle("failed", session.failed);
    element.setAttribute("aria-rowindex", String(index + 2));
    element.setAttribute("aria-selected", String(session.id === this.selected));
    const { queuedAtMs: queued } = session;
    /** @param {number | null} ms */
    const later = (ms) => (queued === null || ms === null ? "" : `+${between(queued, ms)}`);
    const isEarlier = session.phase === "ended" && (session.stoppedAtMs ?? 0) < this.window.fromMs;
    // The names of an Environment's Pods differ only in their last part, so it is never cut off.
    const tailAt = session.pod.lastIndexOf("-");
    const texts = {
      start: session.pod.slice(0, tailAt),
      tail: session.pod.slice(tailAt),
      earlier: isEarlier ? `ended ${between(session.stoppedAtMs, this.window.toMs)} ago` : "",
      environment: session.environment,
      state: stateText(session),
      words: laneText(session),
      queued: clockTime(queued),
      opened: later(session.openedAtMs),
      beat: later(session.beatAtMs),
      stopped: hasStopped(session) ? later(session.stoppedAtMs) : "",
    };
    for (const [name, text] of Object.entries(texts)) setText(cells[name], text);
    setTitle(cells["pod"], session.pod);
    setTitle(cells["environment"], session.environment);
    const drawn = new Map(partsOf(session, this.window).map((part) => [String(part.kind), part]));
    for (const [kind, element] of Object.entries(parts)) {
      const part = drawn.get(kind);
      element.hidden = part === undefined;
      if (part === undefined) continue;
      element.style.left = `${part.left}%`;
      element.style.width = `${part.width}%`;
    }
    const isEndKnown = hasStopped(session) && session.reason !== null;
    const place = isEndKnown ? placeOf(session.stoppedAtMs, this.window) : null;
    end.hidden = place === null;
    if (place === null) return;
    end.style.left = `${place}%`;
    setText(end, endMark(session));
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.grid.clientHeight / this.rowPx) - 2);
    const at = this.sessions.findIndex(({ id }) => id === this.selected);
    /** @type {Record<string, number>} */
    const moves = {
      ArrowDown: at + 1,
      ArrowUp: Math.max(0, at - 1),
      PageDown: at + page,
      PageUp: at - page,
      Home: 0,
      End: this.sessions.length - 1,
    };
    const to = moves[event.key];
    if (to !== undefined) {
      event.preventDefault();
      this.select(Math.max(0, Math.min(this.sessions.length - 1, to)));
    } else if (event.key === "Enter") {
      const session = this.sessions[at];
      if (session) this.onOpen(session);
    }
  }

  /** @param {MouseEvent} event */
  onClick(event) {
    const target = event.target instanceof Element ? event.target.closest(".row[data-id]") : null;
    const id = target instanceof HTMLElement ? target.dataset["id"] : undefined;
    const index = this.sessions.findIndex((session) => session.id === id);
    const session = this.sessions[index];
    if (session === undefined) return;
    this.select(index);
    this.onOpen(session);
  }

  /** Selects a row and scrolls it into view. @param {number} index */
  select(index) {
    const { grid, sessions, rowPx } = this;
    this.selected = sessions[index]?.id ?? null;
    const top = index * rowPx;
    // The head covers the top of the grid.
    const sight = grid.clientHeight - rowPx;
    if (top < grid.scrollTop) grid.scrollTop = top;
    else if (top + rowPx > grid.scrollTop + sight) grid.scrollTop = top + rowPx - sight;
    // Draw at once: a screen reader looks up the active row now.
    this.draw();
  }
}

/** @param {HTMLElement | undefined} element @param {string} title */
function setTitle(element, title) {
  if (element && element.title !== title) element.title = title;
}

/** Changes an element only if its text differs. @param {Element | undefined} element @param {string} text */
function setText(element, text) {
  if (element && element.firstChild?.nodeValue !== text) element.textContent = text;
}
