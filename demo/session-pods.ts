import { ANNOTATION_WORK_ID, LABEL_PHASE, LABEL_WORK_ID } from "../src/api/names.ts";
import type { Pod, PodStatus } from "../src/kube/objects.ts";
import { parkingOf } from "../src/pods/pod-gate.ts";
import { readPodState } from "../src/pods/pod-state.ts";
import { isAsleep } from "../src/pods/turns.ts";
import type { Change } from "../src/watch/informer.ts";
import type { Board } from "./board.ts";

/** The number of session Pods, by use. */
export interface PodCounts {
  readonly preparing: number;
  /** It waits for a session: in a shell, in its program, or for a key. */
  readonly warm: number;
  readonly running: number;
  /** Its session waits for its next message. */
  readonly sleeping: number;
  /** Ended, and kept for a while. */
  readonly ended: number;
}

/** The Pods of an Environment that creates one per session. Reports to the board what happens to them. */
export class SessionPods {
  readonly #board: Board;
  readonly #pods = new Map<string, Pod>();

  constructor(board: Board) {
    this.#board = board;
  }

  get counts(): PodCounts {
    const counts = { preparing: 0, warm: 0, running: 0, sleeping: 0, ended: 0 };
    for (const pod of this.#pods.values()) counts[stateOf(pod)] += 1;
    return counts;
  }

  /**
   * The node runs a Pod's container. The node knows this before the API server does. A container that waited for its
   * session started earlier: the session starts when its Pod is assigned.
   */
  started(pod: Pod): void {
    if (parkingOf(pod) === "Key") this.#board.started(workIdOf(pod) ?? "");
  }

  /** Takes in a change of a Pod from the API server. */
  pod({ type, object }: Change<Pod>): void {
    const name = object.metadata.name ?? "";
    if (type === "deleted") this.#pods.delete(name);
    else this.#pods.set(name, object);
    const workId = workIdOf(object);
    if (workId === undefined) return;
    if (type === "deleted") {
      this.#board.podGone(workId, name);
      return;
    }
    this.#board.opened(workId, name);
    const { is } = readPodState(object);
    if (is === "running" || is === "ended") this.#board.started(workId);
    this.#board.sleeps(workId, stateOf(object) === "sleeping");
  }
}

function workIdOf({ metadata: { annotations, labels } }: Pod): string | undefined {
  return annotations?.[ANNOTATION_WORK_ID] ?? labels?.[LABEL_WORK_ID];
}

/** Whether a container has started. */
export function hasStarted(status: PodStatus | undefined): boolean {
  return status?.containerStatuses?.some(({ state }) => state?.running || state?.terminated) === true;
}

function stateOf(pod: Pod): keyof PodCounts {
  const { labels, deletionTimestamp } = pod.metadata;
  const phase = pod.status?.phase;
  if (labels?.[LABEL_PHASE] === "ended" || phase === "Succeeded" || phase === "Failed") return "ended";
  if (isAsleep(pod)) return deletionTimestamp === undefined ? "sleeping" : "ended";
  if (labels?.[LABEL_PHASE] === "running") return "running";
  return readPodState(pod).is === "parked" && deletionTimestamp === undefined ? "warm" : "preparing";
}
