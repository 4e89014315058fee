import { isRecord } from "../core/json.ts";
import type { PodTemplate } from "./pod-template.ts";

/**
 * What Pods of either mode get where their template is silent. With it a template that names an image alone is taken by a
 * namespace that enforces Pod Security `restricted`. Field by field: what the template says wins, and what says the
 * opposite of a default (a user id of 0, a privileged container) takes that default away.
 *
 * No user id is among them: files of an image belong to the user that it was built for, and OpenShift gives each
 * namespace ids of its own and refuses all others. kubelet refuses an image that names no user, or root, or a user by
 * name alone, and says so.
 */
const POD_DEFAULTS = {
  automountServiceAccountToken: false,
  enableServiceLinks: false,
} as const;

/** A stock worker's teardown can take 90 s (tool drain, memory sync, flush: 30 s each). */
const DEFAULT_GRACE_SECONDS = 120;

/**
 * For the container that a session or a worker runs in, where the template names the resource neither in requests nor
 * in limits. A stock worker waits for the model most of the time and takes about 100 MiB by itself: the rest is for what
 * its tools run. No limit of CPU, which would slow tools down on an idle node; no amount of disk, which nodes without
 * local storage isolation do not offer: Pods that ask for it would never be scheduled there.
 */
export const DEFAULT_RESOURCES = {
  requests: { cpu: "100m", memory: "256Mi" },
  limits: { memory: "2Gi" },
} as const;

const RESTRICTED_CAPABILITIES = { drop: ["ALL"] };
const RESTRICTED_SECCOMP = { type: "RuntimeDefault" };

/** The one capability that the API server refuses beside `allowPrivilegeEscalation: false`, in this spelling alone. */
const ESCALATING_CAPABILITY = "CAP_SYS_ADMIN";

type Fields = Record<string, unknown>;
type TemplateSpec = PodTemplate["spec"];
type NamedContainer = { readonly name: string; readonly [field: string]: unknown };

/**
 * The template with all that it is silent about, `main` being the container that the session or the worker runs in.
 * Changes nothing of its input.
 */
export function withSafeDefaults<T extends Pick<PodTemplate, "spec">>(template: T, main: string): T {
  const { spec } = template;
  const measured = <C extends NamedContainer>(container: C) =>
    container.name === main ? withResources(container, spec) : container;
  return {
    ...template,
    spec: {
      ...POD_DEFAULTS,
      terminationGracePeriodSeconds: DEFAULT_GRACE_SECONDS,
      ...withoutNull(spec),
      securityContext: podContext(spec),
      containers: spec.containers.map((container) => restricted(measured(container), spec)),
      ...(spec.initContainers
        ? { initContainers: spec.initContainers.map((container) => restricted(container, spec)) }
        : {}),
    },
  };
}

function podContext(spec: TemplateSpec): Fields {
  const own = fieldsOf(spec["securityContext"]);
  return {
    ...(own["runAsUser"] === 0 ? {} : { runAsNonRoot: true }),
    // The API server refuses it, and all that is set for containers, where a template says Windows.
    ...(isWindows(spec) ? {} : { seccompProfile: RESTRICTED_SECCOMP }),
    ...own,
  };
}

function restricted<C extends NamedContainer>(container: C, spec: TemplateSpec): C {
  const own = fieldsOf(container["securityContext"]);
  const root = isRootByItself(own, fieldsOf(spec["securityContext"])) ? { runAsNonRoot: false } : {};
  const all = isWindows(spec) ? own : { ...root, ...unprivileged(own) };
  return Object.keys(all).length === 0 ? container : { ...container, securityContext: all };
}

/** A privileged container has all capabilities and may escalate: saying otherwise beside it is refused, or a lie. */
function unprivileged(own: Fields): Fields {
  if (own["privileged"] === true) return own;
  const capabilities = fieldsOf(own["capabilities"]);
  const added = capabilities["add"];
  const mayEscalate = Array.isArray(added) && added.includes(ESCALATING_CAPABILITY);
  return {
    ...(mayEscalate ? {} : { allowPrivilegeEscalation: false }),
    ...own,
    capabilities: { ...RESTRICTED_CAPABILITIES, ...capabilities },
  };
}

/** One container that is told to run as root, in a Pod whose template says nothing of it. */
function isRootByItself(own: Fields, pod: Fields): boolean {
  return own["runAsUser"] === 0 && own["runAsNonRoot"] === undefined && pod["runAsNonRoot"] === undefined;
}

/** `resources: {}` says that nothing is asked for: whatever a LimitRange has for such containers applies then. */
function withResources<C extends NamedContainer>(container: C, spec: TemplateSpec): C {
  const own = container["resources"] ?? undefined;
  // Resources of the Pod as a whole bound all of its containers.
  if ((spec["resources"] ?? undefined) !== undefined || (own !== undefined && Object.keys(fieldsOf(own)).length === 0))
    return container;
  const { requests, limits, ...more } = fieldsOf(own);
  const spoken = new Set([...Object.keys(fieldsOf(requests)), ...Object.keys(fieldsOf(limits))]);
  const filled = (kind: Fields, given: unknown) => {
    const missing = Object.entries(kind).filter(([name]) => !spoken.has(name));
    return { ...Object.fromEntries(missing), ...fieldsOf(given) };
  };
  const resources = {
    requests: filled(DEFAULT_RESOURCES.requests, requests),
    limits: filled(DEFAULT_RESOURCES.limits, limits),
    ...more,
  };
  return { ...container, resources };
}

function isWindows(spec: TemplateSpec): boolean {
  return fieldsOf(spec["os"])["name"] === "windows";
}

function fieldsOf(value: unknown): Fields {
  return isRecord(value) ? withoutNull(value) : {};
}

/** A null says nothing, here as to the API server: a template tool's empty value must not take a default away. */
function withoutNull<T extends Fields>(fields: T): T {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null)) as T;
}
