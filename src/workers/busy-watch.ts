import { ANNOTATION_DELETION_COST, ANNOTATION_DO_NOT_DISRUPT, ANNOTATION_SAFE_TO_EVICT } from "../api/names.ts";
import { jitter } from "../core/backoff.ts";
import { sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { isConflict, isNotFound } from "../kube/errors.ts";
import { PODS } from "../kube/resource.ts";
import type { BusyAnswer, BusyProber } from "./busy-probe.ts";
import type { WorkersContext } from "./context.ts";
import type { WorkerPod } from "./worker-pod.ts";

const JITTER = 0.2;

/** Probes in flight at a time, per Environment: a round over a thousand responsive workers takes a second or two. */
const CONCURRENCY = 32;

/** After this many rounds an answer no longer counts: the worker may have started a session since. */
const STALE_ROUNDS = 3;

/** Above the cost of every unmarked Pod. A ReplicaSet ends Pods with the lowest cost first. */
export const BUSY_COST = "1000";

/** The last answer of a worker. */
interface LastAnswer {
  readonly name: string;
  answer: BusyAnswer;
  atMs: number;
  /** The container's restarts when it answered. */
  restarts: number;
  /** Whether it was busy after it had been told to end, so that it finishes its sessions. */
  isFinishing: boolean;
  /** Whether its end while busy was counted, which happens once. */
  isCounted: boolean;
  /**
   * Whether the cache has shown the worker. One that was read live may not be cached yet, which does not mean that it
   * ended.
   */
  isShown: boolean;
}

export interface BusyWatchOptions {
  readonly context: WorkersContext;
  readonly prober: BusyProber;
  /** The workers in the cache. */
  readonly pods: () => readonly WorkerPod[];
  readonly onChange: () => void;
}

/**
 * Probes whether workers are busy, and marks the busy ones so that a ReplicaSet ends them last, and that they keep their
 * node, also while they end. A worker without a recent answer counts as busy. Also counts every worker that ends with
 * its session.
 */
export class BusyWatch {
  readonly #options: BusyWatchOptions;
  readonly #context: WorkersContext;
  readonly #answers = new Map<string, LastAnswer>();

  constructor(options: BusyWatchOptions) {
    this.#options = options;
    this.#context = options.context;
  }

  /** Whether the spec has a probe. */
  get isProbed(): boolean {
    return this.#probe !== undefined;
  }

  /** What is known about a worker now. One whose program does not run is idle, whatever it answered before. */
  stateOf(pod: WorkerPod): BusyAnswer {
    if (!pod.isRunning) return "idle";
    const heard = this.#answers.get(pod.uid);
    if (!heard || heard.restarts !== pod.restarts) return "unknown";
    const ageMs = this.#context.clock.monotonic() - heard.atMs;
    return ageMs <= STALE_ROUNDS * this.#context.timing.busyProbeMs ? heard.answer : "unknown";
  }

  /** Probes all workers in rounds until the signal aborts. Never throws. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, timing, random } = this.#context;
    while (!signal.aborted) {
      if (this.isProbed) {
        await this.ask(this.#alive, signal);
        await this.#markAll(signal);
      }
      await sleep(clock, jitter(timing.busyProbeMs, JITTER, random), signal);
    }
  }

  /** Probes these workers now. Resolves when all have answered or timed out. */
  async ask(pods: readonly WorkerPod[], signal: AbortSignal): Promise<void> {
    const probe = this.#probe;
    if (!probe) return;
    const before = this.#known(pods);
    await forEachAtMost(CONCURRENCY, pods, async (pod) => {
      if (!pod.isRunning || pod.ip === undefined || signal.aborted) return;
      // A worker of an earlier template answers at that template's address.
      const answer = await this.#options.prober({ ip: pod.ip, ...(pod.probe ?? probe.httpGet) }, signal);
      if (!signal.aborted) this.#record(pod, answer);
    });
    if (this.#known(pods) !== before) this.#options.onChange();
  }

  /**
   * Notes that a worker which was told to end has finished its sessions: it was busy after that, and its program then
   * ended without an error. A Pod shows that only for a moment, so call this at every change of one.
   */
  noteFinished({ uid, isEnding, exitCode }: WorkerPod): void {
    const heard = this.#answers.get(uid);
    if (heard?.isFinishing && isEnding && exitCode === 0) heard.answer = "idle";
  }

  /** Detects workers that ended with their session. Call it at every change of a worker Pod. */
  observe(pods: readonly WorkerPod[], howEnded: (name: string) => string): void {
    const byUid = new Map(pods.map((pod) => [pod.uid, pod]));
    for (const [uid, heard] of this.#answers) {
      const pod = byUid.get(uid);
      if (pod) this.noteFinished(pod);
      if (pod) heard.isShown = true;
      else if (!heard.isShown) continue;
      const isOver = !pod || pod.hasEnded || !pod.isRunning || pod.restarts !== heard.restarts;
      if (isOver && heard.answer === "busy" && !heard.isCounted) {
        heard.isCounted = true;
        this.#countEnded(heard.name, howEnded(heard.name));
      }
      if (!pod) this.#answers.delete(uid);
    }
  }

  /** Includes workers that are being deleted, which finish their sessions. */
  get #alive(): WorkerPod[] {
    return this.#options.pods().filter(({ hasEnded }) => !hasEnded);
  }

  get #probe() {
    return this.#context.environment().spec.workers?.busyProbe;
  }

  #known(pods: readonly WorkerPod[]): string {
    return pods.map((pod) => this.stateOf(pod)).join();
  }

  #record(pod: WorkerPod, answer: BusyAnswer): void {
    const { clock, metrics, labels } = this.#context;
    metrics.workerProbes.inc({ ...labels, answer });
    const atMs = clock.monotonic();
    const heard = this.#answers.get(pod.uid);
    if (heard && heard.restarts === pod.restarts) {
      // One missing answer does not make a busy worker unknown, only a long silence does.
      if (answer === "unknown" && heard.answer !== "idle") return;
      heard.answer = answer;
      heard.atMs = atMs;
      heard.isFinishing = pod.isEnding && answer === "busy";
      return;
    }
    this.#answers.set(pod.uid, {
      name: pod.name,
      answer,
      atMs,
      restarts: pod.restarts,
      isFinishing: pod.isEnding && answer === "busy",
      isCounted: false,
      isShown: false,
    });
  }

  #countEnded(name: string, how: string): void {
    const { metrics, labels, announce, logger } = this.#context;
    metrics.workersEndedWhileBusy.inc(labels);
    logger.warn({ pod: name, how }, "a busy worker ended");
    announce("WorkerEndedWhileBusy", `worker ${name} was busy when it ended: ${how}`);
  }

  /** Updates outdated marks of all workers. Failures are retried in the next round. */
  async #markAll(signal: AbortSignal): Promise<void> {
    await forEachAtMost(CONCURRENCY, this.#alive, async (pod) => {
      if (signal.aborted) return;
      const state = this.stateOf(pod);
      try {
        if (state === "busy" && pod.cost !== BUSY_COST) await this.mark(pod, BUSY_COST);
        else if (state === "idle" && pod.cost === BUSY_COST) await this.mark(pod, null);
      } catch (error) {
        if (isNotFound(error) || isConflict(error)) return;
        this.#context.logger.warn({ pod: pod.name, error: errorText(error) }, "cannot mark a worker");
      }
    });
  }

  /**
   * Sets a worker's deletion cost; null removes it. Returns the cost that the API server then has. Throws KubeApiError.
   */
  async mark(pod: WorkerPod, cost: string | null): Promise<string | null> {
    const { kube, points, namespace } = this.#context;
    const own = this.#context.environment().spec.workers?.template.metadata?.annotations ?? {};
    const isBusy = cost === BUSY_COST;
    const annotations: Record<string, string | null> = {
      [ANNOTATION_DELETION_COST]: cost,
      [ANNOTATION_SAFE_TO_EVICT]: isBusy ? "false" : null,
      [ANNOTATION_DO_NOT_DISRUPT]: isBusy ? "true" : null,
    };
    // The user's template wins.
    for (const name of [ANNOTATION_SAFE_TO_EVICT, ANNOTATION_DO_NOT_DISRUPT]) {
      if (Object.hasOwn(own, name)) delete annotations[name];
    }
    const patch = { metadata: { uid: pod.uid, annotations } };
    const marked = await points.run("workers.mark", { pod: pod.name, asks: { cost } }, () =>
      kube.patch(PODS, { namespace, name: pod.name }, patch, { type: "merge" }),
    );
    return marked.metadata.annotations?.[ANNOTATION_DELETION_COST] ?? null;
  }
}

/** Runs `act` for all items, at most `limit` at a time. Rejects when one call does; the other calls still finish. */
export async function forEachAtMost<T>(
  limit: number,
  items: readonly T[],
  act: (item: T) => Promise<void>,
): Promise<void> {
  const waiting = [...items];
  const lane = async () => {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) await act(item);
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, lane));
}
