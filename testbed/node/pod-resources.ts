import type { Container, Pod } from "../../src/kube/objects.ts";
import { sumQuantities } from "./quantity.ts";

type Quantities = Record<string, string>;
interface Resources {
  limits?: Quantities;
  requests?: Quantities;
}

/** What kubelet reads back from the cgroup of a Pod without a memory limit: the largest page-aligned number. */
const NO_MEMORY_LIMIT = "9007199254740988Ki";

function resourcesOf(container: Container): Resources {
  const { limits, requests } = (container["resources"] ?? {}) as Resources;
  return { ...(limits ? { limits } : {}), ...(requests ? { requests } : {}) };
}

/** `resources` and `allocatedResources` of the status of a container that has been made. */
export function containerResources(container: Container): { resources: Resources; allocatedResources?: Quantities } {
  const resources = resourcesOf(container);
  return resources.requests ? { resources, allocatedResources: resources.requests } : { resources };
}

/**
 * `resources` and `allocatedResources` of a Pod's status.
 * @param cgroupRead whether kubelet has read the Pod's cgroup back: it then reports a limit also where there is none.
 */
export function podResources(pod: Pod, cgroupRead: boolean): { resources: Resources; allocatedResources?: Quantities } {
  const all = pod.spec.containers.map(resourcesOf);
  const requests = sumOver(all.map((resources) => resources.requests));
  const limits = all.every((resources) => resources.limits) ? sumOver(all.map((resources) => resources.limits)) : {};
  const enforced = onlyEnforced(limits);
  if (cgroupRead && enforced["memory"] === undefined) enforced["memory"] = NO_MEMORY_LIMIT;
  const requested = onlyEnforced(requests);
  return {
    resources: {
      ...(Object.keys(enforced).length > 0 ? { limits: enforced } : {}),
      ...(Object.keys(requested).length > 0 ? { requests: requested } : {}),
    },
    ...(Object.keys(requests).length > 0 ? { allocatedResources: requests } : {}),
  };
}

/** The quality of service class (pkg/apis/core/v1/helper/qos). */
export function qosClass(pod: Pod): "BestEffort" | "Burstable" | "Guaranteed" {
  const all = [...pod.spec.containers, ...(pod.spec.initContainers ?? [])].map(resourcesOf);
  const enforced = all.map(({ limits = {}, requests = {} }) => ({
    limits: onlyEnforced(limits),
    requests: onlyEnforced(requests),
  }));
  if (enforced.every(({ limits, requests }) => Object.keys({ ...limits, ...requests }).length === 0)) {
    return "BestEffort";
  }
  const guaranteed = enforced.every(({ limits, requests }) =>
    ["cpu", "memory"].every((name) => limits[name] !== undefined && (requests[name] ?? limits[name]) === limits[name]),
  );
  return guaranteed ? "Guaranteed" : "Burstable";
}

/** Only these two are enforced by the Pod's cgroup; ephemeral storage is measured, not enforced. */
function onlyEnforced(quantities: Quantities): Quantities {
  return Object.fromEntries(Object.entries(quantities).filter(([name]) => name === "cpu" || name === "memory"));
}

function sumOver(all: readonly (Quantities | undefined)[]): Quantities {
  const names = new Set(all.flatMap((quantities) => Object.keys(quantities ?? {})));
  return Object.fromEntries(
    [...names].map((name) => [
      name,
      sumQuantities(
        name,
        all.flatMap((quantities) => quantities?.[name] ?? []),
      ),
    ]),
  );
}
