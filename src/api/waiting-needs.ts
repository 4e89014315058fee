import { type PodTemplate, type PodTemplateContainer, sessionContainer, sessionContainerName } from "./pod-template.ts";
import type { SessionsSpec } from "./sessions-spec.ts";

/** Variables that the kubelet doesn't know when it starts a container that waits for its session. */
const UNKNOWN_VARIABLE = /\$\(ANTHROPIC_(WORK_ID|SESSION_ID|WORK_SECRET|ENVIRONMENT_KEY)\)/;

const FIELDS_WITH_VARIABLES = ["command", "args", "env", "volumeMounts"] as const;

/**
 * Why the session container of these Pods can't wait for its session, with the field and the fix; null: nothing in the
 * spec prevents it. Whether the image has a shell shows only when a Pod starts.
 */
export function keptFromWaiting({ preload, template }: Pick<SessionsSpec, "preload" | "template">): string | null {
  const path = sessionContainerPath(template);
  const session = sessionContainer(template) ?? { name: "" };
  const { command } = session;
  if (!Array.isArray(command) || command.length === 0) {
    return `${path}.command: Berth starts the program by its command; set it to the Entrypoint and Cmd that docker image inspect shows`;
  }
  const early = preload ? undefined : earlyField(session);
  if (early !== undefined) {
    return `${path}.${early}: it would run before the session's program starts; remove it, or set spec.sessions.preload: true`;
  }
  for (const field of ["tty", "stdin"]) {
    if (session[field] === true) return `${path}.${field}: the session arrives on standard input; remove it`;
  }
  const field = FIELDS_WITH_VARIABLES.find((name) => UNKNOWN_VARIABLE.test(JSON.stringify(session[name] ?? null)));
  if (field !== undefined) {
    return `${path}.${field}: a variable such as $(ANTHROPIC_SESSION_ID) is not known when the container starts; read it in the program`;
  }
  const { os, nodeSelector } = template.spec as { os?: { name?: string }; nodeSelector?: Record<string, string> };
  const isWindows = os?.name === "windows" || nodeSelector?.["kubernetes.io/os"] === "windows";
  return isWindows ? "spec.sessions.template.spec: sessions need Linux nodes; use spec.workers for Windows" : null;
}

/** A field that counts from the container's start, while only a shell waits in it. */
function earlyField(session: PodTemplateContainer): string | undefined {
  const probe = ["livenessProbe", "startupProbe"].find((name) => session[name] !== undefined);
  const { postStart } = (session["lifecycle"] ?? {}) as { postStart?: unknown };
  return probe ?? (postStart === undefined ? undefined : "lifecycle.postStart");
}

/** The field of the container in which the session runs. */
export function sessionContainerPath(template: PodTemplate): string {
  const name = sessionContainerName(template);
  const index = template.spec.containers.findIndex((container) => container.name === name);
  return `spec.sessions.template.spec.containers[${Math.max(0, index)}]`;
}
