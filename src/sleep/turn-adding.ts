import { Backoff } from "../core/backoff.ts";
import { errorText } from "../core/errors.ts";
import { Slots } from "../core/slots.ts";
import { apiErrorText, isConflict, isForbidden, isInvalid, isNotFound } from "../kube/errors.ts";
import { PODS, type Pod } from "../kube/resource.ts";
import { isSessionPodOf } from "../pods/own-pods.ts";
import { readPodState } from "../pods/pod-state.ts";
import { hasOpenTurn, hasTurns, isAsleep, isWaitingTurnDead, MOST_TURNS, openTurn, turnPatch } from "../pods/turns.ts";
import type { PoolContext } from "../protocol/context.ts";
import { isStepFailure } from "../protocol/failing-steps.ts";

/** Turns of one Environment that are added at the same time. */
const CONCURRENCY = 8;

/** A Pod that gets its next turn. */
interface Adding {
  readonly uid: string | undefined;
  readonly backoff: Backoff;
  /** No try before this (monotonic). Infinity while one is in flight, or until the cache shows its result. */
  dueMs: number;
}

/**
 * Adds the next turn to Pods that have none: after a Pod's creation, and after each turn's end. The turn then waits in
 * its shell, so that the session's next work item starts at once.
 */
export class TurnAdding {
  readonly #context: PoolContext;
  readonly #onChange: () => void;
  readonly #slots = new Slots(CONCURRENCY);
  /** By name of the Pod. */
  readonly #adding = new Map<string, Adding>();
  readonly #underWay = new Set<Promise<void>>();

  /** @param onChange called when a try has failed: call `keep` again */
  constructor(context: PoolContext, onChange: () => void) {
    this.#context = context;
    this.#onChange = onChange;
  }

  /**
   * Adds a turn to each of these Pods that needs one.
   * @returns when to call again at the latest (monotonic); null: when the Pods change
   */
  keep(pods: readonly Pod[]): number | null {
    const nowMs = this.#context.clock.monotonic();
    let nextMs: number | null = null;
    for (const pod of pods) {
      const name = pod.metadata.name ?? "";
      if (!needsTurn(pod)) {
        this.#adding.delete(name);
        continue;
      }
      const { dueMs } = this.#of(pod);
      if (dueMs <= nowMs) this.add(pod);
      else if (Number.isFinite(dueMs)) nextMs = Math.min(nextMs ?? dueMs, dueMs);
    }
    this.#forgetGone();
    if (this.#adding.size === 0) this.#context.holds.notNeeded("add-turn");
    return nextMs;
  }

  /**
   * Adds the next turn to a Pod. Never throws.
   * @param live whether this is the whole Pod, as the API server has just returned it
   */
  add(pod: Pod, live = false): void {
    if (!needsTurn(pod)) return;
    const adding = this.#of(pod);
    if (!Number.isFinite(adding.dueMs)) return;
    adding.dueMs = Number.POSITIVE_INFINITY;
    const done = this.#slots.run(() => this.#try(pod, adding, live)).finally(() => this.#underWay.delete(done));
    this.#underWay.add(done);
  }

  /** Resolves when no request is in flight. */
  async ended(): Promise<void> {
    await Promise.all(this.#underWay);
  }

  #of(pod: Pod): Adding {
    const { name = "", uid } = pod.metadata;
    const known = this.#adding.get(name);
    if (known && known.uid === uid) return known;
    const { timing, random } = this.#context;
    const backoff = new Backoff({ baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs }, random);
    const adding = { uid, backoff, dueMs: 0 };
    this.#adding.set(name, adding);
    return adding;
  }

  #forgetGone(): void {
    for (const name of this.#adding.keys()) if (!this.#context.pods.get(name)) this.#adding.delete(name);
  }

  async #try(pod: Pod, adding: Adding, isLive: boolean): Promise<void> {
    const { kube, points, namespace, clock, timing, logger, name: environment } = this.#context;
    const { name = "" } = pod.metadata;
    const ref = { namespace, name };
    try {
      // The scheduler and the kubelet change a new Pod, too, so the first try may meet a conflict.
      if (!isLive || !(await this.#addTo(pod, adding, true))) {
        await this.#addTo(await points.run("turn.read-pod", { pod: name }, () => kube.get(PODS, ref)), adding, false);
      }
      this.#context.holds.succeeded("add-turn");
      // The cache shows the turn, or the Pod's change, later.
      adding.dueMs = clock.monotonic() + timing.expectationMs;
    } catch (error) {
      if (isNotFound(error)) return;
      adding.dueMs = clock.monotonic() + adding.backoff.next();
      if (!isStepFailure(error)) return;
      logger.info({ pod: name, error: errorText(error) }, "cannot add a turn to a Pod yet");
      const isRefused = isForbidden(error) || isInvalid(error);
      // Free Pods are then replaced by Pods without turns. A sleeping session waits.
      if (!isRefused || isAsleep(pod)) this.#context.holds.failed("add-turn", { error, name });
      if (isRefused) {
        // A missing permission is checked again automatically. A policy for only some Pods shows only in those Pods.
        const isRight = errorText(error).includes("cannot patch resource");
        this.#context.sleepFailed(
          `the cluster refuses ephemeral containers: ${apiErrorText(error, environment)}`,
          isRight,
        );
      }
    }
    this.#onChange();
  }

  /** Returns false if the Pod changed since it was read, and `mayConflict`. @throws KubeApiError */
  async #addTo(live: Pod, adding: Adding, mayConflict: boolean): Promise<boolean> {
    const { kube, points, namespace } = this.#context;
    if (live.metadata.uid !== adding.uid || !isSessionPodOf(live, this.#context) || !needsTurn(live)) return true;
    const { name = "" } = live.metadata;
    const [, other] = live.spec.containers;
    if (other) {
      this.#context.sleepFailed(`admission adds the container ${other.name}, which must be a native sidecar`);
      return true;
    }
    const turn = nextTurn(live);
    const add = () =>
      kube.patch(PODS, { namespace, name }, turnPatch(live, turn), {
        type: "strategic",
        subresource: "ephemeralcontainers",
      });
    try {
      await points.run("turn.add", { pod: name, asks: { turn } }, add);
      return true;
    } catch (error) {
      if (!mayConflict || !isConflict(error)) throw error;
      return false;
    }
  }
}

/** Whether the Pod is alive and no turn of it waits. */
function needsTurn(pod: Pod): boolean {
  if (!hasTurns(pod) || pod.metadata.deletionTimestamp || nextTurn(pod) > MOST_TURNS) return false;
  return hasOpenTurn(pod) ? isWaitingTurnDead(pod) : readPodState(pod).is !== "ended";
}

/** The number of the turn to add. A waiting turn that was killed is skipped: it served no work item. */
function nextTurn(pod: Pod): number {
  return isWaitingTurnDead(pod) ? openTurn(pod) + 1 : openTurn(pod);
}
