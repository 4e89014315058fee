import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ANNOTATION_ASSIGNED_AT, ANNOTATION_SESSION_CONTAINER } from "../../../src/api/names.ts";
import type { Pod } from "../../../src/kube/objects.ts";
import { RECORDED, type Sequence, type Step } from "../../../testbed/recorder/sequence.ts";

const DIR = join(import.meta.dirname, "../../fixtures/pod-sequences");

/** The names of all recordings of whole lives. */
export const SEQUENCE_NAMES = readdirSync(DIR)
  .filter((file) => file.endsWith(".json"))
  .map((file) => file.slice(0, -".json".length));

/** Returns every status that an API server had of a Pod on a real node, in order (testbed/recorder). */
export function sequence(name: string): Sequence {
  return JSON.parse(readFileSync(join(DIR, `${name}.json`), "utf8")) as Sequence;
}

/** Returns the Pod as a watch showed it at a step, as if its session had been assigned as its container started. */
export function podAt({ spec, steps }: Sequence, { metadata, status }: Step): Pod {
  const starts = steps.flatMap((step) => startOf(step.status) ?? []);
  const assigned = { [ANNOTATION_ASSIGNED_AT]: starts.find((at) => Date.parse(at) > 0) ?? "" };
  const bound = spec.nodeName !== undefined || status.startTime !== undefined || isScheduled(status);
  const { namespace, name, node } = RECORDED;
  return {
    metadata: { ...metadata, namespace, name, annotations: { [ANNOTATION_SESSION_CONTAINER]: "c", ...assigned } },
    spec: { ...spec, ...(bound ? { nodeName: node } : {}) },
    status,
  };
}

function startOf({ containerStatuses }: Step["status"]): string | null | undefined {
  const { running, terminated } = containerStatuses?.find(({ name }) => name === "c")?.state ?? {};
  return running?.startedAt ?? terminated?.startedAt;
}

function isScheduled({ conditions }: Step["status"]): boolean {
  return conditions?.some(({ type, status }) => type === "PodScheduled" && status === "True") === true;
}
