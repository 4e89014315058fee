import { LABEL_PHASE } from "../api/names.ts";
import { asAssigned } from "../claims/pod-acts.ts";
import type { Releases } from "../claims/releases.ts";
import { SECOND_MS } from "../core/clock.ts";
import { DRAIN_GRACE, type Timing } from "../core/timing.ts";
import { isNotFound } from "../kube/errors.ts";
import { PODS, type Pod } from "../kube/resource.ts";
import { isSessionPodOf } from "../pods/own-pods.ts";
import { parkingOf } from "../pods/pod-gate.ts";
import { readPodState } from "../pods/pod-state.ts";
import { hasTurns } from "../pods/turns.ts";
import type { Claim } from "../protocol/claim.ts";
import { notePodGone, noteWaiting } from "../protocol/claim-observed.ts";
import type { SessionContext } from "../protocol/context.ts";
import { type Facts, type Limits, ranFor } from "../protocol/facts.ts";
import { ofClaim } from "../protocol/points.ts";
import { NOT_SEEN, type SessionRecorder } from "./session-recorder.ts";

/**
 * Gathers the input of `nextStep` for one claim: its Pod from the cache, or from the API server if the cache has none,
 * the limits of the spec, and the time. Reports changes of the Pod to the recorder.
 */
export class ClaimFacts {
  readonly #context: SessionContext;
  readonly #recorder: SessionRecorder;
  readonly #releases: Pick<Releases, "mayRelease">;
  readonly #onChange: () => void;
  #drainDeadlineMs = Number.POSITIVE_INFINITY;
  #draining = false;

  /** @param onChange called when the Pod of a claim is found to be gone. */
  constructor(
    context: SessionContext,
    recorder: SessionRecorder,
    releases: Pick<Releases, "mayRelease">,
    onChange: () => void,
  ) {
    this.#context = context;
    this.#recorder = recorder;
    this.#releases = releases;
    this.#onChange = onChange;
  }

  get isDraining(): boolean {
    return this.#draining;
  }

  /** Opens nothing from now on, and ends sessions at `deadlineMs` (monotonic). Returns whether anything changed. */
  drain(deadlineMs: number): boolean {
    if (this.#draining && this.#drainDeadlineMs === deadlineMs) return false;
    this.#draining = true;
    this.#drainDeadlineMs = deadlineMs;
    return true;
  }

  /** @throws KubeApiError when a live read of the Pod is needed and fails. */
  async read(claim: Claim): Promise<{ facts: Facts; pod: Pod | undefined }> {
    const { clock } = this.#context;
    let pod = this.#context.pods.get(claim.name);
    if (pod?.metadata.uid !== claim.record.journal.podUid) pod = undefined;
    // A Pod that a lagging cache does not show is not necessarily gone.
    if (!pod && claim.observed.end === null && claim.record.journal.use === "session") pod = await this.#livePod(claim);
    // The Secret of the first turn is named like the Pod.
    if (pod && claim.turn === 0 && hasTurns(pod)) claim.turn = 1;
    const nowMs = clock.monotonic();
    const clusterMs = this.#context.kube.now();
    const podGoneByMs = pod ? goneByMs(pod, nowMs - clusterMs, this.#context.timing) : null;
    let state: Facts["pod"] = pod ? readSessionState(claim, asAssigned(this.#context, claim, pod)) : { is: "gone" };
    const waitsForLine = pod !== undefined && isWaiting(claim, pod, state);
    if (waitsForLine) state = { is: "parked" };
    // The cache does not show yet that the Pod is assigned.
    else if (state.is === "parked" && claim.record.delivery === "done")
      state = { is: "running", startedAtMs: claim.record.assignedAtMs ?? clusterMs };
    if (state.is === "running" || state.is === "ended")
      this.#recorder.started(claim, state.is === "running" ? state.startedAtMs : state.end.startedAtMs, pod);
    if (podGoneByMs !== null && nowMs >= podGoneByMs && state.is !== "ended") {
      state = {
        is: "ended",
        end: { ...NOT_SEEN, cause: "NodeLost", message: `node ${pod?.spec.nodeName} did not end the Pod in time` },
      };
    }
    // After a line was sent, the program may run already.
    if (!waitsForLine || claim.record.delivery === "unsent") noteWaiting(claim, state, nowMs);
    const isOver = state.is === "ended" || state.is === "gone";
    // The container has started, or never will: a failing touch no longer matters.
    if (state.is === "running" && isAssigned(pod)) this.#context.holds.succeeded("touch", claim);
    else if (isOver) this.#context.holds.notNeeded("touch", claim);
    if (state.is === "ended") this.#recorder.ended(claim, state.end);
    if (state.is === "gone") this.#noteGone(claim);
    const facts = {
      claim,
      pod: state,
      podGoneByMs,
      podAssigned: isAssigned(pod),
      waitsForLine,
      nowMs,
      wallMs: clock.now(),
      clusterMs,
      limits: this.limits(claim),
      timing: this.#context.timing,
    };
    if (state.is === "running") this.#recorder.ran(claim, ranFor(facts, state.startedAtMs));
    return { facts, pod };
  }

  limits(claim: Claim): Limits {
    const sessions = this.#context.environment().spec.sessions;
    const graceMs = this.#context.template().graceSeconds * SECOND_MS;
    const isSettling = claim.observed.end !== null || !claim.record.journal.opened;
    return {
      firstBeatTimeoutMs: (sessions?.firstBeatTimeoutSeconds ?? 0) * SECOND_MS,
      maxDurationMs: (sessions?.maxDurationSeconds ?? 0) * SECOND_MS,
      graceMs: this.#draining ? Math.min(graceMs, this.#context.timing.drainBoundMs * DRAIN_GRACE) : graceMs,
      onPodFailure: isSettling && this.#releases.mayRelease(claim) ? "Release" : "Stop",
      draining: this.#draining,
      drainDeadlineMs: this.#drainDeadlineMs,
    };
  }

  #noteGone(claim: Claim): void {
    const { use, opened } = claim.record.journal;
    if (use === "session" && !claim.observed.podGone) {
      notePodGone(claim);
      this.#onChange();
    }
    if (!opened) return;
    this.#recorder.ended(claim, {
      ...NOT_SEEN,
      cause: "PodDeleted",
      message: "the Pod was deleted; how its container ended is unknown",
    });
  }

  async #livePod(claim: Claim): Promise<Pod | undefined> {
    try {
      const { kube, points, namespace } = this.#context;
      const read = () => kube.get(PODS, { namespace, name: claim.name });
      const pod = await points.run("session.read-pod", ofClaim(claim), read);
      return pod.metadata.uid === claim.record.journal.podUid && isSessionPodOf(pod, this.#context) ? pod : undefined;
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }
}

/** The Pod's state. A container that ended before this process sent its line never started the program. */
function readSessionState({ record, turn }: Claim, pod: Pod): Facts["pod"] {
  const state = readPodState(pod, turn);
  const isUnsent = record.openedAtMs !== null && record.deliverySentMs === null;
  if (state.is !== "ended" || parkingOf(pod) === "Key" || !isUnsent) return state;
  return { ...state, end: { ...state.end, startedAtMs: null } };
}

/** Whether the container runs only to wait for its line: the session counts from its delivery. */
function isWaiting({ record: { delivery } }: Claim, pod: Pod, state: Facts["pod"]): boolean {
  return parkingOf(pod) !== "Key" && delivery !== "done" && (state.is === "parked" || state.is === "running");
}

/** The monotonic time by which a Pod that is being deleted must be gone; null if it is not being deleted. */
function goneByMs(pod: Pod, monotonicOfEpochMs: number, { podOverdueMs }: Timing): number | null {
  // deletionTimestamp is the end of the grace period, not its beginning.
  const deadline = Date.parse(pod.metadata.deletionTimestamp ?? "");
  return Number.isNaN(deadline) ? null : monotonicOfEpochMs + deadline + podOverdueMs;
}

/** Whether the Pod's phase label shows that it was touched. */
export function isAssigned(pod: Pod | undefined): boolean {
  return pod?.metadata.labels?.[LABEL_PHASE] === "running";
}
