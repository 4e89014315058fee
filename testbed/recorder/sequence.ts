import type { Container, Node, Pod, PodSpec, PodStatus } from "../../src/kube/objects.ts";

/** The parts of a Node that affect its Pods. */
export interface NodeView {
  /** The status of the condition Ready, with its reason. */
  readonly ready: string;
  readonly unschedulable?: true;
  readonly taints?: readonly { readonly key: string; readonly effect: string }[];
}

/** The parts of a Pod's metadata that change during its life. */
export interface StepMetadata {
  readonly generation?: number;
  readonly creationTimestamp?: string;
  readonly deletionTimestamp?: string;
  readonly deletionGracePeriodSeconds?: number;
}

export interface Step {
  /** What was done to the Pod or its node since the previous step. */
  readonly did?: readonly string[];
  /** The Node from this step on, if it differs from the previous step. */
  readonly node?: NodeView;
  /** `deleted` carries the last state of the object. */
  readonly type: "added" | "updated" | "deleted";
  readonly metadata: StepMetadata;
  readonly status: PodStatus;
}

/** Every status of one Pod in an API server, in order. Times are relative to the Pod's creation, see `EPOCH_MS`. */
export interface Sequence {
  readonly note: string;
  /** The versions of the recorded programs. */
  readonly recorded: { readonly kubernetes: string; readonly containerd: string };
  /** The spec as it was sent to the API server. */
  readonly spec: Pick<PodSpec, "containers"> & Partial<PodSpec>;
  readonly steps: readonly Step[];
}

/** The creation time of recorded Pods. */
const EPOCH_MS = Date.UTC(2026, 0, 1);
/** The time of a container that never started. It isn't replaced. */
const NEVER = "1970-01-01T00:00:00Z";

/** The names that replace those of the recorded Pod. */
export const RECORDED = { namespace: "tb", name: "work-1", node: "node-1", podIP: "10.244.0.7" } as const;
const IMAGE_ID = `sha256:${"1a9e".padStart(64, "0")}`;
const CONTAINER_ID = `containerd://${"c001".padStart(64, "0")}`;
/** Fields that depend on the recording machine. */
const LEFT_OUT = new Set(["hostIP", "hostIPs"]);

/** Replaces values that would reveal where, when, and how often a recording was made. */
export class Normalizer {
  readonly #createdMs: number;
  readonly #names: readonly (readonly [string, string])[];

  constructor({ metadata }: Pod) {
    this.#createdMs = Date.parse(metadata.creationTimestamp ?? "");
    this.#names = [
      [metadata.uid ?? "", "00000000-0000-4000-8000-000000000001"],
      [metadata.name ?? "", RECORDED.name],
      [metadata.namespace ?? "", RECORDED.namespace],
    ];
  }

  apply<T>(value: T): T {
    const text = JSON.stringify(value, (key, inner: unknown) => {
      if (LEFT_OUT.has(key)) return undefined;
      return typeof inner === "string" ? this.#text(key, inner) : inner;
    });
    return JSON.parse(text) as T;
  }

  /** Returns the recorded part of the metadata. */
  metadata({ metadata }: Pod): StepMetadata {
    const { generation, creationTimestamp, deletionTimestamp, deletionGracePeriodSeconds } = metadata;
    return this.apply({
      ...(generation !== undefined && { generation }),
      ...(creationTimestamp !== undefined && { creationTimestamp }),
      ...(deletionTimestamp !== undefined && { deletionTimestamp }),
      ...(deletionGracePeriodSeconds !== undefined && { deletionGracePeriodSeconds }),
    });
  }

  #text(key: string, value: string): string {
    if (/^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(value)) return this.#time(value);
    if (key === "imageID" && value !== "") return IMAGE_ID;
    if (key === "containerID" && value !== "") return CONTAINER_ID;
    if ((key === "podIP" || key === "ip") && value !== "") return RECORDED.podIP;
    let text = value.replace(/(?:127\.0\.0\.1:\d+|localhost)\/worker:1/g, "worker:1");
    for (const [real, recorded] of this.#names) if (real !== "") text = text.replaceAll(real, recorded);
    // The runtime's messages contain ids of containers and sandboxes.
    return text.replace(/\b[0-9a-f]{64}\b/g, "0".repeat(64));
  }

  #time(value: string): string {
    if (value === NEVER) return value;
    const seconds = Math.floor((Date.parse(value) - this.#createdMs) / 1_000);
    return new Date(EPOCH_MS + seconds * 1_000).toISOString().replace(/\.\d+Z$/, "Z");
  }
}

/** Returns the recorded part of a Node. */
export function nodeView({ spec, status }: Node): NodeView {
  const conditions = (status?.["conditions"] ?? []) as { type: string; status: string; reason?: string }[];
  const ready = conditions.find(({ type }) => type === "Ready");
  const taints = (spec?.taints ?? []).map(({ key, effect }) => ({ key, effect }));
  return {
    ready: `${ready?.status ?? "Unknown"} ${ready?.reason ?? ""}`.trim(),
    ...(spec?.unschedulable && { unschedulable: true as const }),
    ...(taints.length > 0 && { taints: taints.sort((a, b) => (a.key + a.effect).localeCompare(b.key + b.effect)) }),
  };
}

/**
 * Returns the part in which two recordings of the same thing agree, without times, amounts, and the Node's own pace.
 */
export function comparable({ spec, steps }: Sequence): unknown {
  const told = steps.map(({ type, status }) => ({ type, status }));
  const text = JSON.stringify({ spec, told }, (key, value: unknown) => {
    if (value === NEVER || typeof value !== "string") return value;
    if (/(Time|At)$/.test(key)) return "<time>";
    return key === "message" ? value.replace(/\d+(\.\d+)?(Ki|Mi|Gi)?\b/g, "<n>") : value;
  });
  return JSON.parse(text) as unknown;
}

/** The parts of a container that describe a recorded Pod. */
export type ContainerShape = Partial<Container>;
