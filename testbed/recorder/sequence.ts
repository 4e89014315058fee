import type { Container, Node, Pod, PodSpec, PodStatus } from "../../src/kube/objects.ts";

/** What of a Node decides about its Pods. */
export interface NodeView {
  /** Status of the condition Ready, with its reason. */
  readonly ready: string;
  readonly unschedulable?: true;
  readonly taints?: readonly { readonly key: string; readonly effect: string }[];
}

/** What of a Pod's metadata changes in its life. */
export interface StepMetadata {
  readonly generation?: number;
  readonly creationTimestamp?: string;
  readonly deletionTimestamp?: string;
  readonly deletionGracePeriodSeconds?: number;
}

export interface Step {
  /** What was done to the Pod, or to its node, since the step before. */
  readonly did?: readonly string[];
  /** The Node since here, where it differs from the step before. */
  readonly node?: NodeView;
  /** `deleted`: the object as it was last. */
  readonly type: "added" | "updated" | "deleted";
  readonly metadata: StepMetadata;
  readonly status: PodStatus;
}

/** Every status that an API server had of one Pod, in their order. Times count from the Pod's creation, see `EPOCH`. */
export interface Sequence {
  readonly note: string;
  /** Versions of what was recorded. */
  readonly recorded: { readonly kubernetes: string; readonly containerd: string };
  /** As it was given to the API server. */
  readonly spec: Pick<PodSpec, "containers"> & Partial<PodSpec>;
  readonly steps: readonly Step[];
}

/** When recorded Pods are created. */
const EPOCH_MS = Date.UTC(2026, 0, 1);
/** A container that never started has this time, and it is kept. */
const NEVER = "1970-01-01T00:00:00Z";

/** The names of the recorded Pod, wherever it really was. */
export const RECORDED = { namespace: "tb", name: "work-1", node: "node-1", podIP: "10.244.0.7" } as const;
const IMAGE_ID = `sha256:${"1a9e".padStart(64, "0")}`;
const CONTAINER_ID = `containerd://${"c001".padStart(64, "0")}`;
/** Fields of the machine where it was recorded. */
const LEFT_OUT = new Set(["hostIP", "hostIPs"]);

/** What stands for what: a recording must not tell where, when and how often it was made. */
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

  /** What of the metadata is recorded. */
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
    // Ids of containers and sandboxes in messages of the runtime.
    return text.replace(/\b[0-9a-f]{64}\b/g, "0".repeat(64));
  }

  #time(value: string): string {
    if (value === NEVER) return value;
    const seconds = Math.floor((Date.parse(value) - this.#createdMs) / 1_000);
    return new Date(EPOCH_MS + seconds * 1_000).toISOString().replace(/\.\d+Z$/, "Z");
  }
}

/** What is recorded of a Node. */
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

/** What two recordings of the same thing agree in: times, amounts and the Node's own pace are left out. */
export function comparable({ spec, steps }: Sequence): unknown {
  const told = steps.map(({ type, status }) => ({ type, status }));
  const text = JSON.stringify({ spec, told }, (key, value: unknown) => {
    if (value === NEVER || typeof value !== "string") return value;
    if (/(Time|At)$/.test(key)) return "<time>";
    return key === "message" ? value.replace(/\d+(\.\d+)?(Ki|Mi|Gi)?\b/g, "<n>") : value;
  });
  return JSON.parse(text) as unknown;
}

/** The parts of a container that a recorded Pod is described by. */
export type ContainerShape = Partial<Container>;
