import { type PodTemplate, sessionContainer, sessionContainerName } from "./pod-template.ts";

/** Variables that the kubelet doesn't know when it starts a container that waits for its session. */
const UNKNOWN_VARIABLE = /\$\(ANTHROPIC_(WORK_ID|SESSION_ID|WORK_SECRET|ENVIRONMENT_KEY)\)/;

const FIELDS_WITH_VARIABLES = ["command", "args", "env", "volumeMounts"] as const;

/**
 * Why Pods of a template can't wait in a shell, with the field; null: nothing in the template prevents it. Whether the
 * image has a shell shows only when a Pod starts.
 */
export function keptFromShell(template: PodTemplate): string | null {
  const path = sessionContainerPath(template);
  const session = sessionContainer(template) ?? { name: "" };
  const { command } = session;
  if (!Array.isArray(command) || command.length === 0) {
    return `${path}.command is not set, and Berth does not know the image's entrypoint`;
  }
  for (const probe of ["livenessProbe", "startupProbe"]) {
    if (session[probe] !== undefined) return `${path}.${probe} would run while the container waits for its session`;
  }
  const { postStart } = (session["lifecycle"] ?? {}) as { postStart?: unknown };
  if (postStart !== undefined) return `${path}.lifecycle.postStart would run before the session is known`;
  return keptFromInput(template);
}

/** Why Pods of a template can't be given their session on standard input; null: nothing in the template prevents it. */
export function keptFromInput(template: PodTemplate): string | null {
  const path = sessionContainerPath(template);
  const session = sessionContainer(template) ?? { name: "" };
  for (const field of ["tty", "stdin"]) {
    if (session[field] === true) return `${path}.${field} is true, and the session arrives on standard input`;
  }
  const field = FIELDS_WITH_VARIABLES.find((name) => UNKNOWN_VARIABLE.test(JSON.stringify(session[name] ?? null)));
  if (field !== undefined) {
    return `${path}.${field} refers to a variable such as $(ANTHROPIC_SESSION_ID), which is not known when the container starts`;
  }
  const { os, nodeSelector } = template.spec as { os?: { name?: string }; nodeSelector?: Record<string, string> };
  const isWindows = os?.name === "windows" || nodeSelector?.["kubernetes.io/os"] === "windows";
  return isWindows ? "the Pods run on Windows" : null;
}

/** The field of the container in which the session runs. */
export function sessionContainerPath(template: PodTemplate): string {
  const name = sessionContainerName(template);
  const index = template.spec.containers.findIndex((container) => container.name === name);
  return `spec.sessions.template.spec.containers[${Math.max(0, index)}]`;
}
