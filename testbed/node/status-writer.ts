import { Backoff, type Random } from "../../src/core/backoff.ts";
import type { Clock } from "../../src/core/clock.ts";
import { errorText } from "../../src/core/errors.ts";
import type { KubeClient } from "../../src/kube/client.ts";
import { hasStatus, isNotFound } from "../../src/kube/errors.ts";
import type { Pod, PodStatus } from "../../src/kube/objects.ts";
import { PODS } from "../../src/kube/resource.ts";
import type { Logger } from "../../src/observe/logger.ts";
import { statusPatch } from "./status-patch.ts";

export interface StatusWriterOptions {
  readonly client: Pick<KubeClient, "patch" | "delete">;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: Random;
}

/**
 * What still needs to be written for one Pod. Only the newest status counts, because no client ever saw those in
 * between.
 */
interface Entry {
  pod: Pod;
  /** The status that isn't written yet. */
  status: PodStatus | undefined;
  written: string | undefined;
  finalize: boolean;
  /** A request is in progress, or the pause after a failed one. */
  busy: boolean;
  readonly backoff: Backoff;
}

/** Enough to keep one API server busy, and few enough to leave it room for other clients. */
const IN_FLIGHT = 16;
/** An API server that restarts is back within seconds. */
const RETRY = { baseMs: 200, maxMs: 5_000 };

/**
 * Writes the statuses of Pods to the API: one request at a time per Pod, a few at a time in total, and with retries.
 */
export class StatusWriter {
  readonly #options: StatusWriterOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #ready = new Set<Entry>();
  readonly #stop = new AbortController();
  #inFlight = 0;
  #paused = false;
  /** The number of status patches that the API server accepted. */
  writes = 0;

  constructor(options: StatusWriterOptions) {
    this.#options = options;
  }

  report(pod: Pod, status: PodStatus): void {
    const entry = this.#entry(pod);
    entry.pod = pod;
    entry.status = status;
    this.#enqueue(entry);
  }

  /** Removes the object after the last status is written. */
  finalize(pod: Pod): void {
    const entry = this.#entry(pod);
    entry.finalize = true;
    this.#enqueue(entry);
  }

  /** The object is gone, so there is nothing left to write. */
  forget(pod: Pod): void {
    const entry = this.#entries.get(uidOf(pod));
    if (!entry) return;
    this.#entries.delete(uidOf(pod));
    this.#ready.delete(entry);
    entry.status = undefined;
    entry.finalize = false;
  }

  /** The network is down. Statuses are written after `resume`. */
  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#pump();
  }

  stop(): void {
    this.#stop.abort();
    this.#ready.clear();
  }

  #entry(pod: Pod): Entry {
    const uid = uidOf(pod);
    let entry = this.#entries.get(uid);
    if (!entry) {
      const backoff = new Backoff(RETRY, this.#options.random);
      entry = { pod, status: undefined, written: undefined, finalize: false, busy: false, backoff };
      this.#entries.set(uid, entry);
    }
    return entry;
  }

  #enqueue(entry: Entry): void {
    if (this.#stop.signal.aborted) return;
    this.#ready.add(entry);
    this.#pump();
  }

  #pump(): void {
    // After `stop`, every request fails at once, so continuing would be a loop without a pause.
    if (this.#stop.signal.aborted) return;
    for (const entry of this.#ready) {
      if (this.#paused || this.#inFlight >= IN_FLIGHT) return;
      if (entry.busy) continue;
      this.#ready.delete(entry);
      void this.#write(entry);
    }
  }

  async #write(entry: Entry): Promise<void> {
    entry.busy = true;
    this.#inFlight += 1;
    let pauseMs = 0;
    try {
      await this.#patch(entry);
      // A status that arrived in the meantime goes first, because watchers keep the object's last state.
      if (entry.finalize && entry.status === undefined) await this.#remove(entry);
      entry.backoff.reset();
    } catch (error) {
      pauseMs = this.#failed(entry, error);
    } finally {
      this.#inFlight -= 1;
      if (pauseMs > 0) this.#options.clock.setTimer(() => this.#release(entry), pauseMs);
      else this.#release(entry);
      this.#pump();
    }
  }

  /** Allows the next request for this Pod. */
  #release(entry: Entry): void {
    entry.busy = false;
    if (this.#entries.has(uidOf(entry.pod)) && (entry.status || entry.finalize)) this.#enqueue(entry);
  }

  async #patch(entry: Entry): Promise<void> {
    const { pod, status } = entry;
    if (!status) return;
    const text = JSON.stringify(status);
    if (text !== entry.written) {
      const { namespace, name = "" } = pod.metadata;
      const query = { type: "strategic", subresource: "status" } as const;
      const options = { signal: this.#stop.signal };
      await this.#options.client.patch(PODS, { namespace, name }, statusPatch(pod, status), query, options);
      entry.written = text;
      this.writes += 1;
    }
    if (entry.status === status) entry.status = undefined;
  }

  async #remove(entry: Entry): Promise<void> {
    const { namespace, name = "", uid } = entry.pod.metadata;
    const query = { gracePeriodSeconds: 0, ...(uid === undefined ? {} : { uid }) };
    await this.#options.client.delete(PODS, { namespace, name }, query, { signal: this.#stop.signal });
    this.forget(entry.pod);
  }

  /** Returns the pause before the next try in milliseconds, or 0 if there is none. */
  #failed(entry: Entry, error: unknown): number {
    if (this.#stop.signal.aborted) return 0;
    // The Pod is gone, or its name belongs to another Pod (UID mismatch).
    if (isNotFound(error) || hasStatus(error, 409)) {
      this.forget(entry.pod);
      return 0;
    }
    const { name } = entry.pod.metadata;
    this.#options.logger.warn({ pod: name, error: errorText(error) }, "could not write a Pod's status");
    return entry.backoff.next();
  }
}

function uidOf(pod: Pod): string {
  return pod.metadata.uid ?? "";
}
