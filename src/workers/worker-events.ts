import { LABEL_TEMPLATE_HASH } from "../api/names.ts";
import type { Timer } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import type { Pod } from "../kube/resource.ts";
import { listEvents, NodeEvents, waitsSilently } from "../pods/node-events.ts";
import type { WorkersContext } from "./context.ts";
import { readWorkerPod } from "./worker-pod.ts";

/** Why workers of the current template stay unprepared on their node when their status does not say. */
export class WorkerEvents {
  readonly #context: WorkersContext;
  readonly #pods: () => readonly Pod[];
  readonly #events: NodeEvents;
  #timer: Timer | null = null;
  #signal: AbortSignal | undefined;

  /** @param pods the workers in the cache that count as replicas */
  constructor(context: WorkersContext, pods: () => readonly Pod[], onChange: () => void) {
    this.#context = context;
    this.#pods = pods;
    const { clock, random, timing, kube, points, logger } = context;
    this.#events = new NodeEvents({
      ...{ clock, random, timing, onChange },
      list: (pod, signal) =>
        points.run("workers.read-events", { pod: pod.metadata.name ?? "" }, () => listEvents(kube, pod, signal)),
      onFailure: (error) => logger.debug({ error: errorText(error) }, "cannot read the Events of a worker"),
    });
  }

  /** Readings end when the signal aborts. */
  start(signal: AbortSignal): void {
    this.#signal = signal;
    this.#events.start(signal);
    signal.addEventListener("abort", () => this.#timer?.cancel(), { once: true });
  }

  /** The node's complaint and its fix; null: none is known. */
  get problem(): string | null {
    return this.#events.problem;
  }

  /** Checks the workers, and reads Events in the background if that is due. Never throws. */
  look(): void {
    if (!this.#signal || this.#signal.aborted) return;
    const { clock, kube, timing } = this.#context;
    const { hash } = this.#context.template();
    const pods = this.#pods().filter(({ metadata }) => metadata.labels?.[LABEL_TEMPLATE_HASH] === hash);
    const waiting = pods.filter(waitsSilently).map((pod) => ({
      pod,
      inMs: Date.parse(pod.metadata.creationTimestamp ?? "") + timing.askNodeAfterMs - kube.now(),
    }));
    const ready = pods.filter((pod) => readWorkerPod(pod).isReady);
    const waitMs = this.#events.look({ hash, waiting, ready });
    this.#timer?.cancel();
    this.#timer = waitMs === null ? null : clock.setTimer(() => this.look(), waitMs);
  }

  /** Resolves when no reading is in flight. */
  ended(): Promise<void> {
    return this.#events.ended();
  }
}
