import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { PodStatus } from "../../../src/kube/objects.ts";
import { OWN_CONDITIONS } from "../../../testbed/node/pod-conditions.ts";

const DIR = join(import.meta.dirname, "../../fixtures/pod-status");

/** A status recorded from a real kubelet. */
export interface Recorded {
  readonly note: string;
  readonly metadata: Record<string, unknown>;
  readonly spec: Record<string, unknown>;
  readonly status: PodStatus;
}

export const RECORDED_NAMES = readdirSync(DIR)
  .filter((file) => file.endsWith(".json"))
  .map((file) => file.slice(0, -".json".length));

export function recorded(name: string): Recorded {
  return JSON.parse(readFileSync(join(DIR, `${name}.json`), "utf8")) as Recorded;
}

/**
 * Replaces what may differ between two runs with a word: times, and ids of containers and images. Keeps the epoch,
 * which means "never started". Leaves out conditions that don't belong to the kubelet, and why a sandbox isn't ready:
 * kubelets report that since 1.37, and test/fixtures/pod-status was recorded with 1.36.
 */
export function normalized(status: PodStatus): unknown {
  const own: readonly string[] = OWN_CONDITIONS;
  const conditions = (status.conditions ?? [])
    .filter(({ type }) => own.includes(type))
    .map(({ reason, message, ...condition }) =>
      condition.type === "PodReadyToStartContainers" ? condition : { ...condition, reason, message },
    );
  return JSON.parse(JSON.stringify({ ...status, conditions }), (key, value: unknown) => {
    if (value === "1970-01-01T00:00:00Z" || value === null || value === "") return value;
    if (/^(startTime|startedAt|finishedAt|lastTransitionTime)$/.test(key)) return "<time>";
    if (key === "containerID" || key === "imageID") return "<id>";
    return value;
  });
}
