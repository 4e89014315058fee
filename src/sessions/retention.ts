import { LABEL_PHASE } from "../api/names.ts";
import type { Timer } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import type { Pod } from "../kube/resource.ts";
import type { ClaimTable } from "./claim-table.ts";
import type { SessionContext } from "./context.ts";
import { expiredFinished, readFinished } from "./finished.ts";
import { deletePod } from "./perform.ts";

const SECOND_MS = 1_000;

/** Passes by the clock follow one another no closer than this. */
const MIN_WAKE_MS = 1_000;

/**
 * Deletes finished Pods when they were kept long enough for their logs, and Pods that a settled claim left behind: marked
 * as assigned, with no Secret and so with no item.
 */
export class Retention {
  readonly #context: SessionContext;
  readonly #claims: ClaimTable;
  #timer: Timer | null = null;
  #signal: AbortSignal | null = null;
  #working = false;
  #again = false;
  #draining = false;
  readonly #deleted = new Set<string>();

  constructor(options: { context: SessionContext; claims: ClaimTable }) {
    this.#context = options.context;
    this.#claims = options.claims;
  }

  /** Begins once all claims of an earlier process are in the table: before that, every assigned Pod looks left behind. */
  start(signal: AbortSignal): void {
    this.#signal = signal;
    signal.addEventListener("abort", () => this.#timer?.cancel(), { once: true });
    this.poke();
  }

  /** The Environment goes, and its Pods with it: nothing is kept any longer. */
  drain(): void {
    this.#draining = true;
    this.poke();
  }

  poke(): void {
    if (!this.#signal || this.#signal.aborted) return;
    this.#again = true;
    if (!this.#working) void this.#work();
  }

  /** Finished Pods that are still there. */
  get finished(): number {
    return this.#context.pods.list().filter((pod) => readFinished(pod) !== null && !pod.metadata.deletionTimestamp)
      .length;
  }

  async #work(): Promise<void> {
    this.#working = true;
    await Promise.resolve();
    while (this.#again && !this.#signal?.aborted) {
      this.#again = false;
      try {
        await this.#pass();
      } catch (error) {
        this.#context.logger.warn({ error: errorText(error) }, "finished Pods could not be deleted");
        this.#wakeAfter(this.#context.timing.retryMaxMs);
      }
    }
    this.#working = false;
  }

  async #pass(): Promise<void> {
    const { environment, clock, pods } = this.#context;
    const sessions = environment().spec.sessions;
    if (!sessions) return;
    for (const name of this.#deleted) if (!pods.get(name)) this.#deleted.delete(name);
    const present = pods
      .list()
      .filter((pod) => !pod.metadata.deletionTimestamp && !this.#deleted.has(pod.metadata.name ?? ""));
    const finished = present.flatMap((pod) => readFinished(pod) ?? []);
    const { expired, nextAtMs } = expiredFinished(finished, clock.now(), {
      finishedMs: this.#draining ? 0 : sessions.retainFinishedSeconds * SECOND_MS,
      failedMs: this.#draining ? 0 : sessions.retainFailedSeconds * SECOND_MS,
      limit: this.#draining ? 0 : sessions.retainFinishedLimit,
    });
    for (const { pod } of expired) await this.#delete(pod);
    for (const pod of present.filter((pod) => this.#isLeftBehind(pod))) {
      this.#context.logger.info({ pod: pod.metadata.name }, "a Pod whose claim was settled before is deleted");
      await this.#delete(pod, (live) => live.metadata.labels?.[LABEL_PHASE] !== "assigned");
    }
    if (nextAtMs !== null) this.#wakeAfter(nextAtMs - clock.now());
  }

  #isLeftBehind(pod: Pod): boolean {
    return pod.metadata.labels?.[LABEL_PHASE] === "assigned" && !this.#claims.has(pod.metadata.name ?? "");
  }

  async #delete(pod: Pod, unless: (live: Pod) => boolean = () => false): Promise<void> {
    const name = pod.metadata.name ?? "";
    if (this.#claims.has(name)) return;
    // The cache may be behind a Pod that was just marked as finished.
    const kept = await deletePod(this.#context, name, (live) => live.metadata.uid !== pod.metadata.uid || unless(live));
    if (!kept) this.#deleted.add(name);
  }

  #wakeAfter(delayMs: number): void {
    this.#timer?.cancel();
    if (this.#signal?.aborted) return;
    this.#timer = this.#context.clock.setTimer(() => this.poke(), Math.max(MIN_WAKE_MS, delayMs));
  }
}
