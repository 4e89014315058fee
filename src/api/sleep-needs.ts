import { isRecord } from "../core/json.ts";
import { keptFromShell, sessionContainerPath } from "./parking-needs.ts";
import { type PodTemplate, type PodTemplateContainer, sessionContainer } from "./pod-template.ts";
import type { SessionsSpec } from "./sessions-spec.ts";

/** How long a session sleeps with `workspace.type: Pod` if `sleepSeconds` is left out. */
export const DEFAULT_SLEEP_SECONDS = 1_800;

/** How long a session sleeps in its Pod, in seconds; 0: it doesn't. */
export function sleepSecondsOf({ workspace }: SessionsSpec): number {
  return workspace.sleepSeconds ?? (workspace.type === "Pod" ? DEFAULT_SLEEP_SECONDS : 0);
}

/** The most Pods at a time in which a session sleeps. */
export function maxSleepingOf({ maxSleeping, maxConcurrent }: SessionsSpec): number {
  return maxSleeping ?? maxConcurrent;
}

/** Fields that the API server refuses in an ephemeral container. */
const NOT_EPHEMERAL = [
  "ports",
  "livenessProbe",
  "readinessProbe",
  "startupProbe",
  "lifecycle",
  "resizePolicy",
  "restartPolicy",
] as const;

const NOT_EPHEMERAL_IN_MOUNT = ["subPath", "subPathExpr"] as const;

/** Resources that bound all containers of a Pod together. All others belong to the one container that requests them. */
const RESOURCE_OF_POD = /^(cpu|memory|ephemeral-storage|hugepages-.+)$/;

/** With these, programs of a session see the keeper, which runs as the same user. */
const SHARED_PROCESSES = ["shareProcessNamespace", "hostPID"] as const;

const REFUSED = "is set, which Kubernetes does not allow in a container that is added to a running Pod";

/**
 * Why sessions of this spec can't sleep in their Pod, with the field of the cause; null: nothing in the spec prevents
 * it. Whether the cluster allows ephemeral containers is not part of it.
 */
export function keptFromSleep({ parking, template }: SessionsSpec): string | null {
  if (parking === "Key") {
    return "spec.sessions.parking: no session sleeps with Key; use Shell or Program, or remove the field";
  }
  // With Program, a shell starts the programs of all work items but the first.
  return keptFromShell(template) ?? keptFromTurns(template);
}

/** Why a work item can't run in an ephemeral container beside a container that only keeps the Pod. */
function keptFromTurns(template: PodTemplate): string | null {
  const shared = SHARED_PROCESSES.find((name) => template.spec[name] === true);
  if (shared !== undefined) {
    return `spec.sessions.template.spec.${shared} is true, and a session could end the container that keeps its Pod; remove it`;
  }
  const session = sessionContainer(template) ?? { name: "" };
  const path = sessionContainerPath(template);
  const field = NOT_EPHEMERAL.find((name) => isSet(session[name])) ?? mountWithPart(session) ?? ownResource(session);
  if (field !== undefined) return `${path}.${field} ${REFUSED}`;
  const other = template.spec.containers.findIndex(({ name }) => name !== session.name);
  if (other < 0) return null;
  return `spec.sessions.template.spec.containers[${other}] must be a native sidecar; move it to initContainers with restartPolicy: Always`;
}

function mountWithPart(container: PodTemplateContainer): string | undefined {
  const fields = recordsOf(container["volumeMounts"]).flatMap((mount, index) =>
    NOT_EPHEMERAL_IN_MOUNT.filter((name) => isSet(mount[name])).map((name) => `volumeMounts[${index}].${name}`),
  );
  return fields[0];
}

/** A device that only the keeper would get. */
function ownResource(container: PodTemplateContainer): string | undefined {
  const { resources } = container;
  if (!isRecord(resources)) return undefined;
  if (isSet(resources["claims"])) return "resources.claims";
  const fields = ["limits", "requests"].flatMap((kind) => {
    const amounts = isRecord(resources[kind]) ? resources[kind] : {};
    const names = Object.keys(amounts).filter((name) => !RESOURCE_OF_POD.test(name) && isSet(amounts[name]));
    return names.map((name) => `resources.${kind}["${name}"]`);
  });
  return fields[0];
}

/** A null, an empty text and an empty list count as absent, as for the API server. */
function isSet(value: unknown): boolean {
  return value !== undefined && value !== null && value !== "" && !(Array.isArray(value) && value.length === 0);
}

function recordsOf(value: unknown): Record<string, unknown>[] {
  return Array.isArray(value) ? value.map((item: unknown) => (isRecord(item) ? item : {})) : [];
}
