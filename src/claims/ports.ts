import type { Pod, Secret } from "../kube/resource.ts";
import type { Claim } from "../protocol/claim.ts";
import type { ItemView } from "../protocol/claim-observed.ts";

/** Decides what may be claimed. The claim loop asks before each poll, each claim and each acknowledgement. */
export interface Gate {
  /** Resolves when claims may be made, or the signal aborts: not paused, key accepted, template accepted, Pods are free. */
  mayClaim(signal: AbortSignal): Promise<void>;
  /** Makes sure that the Environment carries the finalizer before its first claim. Returns false when it must not claim. */
  holdEnvironment(): Promise<boolean>;
  /** True while nothing new may be acknowledged: the Environment is being deleted, paused, or not accepted as it is. */
  readonly isClosing: boolean;
  /** Whether a Pod of this Environment, or of another with its environmentId, runs this session or is about to. */
  runs(sessionId: string, api: string): boolean;
}

/** The parked Pods that claims take from; `src/pool` has them. */
export interface ParkedPods {
  /** An item of this session waits and needs its own Pod. Returns false when there is no room for one. */
  offered(sessionId: string): boolean;
  /** The Pod to claim next, or null. Put its claim into the table in the same turn. */
  take(except: ReadonlySet<string>, fits: (pod: Pod) => boolean): Pod | null;
  /** A claim began or ended: plan again. */
  poke(): void;
}

/** Where a claim goes on after the claim loop. */
export interface HandOver {
  /** The claim is acknowledged, or it may be: the session loop goes on with it. */
  claimed(claim: Claim): void;
  /** A poll brought the item of a claim: it is in the queue again. */
  reoffered(claim: Claim, view: ItemView): void;
  /** A Pod's slot is taken by a Secret that no claim here knows. */
  foreignSlot(secret: Secret): void;
}

/** What the claim loop reports to whoever plans Pods and paces polls. */
export interface Report {
  /** A poll brought an item: the queue is not idle. */
  work(): void;
  /** The most claims are under way: polls rest, and items may wait that none of them shows. */
  full(): void;
  /** An item was acknowledged, or is left in the queue for a known reason. */
  progress(): void;
  /** A claim ended without its item: its Pod is free again. */
  dropped(): void;
  /** An item was acknowledged, with the secret that its Pod needs or without it. */
  credential(isMissing: boolean, workId: string): void;
}
