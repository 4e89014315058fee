import type { Pod } from "../kube/resource.ts";
import { endedTurn } from "../pods/turns.ts";
import { workspaceOf } from "../pods/workspace-pods.ts";
import type { SessionContext } from "../protocol/context.ts";
import { type SleepEnd, sleepEndMessage } from "./sleep-plan.ts";

/** Sessions whose sleep has ended and that are remembered. Of more, those that came back too late are not counted. */
const MOST_REMEMBERED = 10_000;

/** Where a session's next work item started, by what it kept: its Pod, its volume in a new Pod, or nothing. */
export type WakeResult = "same-pod" | "volume" | "fresh";

/** Reports the ends of sleeps in Events and metrics, and what sessions found when they came back. */
export class SleepReport {
  readonly #context: Pick<SessionContext, "announce" | "metrics" | "labels">;
  /** Sessions whose sleep has ended, the earliest first. */
  readonly #ended = new Set<string>();

  constructor(context: Pick<SessionContext, "announce" | "metrics" | "labels">) {
    this.#context = context;
  }

  /** The session no longer sleeps in this Pod, or could not begin to. */
  ended(sessionId: string, pod: Pick<Pod, "metadata">, why: SleepEnd): void {
    const { announce, metrics, labels } = this.#context;
    metrics.sleepsEnded.inc({ ...labels, reason: why });
    announce("SleepEnded", sleepEndMessage(sessionId, why), pod);
    this.#ended.delete(sessionId);
    this.#ended.add(sessionId);
    const [earliest] = this.#ended;
    if (this.#ended.size > MOST_REMEMBERED && earliest !== undefined) this.#ended.delete(earliest);
  }

  /** A work item of the session has started in this Pod. Null: the session is new, as far as this process knows. */
  started(sessionId: string, pod: Pod | undefined): WakeResult | null {
    const hadSlept = this.#ended.delete(sessionId);
    const result = resultOf(pod) ?? (hadSlept ? "fresh" : null);
    if (result) this.#context.metrics.sessionsWoken.inc({ ...this.#context.labels, result });
    return result;
  }
}

/** Null: the Pod has nothing of an earlier work item. A volume has the name of the Pod that it was made for. */
function resultOf(pod: Pod | undefined): WakeResult | null {
  if (!pod) return null;
  if (endedTurn(pod) > 0) return "same-pod";
  const volume = workspaceOf(pod);
  return volume === null || volume === pod.metadata.name ? null : "volume";
}
