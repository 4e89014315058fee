import { deleteClaimSecrets } from "../claims/claim-lists.ts";
import { type Clock, SECOND_MS } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import type { Timing } from "../core/timing.ts";
import type { KubeClient } from "../kube/client.ts";
import { isNotFound } from "../kube/errors.ts";
import type { Logger } from "../observe/logger.ts";
import type { Journal } from "../protocol/journal.ts";
import type { EnvironmentState } from "./environment-state.ts";
import { ENVIRONMENTS } from "./finalizer.ts";

export interface DrainOptions {
  readonly kube: Pick<KubeClient, "now">;
  readonly clock: Clock;
  readonly timing: Pick<Timing, "drainBoundMs" | "retryMaxMs">;
  /** Reconciles the Environment again after this many milliseconds. */
  readonly again: (afterMs: number) => void;
}

/**
 * Drains an Environment that is being deleted, and removes the finalizer when nothing is left. Returns false when the
 * drain has timed out and the caller must give up the rest.
 */
export async function drain(
  { environment: { metadata, spec }, runtime }: EnvironmentState,
  { kube, clock, timing, again }: DrainOptions,
): Promise<boolean> {
  const deletedMs = Date.parse(metadata.deletionTimestamp ?? "");
  const overMs = deletedMs + spec.deletionGraceSeconds * SECOND_MS - kube.now();
  runtime.drain(clock.monotonic() + overMs);
  if (runtime.isDrained) {
    // If this fails, the status says what keeps the finalizer.
    await runtime.releaseHold().catch(() => again(timing.retryMaxMs));
    return true;
  }
  if (overMs + timing.drainBoundMs <= 0) return false;
  again(Math.max(SECOND_MS, Math.min(overMs, 0) + timing.drainBoundMs));
  return true;
}

type Orphaned = Pick<EnvironmentState, "uid" | "environment" | "points">;

/**
 * Deletes the claim Secrets of an Environment if it no longer exists: someone removed the finalizer by hand. Never
 * throws. Returns false if the caller must retry.
 */
export async function deleteOrphanedClaims(
  of: Orphaned,
  options: { readonly kube: KubeClient; readonly logger: Logger },
): Promise<boolean> {
  const { namespace, name } = of.environment.metadata;
  try {
    await of.points.run("cleanup.read-environment", {}, () => options.kube.get(ENVIRONMENTS, { namespace, name }));
    return true;
  } catch (error) {
    return isNotFound(error) ? deleteClaimsOf(of, options) : false;
  }
}

/** Like `deleteOrphanedClaims`, but without reading the Environment: its drain was given up. */
export async function deleteClaimsOf(
  { uid, environment, points }: Orphaned,
  { kube, logger }: { readonly kube: KubeClient; readonly logger: Logger },
): Promise<boolean> {
  const { namespace, name } = environment.metadata;
  const isIts = (journal: Journal | null) => journal?.environmentUid === uid;
  try {
    await deleteClaimSecrets(kube, { namespace, name }, points, isIts);
    return true;
  } catch (error) {
    logger.warn(
      { namespace, name, error: errorText(error) },
      "cannot delete the claim Secrets of a deleted Environment",
    );
    return false;
  }
}
