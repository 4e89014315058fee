import type { Environment } from "../api/environment.ts";
import type { RuntimeClasses } from "../api/isolation.ts";
import type { Random } from "../core/backoff.ts";
import type { Clock } from "../core/clock.ts";
import type { Points } from "../core/points.ts";
import type { Timing } from "../core/timing.ts";
import type { KubeClient } from "../kube/client.ts";
import type { EventSink } from "../kube/events.ts";
import type { KubeObject } from "../kube/resource.ts";
import type { Logger } from "../observe/logger.ts";
import type { Metrics } from "../observe/metrics.ts";
import type { PodCache } from "../pods/pod-state.ts";
import type { PodPolicy } from "../policy/pod-policy.ts";
import type { SessionContext } from "../protocol/context.ts";
import type { Hints } from "../queue/hints.ts";
import type { QueueMembers } from "../queue/precedence.ts";
import type { WorkApiClient } from "../work/client.ts";
import type { WorkersCaches } from "../workers/context.ts";
import type { EnvironmentObserver } from "./environment-runtime.ts";
import type { NetworkFacts } from "./network-policy.ts";

/** What the reconciler needs from the controller. */
export interface ReconcilerOptions {
  readonly kube: KubeClient;
  readonly clock: Clock;
  readonly random: Random;
  readonly timing: Timing;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly events: EventSink;
  /** Throws when this process may not act any more. */
  readonly guard: () => void;
  /**
   * Since when this process may act (monotonic). Earlier holders of these Environments have sent nothing since then.
   */
  readonly servingSinceMs: number;
  readonly originAllowed: (baseUrl: string) => boolean;
  /** What Pod templates may contain. */
  readonly podPolicy: PodPolicy;
  /** The RuntimeClass for each value of `isolation`. */
  readonly runtimeClasses: RuntimeClasses;
  readonly network: NetworkFacts;
  /** The points of one Environment, by `namespace/name`. */
  readonly points: (environment: string) => Points;
  /** Learns what this process serves, if the console is on. */
  readonly observer?: EnvironmentObserver;
  readonly workClient: (environment: Environment, key: () => string) => WorkApiClient;
  /** The Environment as the cache has it; undefined: it does not exist. */
  readonly find: (namespace: string, name: string) => KubeObject | undefined;
  /** The Pods of one Environment. Pods of an earlier one with the same name are excluded. */
  readonly pods: (of: { readonly namespace: string; readonly name: string; readonly uid: string }) => PodCache;
  /** The outlook of a Pod's node, as far as the operator may read it. */
  readonly nodeOutlook: SessionContext["nodeOutlook"];
  /** The workers of one Environment. */
  readonly workers: (of: { readonly namespace: string; readonly name: string }) => WorkersCaches;
  /** Why the caches of a namespace lag; null if they don't. */
  readonly lag: (namespace: string) => string | null;
  /** This Environment's queue. This process serves all Environments of it. */
  readonly ofQueue: (environment: Environment) => QueueMembers<KubeObject>;
  /** Bounds the connections that all Environments keep open to waiting Pods. */
  readonly streamBudgets: SessionContext["streamBudgets"];
  /** What webhooks report; undefined: none are received. */
  readonly hints?: Hints | undefined;
  /** Reconciles this key again after some milliseconds. */
  readonly again: (key: string, afterMs: number) => void;
}

/** The named points of the reconciler (src/core/points.ts), in both modes, each with its description. */
export const RECONCILE_POINTS = {
  "reconcile.read-key": "reads the Secret with the environment key. Details: usable",
  "reconcile.check-template": "creates a Pod of the template as a dry run. Details: accepted",
  "reconcile.check-attach": "reads whether the operator may attach, with a request for a Pod that does not exist",
  "reconcile.check-turns": "reads whether the operator may add turns, with a request for a Pod that does not exist",
  "reconcile.write-status": "writes the Environment's status",
  "policy.read": "reads the NetworkPolicy",
  "policy.create": "creates it",
  "policy.patch": "changes it to what the spec wants",
  "policy.delete": "deletes it",
} as const satisfies Record<string, string>;

export type ReconcilePoint = keyof typeof RECONCILE_POINTS;
