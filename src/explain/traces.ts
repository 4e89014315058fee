import type { Environment } from "../api/environment.ts";
import type { KubeEvent, Pod } from "../kube/resource.ts";
import type { Journal } from "../protocol/journal.ts";
import type { WorkItem } from "../work/types.ts";

/** A claim's record that is still there. */
export interface ClaimTrace {
  readonly namespace: string;
  /** Also the name of its Pod. */
  readonly name: string;
  readonly journal: Journal;
}

/** A work item as the Work API shows it, and whose queue it is in. */
export interface ItemTrace {
  readonly environment: Environment;
  readonly item: WorkItem;
}

/** One place that was looked in, and what came of it. */
export interface Looked {
  /** In words: `Pods of namespace agents`. */
  readonly where: string;
  /** How many traces were found there; null: it could not be looked in, `note` says why. */
  readonly found: number | null;
  readonly note: string | null;
}

/** All that is left of a session. */
export interface Traces {
  /** What was asked for: a session, a work item or a Pod. */
  readonly asked: string;
  readonly pods: readonly Pod[];
  readonly claims: readonly ClaimTrace[];
  readonly events: readonly KubeEvent[];
  readonly items: readonly ItemTrace[];
  /** Those that it is, or may be, a session of. */
  readonly environments: readonly Environment[];
  readonly looked: readonly Looked[];
}
