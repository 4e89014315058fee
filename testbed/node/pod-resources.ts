import type { Container, Pod } from "../../src/kube/objects.ts";
import { sumQuantities } from "./quantity.ts";

type Quantities = Record<string, string>;
interface Resources {
  limits?: Quantities;
  requests?: Quantities;
}

/**
 * The value that the kubelet reads from the cgroup of a Pod without a memory limit: the largest page-aligned number.
 */
const NO_MEMORY_LIMIT = "9007199254740988Ki";

function resourcesOf(container: Container): Resources {
  const { limits, requests } = (container["resources"] ?? {}) as Resources;
  return { ...(limits ? { limits } : {}), ...(requests ? { requests } : {}) };
}

/** Returns `resources` and `allocatedResources` for the status of a container that was created. */
export function containerResources(container: Container): { resources: Resources; allocatedResources?: Quantities } {
  const resources = resourcesOf(container);
  return resources.requests ? { resources, allocatedResources: resources.requests } : { resources };
}

/**
 * Returns `resources` and `allocatedResources` for a Pod's status.
 * @param cgroupRead whether the kubelet has read the Pod's cgroup; from then on it reports a limit even if none is set
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

/** Returns the quality of service class (pkg/apis/core/v1/helper/qos). */
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

/** The Pod's cgroup enforces only these two. Ephemeral storage is measured but not enforced. */
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
