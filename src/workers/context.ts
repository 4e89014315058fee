import type { EventReason } from "../api/condition-reasons.ts";
import type { Environment } from "../api/environment.ts";
import type { Random } from "../core/backoff.ts";
import type { Clock } from "../core/clock.ts";
import type { Points } from "../core/points.ts";
import type { Timing } from "../core/timing.ts";
import type { KubeClient } from "../kube/client.ts";
import type { Deployment, KubeObject, Pod } from "../kube/resource.ts";
import type { Logger } from "../observe/logger.ts";
import type { Metrics } from "../observe/metrics.ts";
import type { PodPolicy } from "../policy/pod-policy.ts";
import type { Precedence } from "../queue/precedence.ts";
import type { WorkerTemplate } from "./template.ts";

/**
 * A cache of one Environment's objects of a kind. It is never enough to justify a deletion: read the object live first.
 */
export interface ObjectCache<T extends KubeObject> {
  get(name: string): T | undefined;
  list(): readonly T[];
}

/** The cached objects of one Environment's workers. */
export interface WorkersCaches {
  /** All Pods with this Environment's label, including foreign ones. */
  readonly pods: ObjectCache<Pod>;
  /** All Deployments with this Environment's label, including foreign ones. */
  readonly deployments: ObjectCache<Deployment>;
  /** Resolves when both caches show the objects that existed at the start; no decision is made before. */
  readonly synced: Promise<void>;
  /** Why the caches can't be filled, or have not followed the API server for some time; null: no problem. */
  readonly problem: () => string | null;
}

/** The context that all parts of an Environment's workers share. */
export interface WorkersContext extends WorkersCaches {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  /** The Environment with its current spec. */
  readonly environment: () => Environment;
  /** What the Environment may do now, beside others with the same environmentId. */
  readonly precedence: () => Precedence;
  /** The template that new workers are made from now. */
  readonly template: () => WorkerTemplate;
  /** What templates may contain; Berth creates nothing else. */
  readonly podPolicy: PodPolicy;
  /** Refuses writes once this process has lost leadership. */
  readonly kube: KubeClient;
  /** Publishes an Event about the Environment or one of its Pods, which `kubectl describe` shows. */
  readonly announce: (reason: EventReason, message: string, pod?: Pick<Pod, "metadata">) => void;
  /** Every request of the loops passes through its point. */
  readonly points: Points<WorkersPoint>;
  readonly clock: Clock;
  readonly random: Random;
  readonly timing: Pick<
    Timing,
    | ("countMs" | "demandStaleMs" | "busyProbeMs" | "scaleMs" | "retryBaseMs" | "retryMaxMs" | "drainBoundMs")
    | ("askNodeAfterMs" | "askNodeAgainMs" | "askNodeMaxMs")
  >;
  readonly logger: Logger;
  readonly metrics: Metrics;
  /** The labels of this Environment's metrics. */
  readonly labels: { readonly namespace: string; readonly environment: string };
}

/** The named points of an Environment in `workers` mode (src/core/points.ts), with their descriptions. */
export const WORKERS_POINTS = {
  "workers.count": "counts running sessions with the list call",
  "workers.read-events": "reads the Events of a worker that does not get ready",
  "workers.list-pods": "reads the Pods of a Deployment live, before it shrinks",
  "workers.mark": "gives a worker its deletion cost, or takes it away. Asks: cost",
  "workers.create": "creates the Deployment of a template. Asks: replicas",
  "workers.scale": "changes how many workers a Deployment has. Asks: from, to",
  "workers.put-right": "puts a Deployment's template back to what it was made as",
  "workers.remove": "deletes a Deployment with all its Pods, or such a Pod again with a shorter grace period",
} as const satisfies Record<string, string>;

export type WorkersPoint = keyof typeof WORKERS_POINTS;
