/** Elements that several parts of the page create: text, links to the docs, and commands to copy. */

/** How long a button says that its command was copied. */
const COPIED_MS = 2_000;

/** @param {string} tag @param {string} className @param {(Node | string)[]} children */
export function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className !== "") made.className = className;
  made.append(...children);
  return made;
}

/**
 * A link to a page of the docs, or the page's path if the address of the docs is not known.
 *
 * @param {string} docsUrl @param {string} page such as `docs/console.md` @param {string} text
 */
export function docsLink(docsUrl, page, text) {
  if (docsUrl === "") return element("span", "", `${text}: ${page}`);
  const link = document.createElement("a");
  link.href = `${docsUrl}/${page}`;
  link.target = "_blank";
  link.rel = "noreferrer";
  link.textContent = text;
  return link;
}

/** A command with a button that copies it. @param {string} text */
export function command(text) {
  const code = element("code", "", text);
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.setAttribute("aria-label", `Copy ${text}`);
  button.addEventListener("click", () => void copy(code, button));
  return element("div", "command", code, button);
}

/** @param {HTMLElement} code @param {HTMLButtonElement} button */
async function copy(code, button) {
  try {
    await navigator.clipboard.writeText(code.textContent ?? "");
    button.textContent = "Copied";
    setTimeout(() => {
      button.textContent = "Copy";
    }, COPIED_MS);
  } catch {
    // Without HTTPS, browsers allow this only on localhost. The command is then selected for the user to copy.
    getSelection()?.selectAllChildren(code);
  }
}
