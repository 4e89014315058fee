import type { Environment } from "../api/environment.ts";
import type { KubeEvent, Pod } from "../kube/resource.ts";
import type { Journal } from "../protocol/journal.ts";
import type { WorkItem } from "../work/types.ts";

/** An existing claim record. */
export interface ClaimTrace {
  readonly namespace: string;
  readonly pod: string;
  /** The turn that serves the item; 0: the Pod has no turns, or this is its first. */
  readonly turn: number;
  readonly journal: Journal;
}

/** A work item as the Work API lists it, with the Environment whose queue has it. */
export interface ItemTrace {
  readonly environment: Environment;
  readonly item: WorkItem;
}

/** One place that was searched, and the result. */
export interface Looked {
  /** A description, such as `Pods of namespace agents`. */
  readonly where: string;
  /** The number of traces found there; null if it could not be searched, and `note` says why. */
  readonly found: number | null;
  readonly note: string | null;
}

/** All traces of a session. */
export interface Traces {
  /** The requested session, work item or Pod. */
  readonly asked: string;
  readonly pods: readonly Pod[];
  readonly claims: readonly ClaimTrace[];
  readonly events: readonly KubeEvent[];
  readonly items: readonly ItemTrace[];
  /** The Environments that the session belongs to, or may belong to. */
  readonly environments: readonly Environment[];
  readonly looked: readonly Looked[];
}
