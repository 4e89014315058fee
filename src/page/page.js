/** The console: it listens to the operator's events and shows them. It sends no other request and changes nothing. */
import { Environments } from "./environments.js";
import { Lanes } from "./lanes.js";
import { State } from "./state.js";
import { between, clockTime, hasStopped, stateText } from "./text.js";

/** How often the time line moves without new events. */
const MOVE_EVERY_MS = 1_000;
/** The server sends something every 15 s. After a longer silence the connection is dead. */
const SILENCE_MS = 40_000;
/** Delay before reconnecting after a refused connection. */
const AGAIN_MS = 5_000;
const SECOND_MS = 1_000;

/** @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
/** @param {string} id */
const select = (id) => /** @type {HTMLSelectElement} */ (document.getElementById(id));
const find = /** @type {HTMLInputElement} */ (document.getElementById("find"));

const state = new State();
const lanes = new Lanes(byId("grid"), openDetail);
const environments = new Environments(
  {
    table: /** @type {HTMLTableElement} */ (document.getElementById("environments")),
    wrong: byId("wrong"),
    nothing: byId("nothing-wrong"),
  },
  (key) => {
    select("of").value = key;
    showSessions();
    byId("grid").focus();
  },
);
/** @type {string | null} */
let openId = null;
/** @type {string} */
let optionsBefore = "";

function showAll() {
  const all = [...state.environments.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
  environments.show(all);
  showOptions(all.map(({ key }) => key));
  showReplica();
  showSessions();
  const news = environments.news(all);
  if (news !== "") byId("told").textContent = news;
}

function showSessions() {
  const choice = { environment: select("of").value, which: select("which").value, find: find.value };
  const chosen = state.chosen(choice);
  const toMs = state.nowMs;
  byId("count").textContent = `${chosen.length} of ${state.sessions.size} sessions`;
  lanes.show(chosen, { fromMs: toMs - Number(select("span").value) * SECOND_MS, toMs });
  showDetail();
}

/** @param {string[]} keys */
function showOptions(keys) {
  const text = keys.join();
  if (text === optionsBefore) return;
  optionsBefore = text;
  const before = select("of").value;
  select("of").replaceChildren(new Option("all", ""), ...keys.map((key) => new Option(key, key)));
  select("of").value = keys.includes(before) ? before : "";
}

function showReplica() {
  const { replica } = state;
  if (!replica) return;
  byId("replica").textContent = `${replica.version}, replica ${replica.identity}`;
  const { shards, served } = replica;
  const some = served.length === 0 ? "none" : shards === 1 ? "all" : `those of ${served.length} of ${shards} shards`;
  byId("served").textContent =
    `This replica serves ${some} of the Environments, and shows what it serves itself. Sessions that ended before it began are not here.`;
}

/** @param {import("./state.js").Session} session */
function openDetail(session) {
  openId = session.id;
  showDetail();
  byId("detail").focus();
}

function showDetail() {
  const session = openId === null ? undefined : state.sessions.get(openId);
  const detail = byId("detail");
  detail.hidden = session === undefined;
  if (!session) return;
  const { queuedAtMs: queued } = session;
  /** @param {number | null} at */
  const step = (at) => (at === null ? "not known" : `${clockTime(at)}, after ${between(queued, at)}`);
  const stopped = hasStopped(session) ? step(session.stoppedAtMs) : "not yet";
  const goesOn = session.phase === "sleeping" ? "not known" : "it goes on";
  const rows = {
    Environment: session.environment,
    State: stateText(session),
    Queued: clockTime(queued),
    Claimed: step(session.claimedAtMs),
    Opened: step(session.openedAtMs),
    // A node reports whole seconds, so a difference would look too precise.
    "Container started":
      session.startedAtMs === null ? "not known" : `${clockTime(session.startedAtMs)}, by its node's clock`,
    "First beat": session.lease === "Operator" ? `${step(session.beatAtMs)}, by Berth` : step(session.beatAtMs),
    Stopped: stopped,
    Why: [session.reason, session.message].filter(Boolean).join(": ") || goesOn,
    "Work item": session.workId,
    Session: session.sessionId,
  };
  byId("detail-title").textContent = `Pod ${session.pod}`;
  const list = /** @type {HTMLElement} */ (detail.querySelector("dl"));
  const text = JSON.stringify(rows);
  // Do not replace text that a person may be selecting.
  if (list.dataset["text"] === text) return;
  list.dataset["text"] = text;
  list.replaceChildren(
    ...Object.entries(rows).flatMap(([name, value]) => {
      const term = document.createElement("dt");
      const words = document.createElement("dd");
      term.textContent = name;
      words.textContent = value;
      return [term, words];
    }),
  );
}

/** @param {"waiting" | "live" | "lost"} to @param {string} text */
function connection(to, text) {
  const element = byId("connection");
  if (element.dataset["state"] === to) return;
  const before = element.dataset["state"];
  element.dataset["state"] = to;
  element.textContent = text;
  if (to === "lost" || before === "lost") byId("told").textContent = text;
}

function connect() {
  const events = new EventSource("events");
  let silence = 0;
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(again, SILENCE_MS);
  };
  const again = () => {
    events.close();
    clearTimeout(silence);
    connection("lost", "connection lost: what is shown may be old");
    setTimeout(connect, AGAIN_MS);
  };
  heard();
  events.onmessage = ({ data }) => {
    heard();
    connection("live", "live");
    state.take(JSON.parse(data));
    showAll();
  };
  // Reconnect here, because the browser gives up after an error response.
  events.onerror = again;
}

for (const id of ["of", "which", "span"]) byId(id).addEventListener("change", showSessions);
find.addEventListener("input", showSessions);
byId("choice").addEventListener("submit", (event) => event.preventDefault());
select("as").addEventListener("change", () => {
  byId("grid").classList.toggle("table", select("as").value === "table");
  lanes.redraw();
});
byId("detail").addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  openId = null;
  showDetail();
  byId("grid").focus();
});
// A hidden time line does not need to move.
setInterval(() => {
  if (document.visibilityState === "visible") showSessions();
}, MOVE_EVERY_MS);
connect();
