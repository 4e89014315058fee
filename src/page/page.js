/** The console: it listens to the operator's events and shows them. It sends no other request and changes nothing. */
import { Detail } from "./detail.js";
import { docsLink } from "./elements.js";
import { withoutEnvironments, withoutSessions } from "./empty.js";
import { Environments } from "./environments.js";
import { Lanes } from "./lanes.js";
import { Problems } from "./problems.js";
import { inOrder, State } from "./state.js";
import { Summary } from "./summary.js";
import { countText } from "./text.js";

/** How often the timeline moves without new events. */
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
/** @param {string} id */
const input = (id) => /** @type {HTMLInputElement} */ (document.getElementById(id));

const state = new State();
const summary = new Summary(byId("summary"));
const problems = new Problems({ section: byId("problems"), warnings: byId("warnings") });
const detail = new Detail(byId("detail"), () => byId("grid").focus());
const lanes = new Lanes(byId("grid"), (session) => detail.open(session));
const environments = new Environments(
  {
    table: /** @type {HTMLTableElement} */ (document.getElementById("environments")),
    filter: input("filter"),
    count: byId("environment-count"),
    more: byId("more"),
  },
  (key) => {
    select("of").value = key;
    showSessions();
    byId("sessions").scrollIntoView();
    byId("grid").focus();
  },
);
let optionsBefore = "";

function showAll() {
  const { replica } = state;
  if (!replica) return;
  const all = inOrder(state.environments.values());
  byId("replica").textContent = `${replica.version}, replica ${replica.identity}`;
  if (replica.docsUrl !== "") showOnce(byId("docs"), "docs", () => [docsLink(replica.docsUrl, "README.md", "Docs")]);
  summary.show(replica, all, state.sessions.values(), state.nowMs);
  problems.show(all, replica.docsUrl);
  environments.show(all);
  byId("filter-label").hidden = all.length < 2;
  const isStandby = replica.served.length === 0;
  const kind = all.length > 0 ? "" : isStandby ? "standby" : "none";
  showOnce(byId("no-environments"), kind, () => withoutEnvironments(replica));
  showOptions(all.map(({ key }) => key).sort());
  showSessions();
  const news = environments.news(all);
  if (news !== "") byId("told").textContent = news;
}

function showSessions() {
  const choice = { environment: select("of").value, which: select("which").value, find: input("find").value };
  const chosen = state.chosen(choice);
  const toMs = state.nowMs;
  byId("count").textContent = countText(chosen, state.sessions.size);
  const [hasEnvironments, hasSessions] = [state.environments.size > 0, state.sessions.size > 0];
  byId("choice").hidden = !hasSessions;
  byId("listed").hidden = chosen.length === 0;
  const kind = chosen.length > 0 || !state.replica ? "" : `${hasEnvironments} ${hasSessions}`;
  showOnce(byId("no-sessions"), kind, () => withoutSessions({ hasEnvironments, hasSessions }, clearFilters));
  lanes.show(chosen, { fromMs: toMs - Number(select("span").value) * SECOND_MS, toMs });
  detail.show(detail.id === null ? undefined : state.sessions.get(detail.id));
}

/**
 * Fills an element when the kind of its content changes. Otherwise a user could not select its text.
 *
 * @param {HTMLElement} place @param {string} kind empty: the element is hidden @param {() => HTMLElement[]} contentOf
 */
function showOnce(place, kind, contentOf) {
  place.hidden = kind === "";
  if (place.dataset["kind"] === kind) return;
  place.dataset["kind"] = kind;
  place.replaceChildren(...(kind === "" ? [] : contentOf()));
}

function clearFilters() {
  select("of").value = "";
  select("which").value = "all";
  input("find").value = "";
  showSessions();
  byId("grid").focus();
}

/** @param {string[]} keys */
function showOptions(keys) {
  const text = keys.join();
  if (text === optionsBefore) return;
  optionsBefore = text;
  const before = select("of").value;
  select("of").replaceChildren(new Option("All", ""), ...keys.map((key) => new Option(key, key)));
  select("of").value = keys.includes(before) ? before : "";
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
    connection("lost", "connection lost, so this may be outdated. If you use kubectl port-forward, start it again");
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
input("find").addEventListener("input", showSessions);
byId("choice").addEventListener("submit", (event) => event.preventDefault());
select("as").addEventListener("change", () => {
  byId("grid").classList.toggle("table", select("as").value === "table");
  lanes.redraw();
});
// A hidden timeline does not need to move.
setInterval(() => {
  if (document.visibilityState === "visible") showSessions();
}, MOVE_EVERY_MS);
connect();
