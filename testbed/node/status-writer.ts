import { Backoff } from "../../src/core/backoff.ts";
import type { Clock } from "../../src/core/clock.ts";
import { errorText } from "../../src/core/errors.ts";
import type { Random } from "../../src/core/random.ts";
import type { KubeClient } from "../../src/kube/client.ts";
import { hasStatus, isNotFound } from "../../src/kube/errors.ts";
import type { Pod, PodStatus } from "../../src/kube/objects.ts";
import { PODS } from "../../src/kube/resource.ts";
import type { Logger } from "../../src/observe/logger.ts";
import { statusPatch } from "./status-patch.ts";

export interface StatusWriterOptions {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: Random;
}

/** What still has to be written of one Pod. Only the newest status counts: those between were never seen by anybody. */
interface Entry {
  pod: Pod;
  status: PodStatus | undefined;
  written: string | undefined;
  finalize: boolean;
  busy: boolean;
  readonly backoff: Backoff;
}

/** Enough to keep one API server busy, few enough to leave it room for others. */
const IN_FLIGHT = 16;
/** An API server that restarts is back in seconds. */
const RETRY = { baseMs: 200, maxMs: 5_000 };

/** Writes statuses of Pods to the API: one request at a time for a Pod, a few at a time in all, again after failures. */
export class StatusWriter {
  readonly #options: StatusWriterOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #ready = new Set<Entry>();
  readonly #stop = new AbortController();
  #inFlight = 0;
  #paused = false;
  /** Status patches that the API server took. */
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

  /** After the last status: removes the object. */
  finalize(pod: Pod): void {
    const entry = this.#entry(pod);
    entry.finalize = true;
    this.#enqueue(entry);
  }

  /** The object is gone: there is nothing to write to. */
  forget(pod: Pod): void {
    const entry = this.#entries.get(uidOf(pod));
    if (!entry) return;
    this.#entries.delete(uidOf(pod));
    this.#ready.delete(entry);
    entry.status = undefined;
    entry.finalize = false;
  }

  /** The network is gone: what is reported meanwhile is written after `resume`. */
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
    try {
      await this.#patch(entry);
      // A status that came meanwhile goes first: the object's last state is what watchers keep.
      if (entry.finalize && entry.status === undefined) await this.#remove(entry);
      entry.backoff.reset();
    } catch (error) {
      this.#failed(entry, error);
    } finally {
      entry.busy = false;
      this.#inFlight -= 1;
      if (entry.status !== undefined && this.#entries.has(uidOf(entry.pod))) this.#ready.add(entry);
      this.#pump();
    }
  }

  async #patch(entry: Entry): Promise<void> {
    const { pod, status } = entry;
    if (!status) return;
    entry.status = undefined;
    const text = JSON.stringify(status);
    if (text === entry.written) return;
    const { namespace, name = "" } = pod.metadata;
    try {
      await this.#options.client.patch(
        PODS,
        { namespace, name },
        statusPatch(pod, status),
        { type: "strategic", subresource: "status" },
        { signal: this.#stop.signal },
      );
      entry.written = text;
      this.writes += 1;
    } catch (error) {
      // Unless a newer one came, it is still to be written.
      entry.status ??= status;
      throw error;
    }
  }

  async #remove(entry: Entry): Promise<void> {
    const { namespace, name = "", uid } = entry.pod.metadata;
    const query = { gracePeriodSeconds: 0, ...(uid === undefined ? {} : { uid }) };
    await this.#options.client.delete(PODS, { namespace, name }, query, { signal: this.#stop.signal });
    this.forget(entry.pod);
  }

  #failed(entry: Entry, error: unknown): void {
    if (this.#stop.signal.aborted) return;
    const { clock, logger } = this.#options;
    // Gone, or the name belongs to another Pod (UID mismatch).
    if (isNotFound(error) || hasStatus(error, 409)) {
      this.forget(entry.pod);
      return;
    }
    logger.warn({ pod: entry.pod.metadata.name, error: errorText(error) }, "a Pod's status could not be written");
    const { status } = entry;
    entry.status = undefined;
    clock.setTimer(() => {
      entry.status ??= status;
      this.#enqueue(entry);
    }, entry.backoff.next());
  }
}

function uidOf(pod: Pod): string {
  return pod.metadata.uid ?? "";
}
