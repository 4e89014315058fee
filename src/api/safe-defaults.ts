import { isRecord } from "../core/json.ts";
import { type PodTemplate, SESSION_GRACE_SECONDS } from "./pod-template.ts";

/**
 * Defaults for Pods of both modes. With them, a namespace that enforces Pod Security `restricted` accepts a template
 * that names only an image. Each field of the template wins over its default. A field that contradicts another field's
 * default (a user id of 0, a privileged container) removes that default.
 *
 * There is no default user id: files of an image belong to the user that the image was built for, and OpenShift assigns
 * each namespace its own ids and refuses all others. The kubelet refuses an image that names no user, root, or a user
 * by name only, and reports it.
 */
const POD_DEFAULTS = {
  automountServiceAccountToken: false,
  enableServiceLinks: false,
} as const;

/**
 * Resources of the container in which a session or a worker runs, for each resource in neither its requests nor its
 * limits. A stock worker mostly waits for the model and takes about 100 MiB; the rest is for its tools. There is no CPU
 * limit, which would slow tools down on an idle node. There is no disk request, because nodes without local storage
 * isolation cannot schedule it.
 */
export const DEFAULT_RESOURCES = {
  requests: { cpu: "100m", memory: "256Mi" },
  limits: { memory: "2Gi" },
} as const;

const RESTRICTED_CAPABILITIES = { drop: ["ALL"] };
const RESTRICTED_SECCOMP = { type: "RuntimeDefault" };

/** Without it, a program that fails and writes no termination log leaves only its exit code. */
const LAST_LINES = { terminationMessagePolicy: "FallbackToLogsOnError" } as const;

/** The one capability, in this spelling, that the API server refuses beside `allowPrivilegeEscalation: false`. */
const ESCALATING_CAPABILITY = "CAP_SYS_ADMIN";

type Fields = Record<string, unknown>;
type TemplateSpec = PodTemplate["spec"];
type NamedContainer = { readonly name: string; readonly [field: string]: unknown };

/**
 * Returns the template with all missing defaults. `main` names the container in which the session or the worker runs.
 * Does not change its input.
 */
export function withSafeDefaults<T extends Pick<PodTemplate, "spec">>(
  template: T,
  main: string,
  graceSeconds = SESSION_GRACE_SECONDS,
): T {
  const { spec } = template;
  const measured = <C extends NamedContainer>(container: C) =>
    container.name === main ? { ...LAST_LINES, ...withoutNull(withResources(container, spec)) } : container;
  return {
    ...template,
    spec: {
      ...POD_DEFAULTS,
      terminationGracePeriodSeconds: graceSeconds,
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
    // For Windows Pods, the API server refuses this field and all security fields of containers.
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

/** A privileged container has all capabilities and may escalate: these fields would be refused or have no effect. */
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

/** Whether only this container is set to run as root, in a Pod whose template does not set runAsNonRoot. */
function isRootByItself(own: Fields, pod: Fields): boolean {
  return own["runAsUser"] === 0 && own["runAsNonRoot"] === undefined && pod["runAsNonRoot"] === undefined;
}

/** `resources: {}` explicitly requests nothing, so a LimitRange's values for such containers apply. */
function withResources<C extends NamedContainer>(container: C, spec: TemplateSpec): C {
  const own = container["resources"] ?? undefined;
  // Resources of the whole Pod bound all of its containers.
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

/** Resources of which a request may be lower than the limit, and usually is. */
const OVERCOMMITTED = ["cpu", "memory", "ephemeral-storage"];

/** What a Pod reserves while it waits or sleeps because the API server takes a limit without a request as the request. */
export function reservedLimits({ spec }: Pick<PodTemplate, "spec">, field: string): string[] {
  if ((spec["resources"] ?? undefined) !== undefined) return [];
  return spec.containers.flatMap(({ resources }, index) => {
    const { limits, requests } = fieldsOf(resources);
    const [most, asked] = [fieldsOf(limits), fieldsOf(requests)];
    const names = OVERCOMMITTED.filter((name) => Object.hasOwn(most, name) && !Object.hasOwn(asked, name));
    if (names.length === 0) return [];
    const reserved = names.map((name) => `${most[name]} of ${name}`).join(" and ");
    return `${field}.spec.containers[${index}].resources.requests: each waiting or sleeping Pod reserves ${reserved}, because Kubernetes takes a limit without a request as the request; set requests for what an idle Pod needs`;
  });
}

function isWindows(spec: TemplateSpec): boolean {
  return fieldsOf(spec["os"])["name"] === "windows";
}

function fieldsOf(value: unknown): Fields {
  return isRecord(value) ? withoutNull(value) : {};
}

/** A null counts as missing, as for the API server: a template tool's empty value must not remove a default. */
function withoutNull<T extends Fields>(fields: T): T {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null)) as T;
}
