import { type PodTemplate, sessionContainer, sessionContainerName } from "./pod-template.ts";
import type { SessionsSpec } from "./sessions-spec.ts";

/** Variables that the kubelet doesn't know when it starts a container that waits for its session. */
const UNKNOWN_VARIABLE = /\$\(ANTHROPIC_(WORK_ID|SESSION_ID|WORK_SECRET|ENVIRONMENT_KEY)\)/;

const FIELDS_WITH_VARIABLES = ["command", "args", "env", "volumeMounts"] as const;

const PRELOAD = "or set spec.sessions.preload: true";

/**
 * Why the session container of these Pods can't wait for its session, with the field and the fix; null: nothing in the
 * spec prevents it. Whether the image has a shell shows only when a Pod starts.
 */
export function keptFromWaiting({ preload, template }: Pick<SessionsSpec, "preload" | "template">): string | null {
  return (preload ? null : keptFromShell(template)) ?? keptFromInput(template);
}

/** Why no shell can wait in the container. Programs that are preloaded wait themselves. */
function keptFromShell(template: PodTemplate): string | null {
  const path = sessionContainerPath(template);
  const session = sessionContainer(template) ?? { name: "" };
  const { command } = session;
  if (!Array.isArray(command) || command.length === 0) {
    return `${path}.command: Berth starts the program by its command; set it to the Entrypoint and Cmd that docker image inspect shows`;
  }
  for (const probe of ["livenessProbe", "startupProbe"]) {
    if (session[probe] !== undefined) {
      return `${path}.${probe}: would run while the container waits for its session; remove it, ${PRELOAD}`;
    }
  }
  const { postStart } = (session["lifecycle"] ?? {}) as { postStart?: unknown };
  if (postStart === undefined) return null;
  return `${path}.lifecycle.postStart: would run before the session is known; remove it, ${PRELOAD}`;
}

/** Why the container can't be given its session on standard input. */
function keptFromInput(template: PodTemplate): string | null {
  const path = sessionContainerPath(template);
  const session = sessionContainer(template) ?? { name: "" };
  for (const field of ["tty", "stdin"]) {
    if (session[field] === true) return `${path}.${field}: the session arrives on standard input; remove it`;
  }
  const field = FIELDS_WITH_VARIABLES.find((name) => UNKNOWN_VARIABLE.test(JSON.stringify(session[name] ?? null)));
  if (field !== undefined) {
    return `${path}.${field}: a variable such as $(ANTHROPIC_SESSION_ID) is not known when the container starts; read it in the program`;
  }
  const { os, nodeSelector } = template.spec as { os?: { name?: string }; nodeSelector?: Record<string, string> };
  const windows =
    os?.name === "windows" ? "os" : nodeSelector?.["kubernetes.io/os"] === "windows" ? "nodeSelector" : null;
  return windows && `spec.sessions.template.spec.${windows}: sessions need Linux; use spec.workers for Windows`;
}

/** The field of the container in which the session runs. */
export function sessionContainerPath(template: PodTemplate): string {
  const name = sessionContainerName(template);
  const index = template.spec.containers.findIndex((container) => container.name === name);
  return `spec.sessions.template.spec.containers[${Math.max(0, index)}]`;
}
