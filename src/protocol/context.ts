import type { EventReason } from "../api/condition-reasons.ts";
import type { Environment } from "../api/environment.ts";
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
import type { PodPolicy } from "../policy/pod-policy.ts";
import type { HintedQueue } from "../queue/hints.ts";
import type { Precedence } from "../queue/precedence.ts";
import type { WorkApiClient } from "../work/client.ts";
import type { Holds } from "./holds.ts";
import type { SessionPoint } from "./points.ts";
import type { SessionView } from "./session-view.ts";

/**
 * Writes an Event for `kubectl describe`: about the Environment or, with `pod`, about that Pod. Warnings about a Pod
 * are written to both.
 */
export type Announce = (reason: EventReason, message: string, pod?: Pick<Pod, "metadata">) => void;

/** Lists the Secrets of an Environment's claims. */
export interface ClaimSecrets {
  list(
    environment: { readonly namespace: string; readonly name: string },
    signal?: AbortSignal,
  ): Promise<readonly Secret[]>;
}

/** What every loop of an Environment uses: its Environment, and the services of the process. */
export interface LoopContext {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  /** The Environment with its current spec. */
  readonly environment: () => Environment;
  /** The template that new Pods are made from. */
  readonly template: () => SessionTemplate;
  /** Refuses writes once this process may no longer act. */
  readonly kube: KubeClient;
  /**
   * Reports that Pods can't wait in a shell. It counts only if the spec leaves the choice to Berth, and until the spec
   * changes; `isForMoment`: until attaching is allowed again.
   */
  readonly shellFailed: (message: string, isForMoment?: boolean) => void;
  /** Reports in the same way that turns can't be added to Pods, or that their keeper can't run. */
  readonly sleepFailed: (message: string, isForMoment?: boolean) => void;
  /** What is held back, and why. */
  readonly holds: Holds;
  /** Every request of the loops passes its point. */
  readonly points: Points<SessionPoint>;
  readonly clock: Clock;
  readonly random: Random;
  readonly timing: Timing;
  readonly logger: Logger;
  readonly metrics: Metrics;
  /** The labels of this Environment's metrics. */
  readonly labels: { readonly namespace: string; readonly environment: string };
}

/** What the pool uses in addition. */
export interface PoolContext extends LoopContext {
  /** What templates may contain. A Pod with anything else is neither created nor given a session. */
  readonly podPolicy: PodPolicy;
  readonly pods: PodCache;
  /** What is known about the health of a Pod's node. */
  readonly nodeOutlook: (pod: Pod) => NodeOutlook;
  readonly announce: Announce;
}

/** What polling, acknowledging and the acts on items use in addition. */
export interface ClaimContext extends LoopContext {
  readonly work: () => WorkApiClient;
  /** The environment key in use; empty: there is none. */
  readonly environmentKey: () => string;
  /** Throws if this process may no longer act; called before every write to the Work API. */
  readonly guard: () => void;
  /** What webhooks report about this Environment's queue; undefined: webhooks are off. */
  readonly hinted?: HintedQueue | undefined;
}

/** A number of connections. `take` returns false if there are as many already. */
interface StreamBudget {
  readonly isFull: boolean;
  take(): boolean;
  give(): void;
}

/** What an Environment's session loops use. */
export interface SessionContext extends PoolContext, ClaimContext {
  readonly claimLists: ClaimSecrets;
  /** Writes the annotation of the Environment that counts releases. @throws KubeApiError */
  readonly recordReleases: (text: string) => Promise<unknown>;
  /** Whether the key's Secret has been read; until then an empty key means nothing. */
  readonly isKeyRead: () => boolean;
  /** Since when (monotonic) this process may act: an earlier process sent nothing for the Environment after that. */
  readonly servingSinceMs: number;
  /** Bounds the connections that all Environments of this replica keep open to Pods that wait, and that sleep. */
  readonly streamBudgets: { readonly waiting: StreamBudget; readonly asleep: StreamBudget };
  /** What the Environment may do now, beside others with the same environmentId. */
  readonly precedence: () => Precedence;
  /** Called with every session that has ended; undefined: the console is off. */
  readonly onSessionEnded?: (session: SessionView) => void;
}

/** The part of the context that a runtime gets; it adds what its own requests show. */
export type RuntimeContext = Omit<SessionContext, "holds">;

/** A claim waits for one write at a time, so a hanging write must not delay the other steps for the usual 30 s. */
export const STEP_BOUND = { timeoutMs: 10_000 } as const;
