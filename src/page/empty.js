/** What the page shows while there is nothing to list: why, and what to do. */
import { command, docsLink, element } from "./elements.js";

/** @typedef {import("./state.js").Replica} Replica */

/** Namespace of the operator in docs/install.md. */
const NAMESPACE = "berth-system";

/** @param {Replica} replica @returns {HTMLElement[]} */
export function withoutEnvironments({ served, docsUrl }) {
  if (served.length === 0) {
    return [
      element(
        "p",
        "",
        "Another replica serves the Environments. List the Leases, and open the console of the Pod that holds one:",
      ),
      command(`kubectl -n ${NAMESPACE} get leases`),
      command(`kubectl -n ${NAMESPACE} port-forward pod/POD ${location.port || "8083"}`),
      element("p", "", docsLink(docsUrl, "docs/high-availability.md", "High availability")),
    ];
  }
  return [
    element(
      "p",
      "",
      "Write one, for example like examples/environments/minimal.yaml, and apply it. It appears here within seconds.",
    ),
    command("kubectl apply -f environment.yaml"),
    element("p", "", "If you have created one, check that its namespace is one that the operator serves:"),
    command("kubectl get benv --all-namespaces"),
    element("p", "", docsLink(docsUrl, "docs/quick-start.md", "Quick start")),
  ];
}

/** @param {{hasEnvironments: boolean, hasSessions: boolean}} state @param {() => void} onClear @returns {HTMLElement[]} */
export function withoutSessions({ hasEnvironments, hasSessions }, onClear) {
  if (hasSessions) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Clear the filters";
    button.addEventListener("click", onClear);
    return [element("p", "", "No session matches the filters."), button];
  }
  if (!hasEnvironments) return [element("p", "", "Sessions appear here as soon as an Environment serves its queue.")];
  return [
    element(
      "p",
      "",
      "No sessions yet. Send a message to an agent of one of these Environments, and its session appears here.",
    ),
    element(
      "p",
      "quiet",
      "Sessions that ended before this replica started are not shown. To learn what happened to one:",
    ),
    command("berth explain SESSION"),
  ];
}
