import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ANNOTATION_SESSION_CONTAINER } from "../../../src/api/names.ts";
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

/** Returns the Pod as a watch showed it at a step. */
export function podAt({ spec }: Sequence, { metadata, status }: Step): Pod {
  const bound = spec.nodeName !== undefined || status.startTime !== undefined || isScheduled(status);
  const { namespace, name, node } = RECORDED;
  return {
    metadata: { ...metadata, namespace, name, annotations: { [ANNOTATION_SESSION_CONTAINER]: "c" } },
    spec: { ...spec, ...(bound ? { nodeName: node } : {}) },
    status,
  };
}

function isScheduled({ conditions }: Step["status"]): boolean {
  return conditions?.some(({ type, status }) => type === "PodScheduled" && status === "True") === true;
}
