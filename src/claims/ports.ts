import type { Pod, Secret } from "../kube/resource.ts";
import type { Claim } from "../protocol/claim.ts";
import type { ItemView } from "../protocol/claim-observed.ts";

/** Decides what may be claimed. The claim loop checks it before each poll, each claim and each acknowledgement. */
export interface Gate {
  /**
   * Resolves when claims may be made (not paused, key accepted, template accepted, Pods are free), or the signal
   * aborts.
   */
  mayClaim(signal: AbortSignal): Promise<void>;
  /** Adds the finalizer to the Environment before its first claim. Resolves with false if it must not claim. */
  holdEnvironment(): Promise<boolean>;
  /**
   * True while nothing new may be acknowledged: the Environment is paused, being deleted, or its spec is not accepted.
   */
  readonly isClosing: boolean;
  /** Whether a Pod of this Environment, or of another with its environmentId, runs this session or is about to. */
  runs(sessionId: string): boolean;
}

/** The parked Pods that claims take from; `src/pool` manages them. */
export interface ParkedPods {
  /** An item of this session waits and needs its own Pod. Returns false if there is no capacity for one. */
  offered(sessionId: string): boolean;
  /**
   * The Pod to claim next for this session, or null. The caller must add its claim to the table in the same turn.
   */
  take(sessionId: string, except: ReadonlySet<string>, fits: (pod: Pod) => boolean): Pod | null;
  /** Whether no further session may run now. */
  readonly isFull: boolean;
  /** Whether a claim would find a Pod now. */
  readonly hasClaimable: boolean;
  /** A claim began or ended: plan again. */
  poke(): void;
}

/** The volumes of sessions; `src/sleep` manages them. */
export interface Volumes {
  /** Whether the Pod's volume may serve the session, or the Pod needs none. */
  mayServe(pod: Pod, sessionId: string): boolean;
  /**
   * Gives the Pod's volume to the session, or marks it as in use again if it is the session's. `taken`: this Pod can't
   * serve it. `failed`: the session may get the volume later. Never throws.
   */
  assign(pod: Pod, sessionId: string): Promise<"assigned" | "taken" | "failed">;
}

/** The Pods that keep sessions' files; `src/sleep` manages them. */
export interface SessionPods {
  /** The Pod of this session; null: it has none. The caller must add its claim to the table in the same turn. */
  of(sessionId: string): { readonly is: "ready"; readonly pod: Pod } | { readonly is: "busy" } | null;
  /** Whether the queue holds an item of a session whose Pod is ready for it. */
  readonly isAwaited: boolean;
  /**
   * The session's next item can't run in this Pod, or, with `Replaced`, should not: a new one will serve it.
   */
  giveUp(pod: Pod, why?: "Replaced"): void;
  /** The session's next item was offered, and its Pod could be attached to, or could not. */
  noteReach(pod: Pod, isReached: boolean): void;
}

/** The session loops, which continue claims after the claim loop. */
export interface HandOver {
  /** The claim is acknowledged, or may be: the session loop continues with it. */
  claimed(claim: Claim): void;
  /** A poll returned the item of a claim: it is in the queue again. */
  reoffered(claim: Claim, view: ItemView): void;
  /** A Pod's slot is taken by a Secret that belongs to no claim of this process. */
  foreignSlot(secret: Secret): void;
}

/** What the claim loop reports to the planning of Pods and the pacing of polls. */
export interface Report {
  /** A poll returned an item: the queue is not idle. */
  work(): void;
  /** The item found no Pod: it is in the queue again, and still waits. */
  returned(): void;
  /** The limit of claims under way is reached: polls pause, and items may wait in the queue unseen. */
  full(): void;
  /** An item was acknowledged, or was left in the queue for a known reason. */
  progress(): void;
  /** A claim ended without an acknowledgement: its Pod is free again. */
  dropped(): void;
}
