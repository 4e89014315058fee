import type { Timer } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { listEvents, NodeEvents, waitsSilently } from "../pods/node-events.ts";
import type { WorkersContext } from "./context.ts";
import { isCounted, type WorkerPod } from "./worker-pod.ts";

/** Why workers of the current template stay unprepared on their node when their status does not say. */
export class WorkerEvents {
  readonly #context: WorkersContext;
  readonly #workers: () => readonly WorkerPod[];
  readonly #events: NodeEvents;
  #timer: Timer | null = null;
  #signal: AbortSignal | undefined;

  /** @param workers the workers in the cache */
  constructor(context: WorkersContext, workers: () => readonly WorkerPod[], onChange: () => void) {
    this.#context = context;
    this.#workers = workers;
    const { clock, random, timing, kube, points, logger } = context;
    this.#events = new NodeEvents({
      ...{ clock, random, timing },
      list: (pod, signal) =>
        points.run("workers.read-events", { pod: pod.metadata.name ?? "" }, () => listEvents(kube, pod, signal)),
      onChange: () => {
        this.look();
        onChange();
      },
      onFailure: (error) => logger.debug({ error: errorText(error) }, "cannot read the Events of a worker"),
    });
  }

  /** Checks the workers for the first time. Readings end when the signal aborts. */
  start(signal: AbortSignal): void {
    this.#signal = signal;
    this.#events.start(signal);
    signal.addEventListener("abort", () => this.#timer?.cancel(), { once: true });
    this.look();
  }

  /** The node's complaint and its fix; null: none is known. */
  get problem(): string | null {
    return this.#events.problem;
  }

  /** Checks the workers after a change, and reads Events in the background if that is due. Never throws. */
  look(): void {
    if (!this.#signal || this.#signal.aborted) return;
    const { clock, kube, pods, timing, template } = this.#context;
    const { hash } = template();
    const current = this.#workers().filter((worker) => worker.hash === hash && isCounted(worker));
    const podsOf = (workers: readonly WorkerPod[]) => workers.flatMap(({ name }) => pods.get(name) ?? []);
    const waiting = podsOf(current)
      .filter(waitsSilently)
      .map((pod) => ({
        pod,
        inMs: Date.parse(pod.metadata.creationTimestamp ?? "") + timing.askNodeAfterMs - kube.now(),
      }));
    const ready = podsOf(current.filter(({ isReady }) => isReady));
    const waitMs = this.#events.look({ hash, waiting, ready });
    this.#timer?.cancel();
    this.#timer = waitMs === null ? null : clock.setTimer(() => this.look(), waitMs);
  }

  /** Resolves when no reading is in flight. */
  ended(): Promise<void> {
    return this.#events.ended();
  }
}
