/** The list of current problems, and that of recent warnings. */
import { command, docsLink, element } from "./elements.js";
import { healthOf } from "./state.js";
import { clockTime } from "./text.js";

/** @typedef {import("./state.js").Environment} Environment */

/** Maximum number of problems and of warnings shown; a longer list would be a log. */
const MOST_SHOWN = 20;
/** Maximum number of Environments named for one problem. */
const MOST_NAMED = 3;

/**
 * A problem and the Environments that have it.
 * @typedef {{reason: string, type: string, message: string, keys: string[]}} Problem
 */

/** Each problem once, in the order of the Environments. @param {readonly Environment[]} environments @returns {Problem[]} */
export function problemsOf(environments) {
  /** @type {Map<string, Problem>} */
  const problems = new Map();
  for (const environment of environments) {
    const { key, wrong, ready } = environment;
    const onlyReady = wrong.length === 0 && healthOf(environment) === "not-ready";
    for (const { type, reason, message } of onlyReady ? [{ type: "Ready", ...ready }] : wrong) {
      const id = JSON.stringify([reason, message]);
      const known = problems.get(id) ?? { type, reason, message, keys: [] };
      problems.set(id, { ...known, keys: [...known.keys, key] });
    }
  }
  return [...problems.values()];
}

export class Problems {
  /** @param {{section: HTMLElement, warnings: HTMLElement}} elements */
  constructor({ section, warnings }) {
    this.section = section;
    this.list = /** @type {HTMLElement} */ (section.querySelector("ul"));
    this.unshown = /** @type {HTMLElement} */ (section.querySelector("p"));
    this.warnings = warnings;
    this.before = "";
  }

  /** @param {readonly Environment[]} environments those with problems first @param {string} docsUrl */
  show(environments, docsUrl) {
    const problems = problemsOf(environments);
    const warnings = environments
      .flatMap(({ key, warnings }) => warnings.map((warning) => ({ key, ...warning })))
      .sort((a, b) => b.atMs - a.atMs);
    const now = JSON.stringify([problems, warnings, docsUrl]);
    // Do not replace text that a person may be selecting.
    if (now === this.before) return;
    this.before = now;
    this.section.hidden = problems.length === 0;
    this.list.replaceChildren(...problems.slice(0, MOST_SHOWN).map((problem) => itemOf(problem, docsUrl)));
    const more = problems.length - MOST_SHOWN;
    this.unshown.textContent = more > 0 ? `${more} more problems are not shown.` : "";
    this.showWarnings(warnings);
  }

  /** @param {readonly (Environment["warnings"][number] & {key: string})[]} warnings newest first */
  showWarnings(warnings) {
    const title = /** @type {HTMLElement} */ (this.warnings.querySelector("summary"));
    const list = /** @type {HTMLElement} */ (this.warnings.querySelector("ul"));
    this.warnings.hidden = warnings.length === 0;
    title.textContent = `Recent warnings (${warnings.length})`;
    list.replaceChildren(
      ...warnings.slice(0, MOST_SHOWN).map(({ key, reason, message, atMs, times }) => {
        const when = times > 1 ? `${clockTime(atMs)}, ${times} times` : clockTime(atMs);
        return element("li", "", element("strong", "", `${key}: ${reason}`), ` (${when}) ${message}`);
      }),
    );
  }
}

/** @param {Problem} problem @param {string} docsUrl */
function itemOf({ reason, type, message, keys }, docsUrl) {
  const more = keys.length - MOST_NAMED;
  const names = [...keys.slice(0, MOST_NAMED), ...(more > 0 ? [`${more} more`] : [])].join(", ");
  const [namespace, name] = (keys[0] ?? "").split("/");
  return element(
    "li",
    "",
    element("h3", "", `✕ ${reason} `, element("small", "", type)),
    element("p", "quiet", names),
    element("p", "", message),
    command(`kubectl -n ${namespace} describe benv ${name}`),
    element("p", "", docsLink(docsUrl, `docs/troubleshooting/${reason}.md`, `How to fix ${reason}`)),
  );
}
