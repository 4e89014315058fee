import type { Random } from "../core/backoff.ts";
import { type Clock, sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { isAlreadyExists, isConflict, LeadershipLostError } from "../kube/errors.ts";
import type { Logger } from "../observe/logger.ts";
import type { Metrics } from "../observe/metrics.ts";
import { type LeaseAges, type LeaseClient, LeaseRecord } from "./lease-record.ts";

/** The defaults of client-go and controller-runtime. A leader that vanished is replaced within 15 to 20 s. */
export const LEASE_DURATION_MS = 15_000;
export const RENEW_DEADLINE_MS = 10_000;
export const RETRY_PERIOD_MS = 2_000;

/**
 * Each candidate waits a random time between one and this many retry periods, so that candidates don't try at the same
 * instant.
 */
export const CANDIDATE_SPREAD = 2.2;

/** A renewal without an answer must not use up the renew deadline: two renewals fit into it. */
const RENEWALS_PER_DEADLINE = 2;

/** Releasing the Lease only helps the next leader. It is not worth a longer wait at the end of a process. */
const RELEASE_TIMEOUT_MS = 2_000;

export interface LeaderElectorOptions {
  /** Must not be fenced, because the fence depends on it. */
  readonly client: LeaseClient;
  readonly namespace: string;
  /** Name of the Lease. */
  readonly name: string;
  /** Unique to this process: two processes with the same identity would both lead. */
  readonly identity: string;
  /** How long other candidates leave the Lease alone when it is not renewed. */
  readonly leaseDurationMs?: number;
  /** A leader that has not renewed for this long stops acting. Must be below the lease duration. */
  readonly renewDeadlineMs?: number;
  readonly retryPeriodMs?: number;
  /** Time between successful renewals. Defaults to the retry period. */
  readonly renewPeriodMs?: number;
  /** Labels of the Lease. */
  readonly labels?: Readonly<Record<string, string>>;
  /** The ages of Leases, shared with other readers in this process. */
  readonly ages?: LeaseAges;
  /**
   * Resolves when a candidate should try to acquire the Lease. By default at once, then after each retry period plus
   * jitter.
   */
  readonly turn?: (signal: AbortSignal) => Promise<void>;
  /**
   * Called before the fence opens: after each acquisition of the Lease, and after a renewal that came too late to rule
   * out other leaders. If it returns false, the Lease is released. If it throws, it is called again after the next
   * renewal.
   */
  readonly confirm?: (signal: AbortSignal) => Promise<boolean>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics?: Metrics | undefined;
  readonly random?: Random;
  /**
   * Leads until the signal aborts. The elector waits for the promise before it releases the Lease or tries again, so
   * that two terms of one process never overlap. A rejection ends the term and `run`. `fence` is `LeaderElector.fence`
   * for this term only: work that outlives the term never passes it again.
   */
  readonly onStartedLeading: (signal: AbortSignal, fence: () => void) => Promise<void> | void;
  /** Called once a term: at once when leadership is lost, or after the release at a clean end. */
  readonly onStoppedLeading?: () => void;
}

interface Instant {
  readonly monotonic: number;
  readonly wall: number;
}

/**
 * Leader election with one Lease.
 *
 * Guaranteed: `fence` passes only within the renew deadline after the last successful renewal was sent, by the larger
 * of monotonic and wall time. So a process that was paused or suspended does not act when it resumes. Other candidates
 * take the Lease only after its duration, on their own monotonic clocks, counted from when they observed its last
 * change. Not guaranteed: anything about a request that passed the fence and is in flight, or about clocks that run at
 * different speeds.
 */
export class LeaderElector {
  readonly #options: LeaderElectorOptions;
  readonly #leaseDurationMs: number;
  readonly #renewDeadlineMs: number;
  readonly #retryPeriodMs: number;
  readonly #renewPeriodMs: number;
  readonly #lease: LeaseRecord;
  /** This process holds the Lease, but `confirm` has not allowed its use yet. */
  #unconfirmed = false;
  #term: AbortController | undefined;
  /** When the last successful renewal was sent; undefined while not leading. */
  #renewedAt: Instant | undefined;

  constructor(options: LeaderElectorOptions) {
    this.#options = options;
    this.#leaseDurationMs = options.leaseDurationMs ?? LEASE_DURATION_MS;
    this.#renewDeadlineMs = options.renewDeadlineMs ?? RENEW_DEADLINE_MS;
    this.#retryPeriodMs = options.retryPeriodMs ?? RETRY_PERIOD_MS;
    this.#renewPeriodMs = options.renewPeriodMs ?? this.#retryPeriodMs;
    if (this.#leaseDurationMs <= this.#renewDeadlineMs || this.#renewDeadlineMs <= this.#retryPeriodMs) {
      throw new RangeError("leader election needs lease duration > renew deadline > retry period");
    }
    this.#lease = new LeaseRecord({ ...options, leaseDurationMs: this.#leaseDurationMs });
    options.metrics?.leader.set({ lease: options.name }, 0);
  }

  /** Whether this process can act now. */
  get isLeader(): boolean {
    return this.#renewedAt !== undefined && this.#sinceRenewal(this.#renewedAt) < this.#renewDeadlineMs;
  }

  /** The last known holder of the Lease; empty if it has none. */
  get holder(): string {
    return this.#lease.holder;
  }

  /** Whether this process leads, or still ends the work of its term. */
  get isBusy(): boolean {
    return this.#term !== undefined;
  }

  /** Ends the term in order: first its work ends, then the Lease is released for another candidate. */
  stepDown(): void {
    this.#term?.abort(new LeadershipLostError(`this process released Lease ${this.#options.name}`));
  }

  /**
   * Call before every outgoing write.
   * @throws LeadershipLostError unless this process certainly holds the Lease.
   */
  fence(): void {
    const { name } = this.#options;
    if (!this.#renewedAt) throw new LeadershipLostError(`not the leader (Lease ${name})`);
    const sinceMs = this.#sinceRenewal(this.#renewedAt);
    if (sinceMs < this.#renewDeadlineMs) return;
    throw new LeadershipLostError(
      `Lease ${name} was last renewed ${Math.round(sinceMs)} ms ago, so this process must not act`,
    );
  }

  /**
   * Acquires the Lease, leads, and tries again after losing it, until the signal aborts. Rejects as `onStartedLeading`
   * does.
   */
  async run(signal: AbortSignal): Promise<void> {
    const turn = this.#options.turn ?? this.#turns();
    try {
      while (!signal.aborted) {
        await turn(signal);
        if (signal.aborted) return;
        if (await this.#tryRenew(this.#renewDeadlineMs, signal)) await this.#lead(signal);
      }
    } finally {
      // The Lease was acquired but never confirmed.
      if (this.#lease.isOurs) await this.#release();
    }
  }

  /** The first turn is immediate; later turns wait. */
  #turns(): (signal: AbortSignal) => Promise<void> {
    let first = true;
    return async (signal) => {
      const spread = 1 + (CANDIDATE_SPREAD - 1) * (this.#options.random ?? Math.random)();
      if (!first) await sleep(this.#options.clock, this.#retryPeriodMs * spread, signal);
      first = false;
    };
  }

  async #lead(signal: AbortSignal): Promise<void> {
    const { logger, metrics, name, identity, onStartedLeading, onStoppedLeading } = this.#options;
    logger.info({ lease: name, identity }, "started leading");
    metrics?.leader.set({ lease: name }, 1);
    metrics?.leaderTransitions.inc({ lease: name, change: "acquired" });
    const term = new AbortController();
    this.#term = term;
    const onAbort = () => term.abort(signal.reason);
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    // `renewing` outlives the term until its work has ended, because the same Lease fences that work.
    const renewing = new AbortController();
    let isOver = false;
    const fence = () => {
      if (isOver) throw new LeadershipLostError(`an earlier term of this process (Lease ${name})`);
      this.fence();
    };
    const work = runWork((ending) => onStartedLeading(ending, fence), term.signal);
    const ended = work.then((result) => {
      if (result.failed || term.signal.aborted) renewing.abort();
      else term.signal.addEventListener("abort", () => renewing.abort(), { once: true });
      return result;
    });
    const lost = await this.#keepRenewed(renewing.signal);
    signal.removeEventListener("abort", onAbort);
    if (lost) {
      isOver = true;
      this.#renewedAt = undefined;
      metrics?.leader.set({ lease: name }, 0);
      metrics?.leaderTransitions.inc({ lease: name, change: "lost" });
      logger.error({ lease: name, identity, holder: this.holder }, "leadership lost");
      term.abort(new LeadershipLostError(`leadership lost (Lease ${name})`));
      this.#stopped(onStoppedLeading);
    }
    const result = await ended;
    isOver = true;
    term.abort();
    this.#term = undefined;
    if (!lost) {
      metrics?.leader.set({ lease: name }, 0);
      metrics?.leaderTransitions.inc({ lease: name, change: "released" });
      await this.#release();
      this.#stopped(onStoppedLeading);
    }
    if (!result.failed) return;
    if (!result.ending) throw result.error;
    logger.warn({ lease: name, error: errorText(result.error) }, "the work of the term ended with an error");
  }

  async #release(): Promise<void> {
    const { logger, name, identity } = this.#options;
    this.#renewedAt = undefined;
    await this.#lease.release(RELEASE_TIMEOUT_MS).then(
      () => logger.info({ lease: name, identity }, "released the Lease"),
      (error: unknown) => logger.info({ lease: name, error: errorText(error) }, "cannot release the Lease"),
    );
  }

  #stopped(onStoppedLeading: (() => void) | undefined): void {
    try {
      onStoppedLeading?.();
    } catch (error) {
      this.#options.logger.error({ error: errorText(error) }, "onStoppedLeading threw");
    }
  }

  /** Returns true when the Lease was lost, false when the signal aborted because it is no longer needed. */
  async #keepRenewed(signal: AbortSignal): Promise<boolean> {
    let pauseMs = this.#renewPeriodMs;
    while (!signal.aborted) {
      await sleep(this.#options.clock, pauseMs, signal);
      if (signal.aborted) return false;
      // A process that resumes after its deadline does not renew, because others may have acted meanwhile.
      const leftMs = this.#renewedAt ? this.#renewDeadlineMs - this.#sinceRenewal(this.#renewedAt) : 0;
      if (leftMs <= 0) return true;
      pauseMs = (await this.#tryRenew(leftMs, signal)) ? this.#renewPeriodMs : this.#retryPeriodMs;
      if (!this.isLeader) return true;
    }
    return false;
  }

  /**
   * Tries once, with a timeout, to acquire or renew the Lease. Returns whether this process holds it and can use it.
   */
  async #tryRenew(leftMs: number, signal: AbortSignal): Promise<boolean> {
    const { clock, logger, name } = this.#options;
    const sent: Instant = { monotonic: clock.monotonic(), wall: clock.now() };
    const timeoutMs = Math.min(leftMs, this.#renewDeadlineMs / RENEWALS_PER_DEADLINE);
    try {
      const outcome = await this.#lease.acquireOrRenew({ signal, timeoutMs });
      // An answer after the previous renewal's deadline does not tell whether another candidate led in between.
      if (outcome === "taken" || !this.isLeader) this.#unconfirmed = true;
      if (outcome !== "others" && (await this.#isConfirmed(signal))) {
        this.#renewedAt = sent;
        return this.isLeader;
      }
      this.#renewedAt = undefined;
    } catch (error) {
      // Two candidates wrote at the same instant, and the API server rejected this one.
      const level = isConflict(error) || isAlreadyExists(error) ? "info" : "warn";
      if (!signal.aborted) logger[level]({ lease: name, error: errorText(error) }, "cannot renew the Lease");
    }
    return false;
  }

  /** @throws what `confirm` throws. */
  async #isConfirmed(signal: AbortSignal): Promise<boolean> {
    const { confirm } = this.#options;
    if (!this.#unconfirmed || !confirm) return true;
    if (await confirm(signal)) {
      this.#unconfirmed = false;
      return true;
    }
    await this.#release();
    return false;
  }

  /**
   * The larger of both clocks: the monotonic clock stops while a machine sleeps, and the wall clock may be set back.
   */
  #sinceRenewal(renewedAt: Instant): number {
    const { clock } = this.#options;
    return Math.max(clock.monotonic() - renewedAt.monotonic, clock.now() - renewedAt.wall);
  }
}

/** `ending`: the work failed while it was already ending, so the failure does not end `run`. */
type WorkResult =
  | { readonly failed: false }
  | { readonly failed: true; readonly error: unknown; readonly ending: boolean };

async function runWork(work: (signal: AbortSignal) => Promise<void> | void, signal: AbortSignal): Promise<WorkResult> {
  try {
    await work(signal);
    return { failed: false };
  } catch (error) {
    return { failed: true, error, ending: signal.aborted };
  }
}
