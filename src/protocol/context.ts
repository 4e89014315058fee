import type { EventReason } from "../api/condition-reasons.ts";
import type { Environment } from "../api/environment.ts";
import type { PodPolicy } from "../api/pod-policy.ts";
import type { Random } from "../core/backoff.ts";
import type { Clock } from "../core/clock.ts";
import type { Points } from "../core/points.ts";
import type { Timing } from "../core/timing.ts";
import type { KubeClient } from "../kube/client.ts";
import type { Pod, Secret } from "../kube/resource.ts";
import type { Logger } from "../observe/logger.ts";
import type { Metrics } from "../observe/metrics.ts";
import type { NodeOutlook } from "../pods/node-health.ts";
import type { SessionTemplate } from "../pods/pod-render.ts";
import type { PodCache } from "../pods/pod-state.ts";
import type { Judged } from "../queue/api-health.ts";
import type { HintedQueue } from "../queue/hints.ts";
import type { WorkApiClient } from "../work/client.ts";
import type { FailingSteps } from "./failing-steps.ts";
import type { SessionPoint } from "./points.ts";
import type { SessionView } from "./session-view.ts";
import type { SharedSessions } from "./shared-sessions.ts";

/**
 * Says something about the Environment, or about one of its Pods, where `kubectl describe` shows it: what is wrong with a Pod
 * is said of both.
 */
export type Announce = (reason: EventReason, message: string, pod?: Pick<Pod, "metadata">) => void;

/** Lists the Secrets of an Environment's claims. */
export interface ClaimSecrets {
  list(
    environment: { readonly namespace: string; readonly name: string },
    signal?: AbortSignal,
  ): Promise<readonly Secret[]>;
}

/** What every loop of an Environment works with: whose loop it is, and the process around it. */
export interface LoopContext {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  /** The Environment as its spec is now. */
  readonly environment: () => Environment;
  /** The template that new Pods are made from now. */
  readonly template: () => SessionTemplate;
  /** Refuses writes once this process may not act any more. */
  readonly kube: KubeClient;
  /** Steps that keep failing, of claims and of what all claims share. */
  readonly failing: FailingSteps;
  /** Every request of the loops goes through its point. */
  readonly points: Points<SessionPoint>;
  readonly clock: Clock;
  readonly random: Random;
  readonly timing: Timing;
  readonly logger: Logger;
  readonly metrics: Metrics;
  /** The labels of this Environment's metrics. */
  readonly labels: { readonly namespace: string; readonly environment: string };
}

/** What the pool also works with. */
export interface PoolContext extends LoopContext {
  /** What templates may have: nothing else is made, nor given a session. */
  readonly podPolicy: PodPolicy;
  readonly pods: PodCache;
  /** What becomes of a Pod's node. */
  readonly nodeOutlook: (pod: Pod) => NodeOutlook;
  readonly announce: Announce;
}

/** What polling, acknowledging and the acts on items also work with. */
export interface ClaimContext extends LoopContext {
  /** The Work API that the spec names; or the one at the address that an item was claimed from, which a spec may have named before. */
  readonly work: (claimedFrom?: string) => WorkApiClient;
  /** The environment key in use; empty while there is none. */
  readonly environmentKey: () => string;
  /** Throws when this process may not act any more; called before every write to the Work API. */
  readonly guard: () => void;
  /** What webhooks tell of this Environment's queue; undefined: nothing is received. */
  readonly hinted?: HintedQueue | undefined;
  /** Sends a request to the Work API: what comes of it counts for the conditions Authenticated and QueueReachable. */
  readonly judged: Judged;
}

/** What the loops of an Environment work with together. */
export interface SessionContext extends PoolContext, ClaimContext {
  readonly claimLists: ClaimSecrets;
  /** Whether its Secret has been read; until then an empty key says nothing. */
  readonly isKeyRead: () => boolean;
  /** When it may act since, monotonic: whoever served the Environment before has sent nothing after it. */
  readonly servingSinceMs: number;
  /** The sessions of other Environments with the same environmentId. */
  readonly sharedSessions: SharedSessions;
  /** Told of every session that has ended, where somebody looks on. */
  readonly onSessionEnded?: (session: SessionView) => void;
}

/** What a runtime is made with: it adds what it learns of its own requests. */
export type RuntimeContext = Omit<SessionContext, "failing" | "judged">;

/** A claim waits for one write at a time: one that hangs must not keep its other steps for the usual 30 s. */
export const STEP_BOUND = { timeoutMs: 10_000 } as const;
