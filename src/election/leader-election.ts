import type { Random } from "../core/backoff.ts";
import { type Clock, sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { isAlreadyExists, isConflict, LeadershipLostError } from "../kube/errors.ts";
import type { Logger } from "../observe/logger.ts";
import type { Metrics } from "../observe/metrics.ts";
import { type LeaseAges, type LeaseClient, LeaseRecord } from "./lease-record.ts";

/** As client-go and controller-runtime have them: a leader that vanished is replaced in 15 to 20 s. */
export const LEASE_DURATION_MS = 15_000;
export const RENEW_DEADLINE_MS = 10_000;
export const RETRY_PERIOD_MS = 2_000;

/** Candidates wait one to this many times the retry period, so that they do not all try at the same instant. */
export const CANDIDATE_SPREAD = 2.2;

/** A renewal without an answer may not eat the whole renew deadline: two fit into it. */
const RENEWALS_PER_DEADLINE = 2;

/** A release is a courtesy to the next leader: not worth more waiting at the end of a process. */
const RELEASE_TIMEOUT_MS = 2_000;

export interface LeaderElectorOptions {
  /** Not fenced: it is what fences. */
  readonly client: LeaseClient;
  readonly namespace: string;
  /** Of the Lease. */
  readonly name: string;
  /** Unique to this process: two of one identity would both lead. */
  readonly identity: string;
  /** How long others leave a Lease alone that is not renewed. */
  readonly leaseDurationMs?: number;
  /** After so long without a renewal the leader stops acting; below the lease duration. */
  readonly renewDeadlineMs?: number;
  readonly retryPeriodMs?: number;
  /** From one renewal to the next while all is well; the retry period. */
  readonly renewPeriodMs?: number;
  /** On the Lease. */
  readonly labels?: Readonly<Record<string, string>>;
  /** What was seen of Leases elsewhere in the process. */
  readonly ages?: LeaseAges;
  /** Resolves when a candidate should try (again); unset: at once, then after a retry period and some more. */
  readonly turn?: (signal: AbortSignal) => Promise<void>;
  /**
   * Asked before the fence opens: after each taking of the Lease, and after a renewal that came too late to know what
   * others did meanwhile. False: the Lease is released. What it throws leaves that open: it is asked again after the next
   * renewal.
   */
  readonly confirm?: (signal: AbortSignal) => Promise<boolean>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics?: Metrics | undefined;
  readonly random?: Random;
  /**
   * Leads until the signal aborts. A promise is waited for before the Lease is released or sought again, so that two
   * terms of one process never overlap; its rejection ends the term and `run`. `fence` is `LeaderElector.fence` for this
   * term alone: what outlives it, since the promise did not wait for it, never passes again.
   */
  readonly onStartedLeading: (signal: AbortSignal, fence: () => void) => Promise<void> | void;
  /** Once a term: at once when leadership is lost, after the release at a clean end. */
  readonly onStoppedLeading?: () => void;
}

interface Instant {
  readonly monotonic: number;
  readonly wall: number;
}

/**
 * Leader election by one Lease.
 *
 * Guaranteed: `fence` passes only within the renew deadline after the last successful renewal was sent, by the larger of
 * monotonic and wall time, so a process that was paused or suspended does not act when it wakes up. Others take the
 * Lease only after its duration on their own monotonic clocks, counted from when they saw it change. Not guaranteed:
 * anything about a request that passed the fence and is under way; clocks that run at different speeds.
 */
export class LeaderElector {
  readonly #options: LeaderElectorOptions;
  readonly #leaseDurationMs: number;
  readonly #renewDeadlineMs: number;
  readonly #retryPeriodMs: number;
  readonly #renewPeriodMs: number;
  readonly #lease: LeaseRecord;
  /** Nobody has said yet that the Lease, though it is ours, may be used. */
  #unconfirmed = false;
  #term: AbortController | undefined;
  /** When the renewal that holds was sent; undefined while not leading. */
  #renewedAt: Instant | undefined;

  constructor(options: LeaderElectorOptions) {
    this.#options = options;
    this.#leaseDurationMs = options.leaseDurationMs ?? LEASE_DURATION_MS;
    this.#renewDeadlineMs = options.renewDeadlineMs ?? RENEW_DEADLINE_MS;
    this.#retryPeriodMs = options.retryPeriodMs ?? RETRY_PERIOD_MS;
    this.#renewPeriodMs = options.renewPeriodMs ?? this.#retryPeriodMs;
    if (this.#leaseDurationMs <= this.#renewDeadlineMs || this.#renewDeadlineMs <= this.#retryPeriodMs) {
      throw new RangeError("leader election wants lease duration > renew deadline > retry period");
    }
    this.#lease = new LeaseRecord({ ...options, leaseDurationMs: this.#leaseDurationMs });
    options.metrics?.leader.set({ lease: options.name }, 0);
  }

  /** Whether this process may act now. */
  get isLeader(): boolean {
    return this.#renewedAt !== undefined && this.#sinceRenewal(this.#renewedAt) < this.#renewDeadlineMs;
  }

  /** Who holds the Lease, as last seen; empty for nobody. */
  get holder(): string {
    return this.#lease.holder;
  }

  /** Leads, or still ends what it began while it did. */
  get isBusy(): boolean {
    return this.#term !== undefined;
  }

  /** Ends the term in order: its work ends, then the Lease is released for somebody else. */
  stepDown(): void {
    this.#term?.abort(new LeadershipLostError(`Lease ${this.#options.name} is given up`));
  }

  /** Throws LeadershipLostError unless this process surely holds the Lease. Call before every outgoing write. */
  fence(): void {
    const { name } = this.#options;
    if (!this.#renewedAt) throw new LeadershipLostError(`not the leader (Lease ${name})`);
    const sinceMs = this.#sinceRenewal(this.#renewedAt);
    if (sinceMs < this.#renewDeadlineMs) return;
    throw new LeadershipLostError(
      `Lease ${name} was last renewed ${Math.round(sinceMs)} ms ago: this process must not act`,
    );
  }

  /** Seeks the Lease, leads, and seeks it again when it was lost, until the signal aborts. Rejects as `onStartedLeading` does. */
  async run(signal: AbortSignal): Promise<void> {
    const turn = this.#options.turn ?? this.#turns();
    try {
      while (!signal.aborted) {
        await turn(signal);
        if (signal.aborted) return;
        if (await this.#tryRenew(this.#renewDeadlineMs, signal)) await this.#lead(signal);
      }
    } finally {
      // Taken, but never confirmed.
      if (this.#lease.isOurs) await this.#release();
    }
  }

  /** At once, then with pauses. */
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
    // `renewing` outlives the term by the time its work needs to end: that work is fenced by the same Lease.
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
      (error: unknown) => logger.info({ lease: name, error: errorText(error) }, "the Lease was not released"),
    );
  }

  #stopped(onStoppedLeading: (() => void) | undefined): void {
    try {
      onStoppedLeading?.();
    } catch (error) {
      this.#options.logger.error({ error: errorText(error) }, "onStoppedLeading threw");
    }
  }

  /** Returns true when the Lease was lost, false when the signal said that it is not needed any more. */
  async #keepRenewed(signal: AbortSignal): Promise<boolean> {
    let pauseMs = this.#renewPeriodMs;
    while (!signal.aborted) {
      await sleep(this.#options.clock, pauseMs, signal);
      if (signal.aborted) return false;
      // A process that wakes up after its deadline does not renew: for all it knows others have acted meanwhile.
      const leftMs = this.#renewedAt ? this.#renewDeadlineMs - this.#sinceRenewal(this.#renewedAt) : 0;
      if (leftMs <= 0) return true;
      pauseMs = (await this.#tryRenew(leftMs, signal)) ? this.#renewPeriodMs : this.#retryPeriodMs;
      if (!this.isLeader) return true;
    }
    return false;
  }

  /** One attempt to acquire or renew the Lease, bounded in time. Returns whether it is ours now, to be used. */
  async #tryRenew(leftMs: number, signal: AbortSignal): Promise<boolean> {
    const { clock, logger, name } = this.#options;
    const sent: Instant = { monotonic: clock.monotonic(), wall: clock.now() };
    const timeoutMs = Math.min(leftMs, this.#renewDeadlineMs / RENEWALS_PER_DEADLINE);
    try {
      const outcome = await this.#lease.acquireOrRenew({ signal, timeoutMs });
      // An answer that came after the deadline of the renewal before says nothing of the time in between.
      if (outcome === "taken" || !this.isLeader) this.#unconfirmed = true;
      if (outcome !== "others" && (await this.#isConfirmed(signal))) {
        this.#renewedAt = sent;
        return this.isLeader;
      }
      this.#renewedAt = undefined;
    } catch (error) {
      // Two candidates at the same instant: one of them is told so.
      const level = isConflict(error) || isAlreadyExists(error) ? "info" : "warn";
      if (!signal.aborted) logger[level]({ lease: name, error: errorText(error) }, "the Lease was not renewed");
    }
    return false;
  }

  /** Throws as `confirm` does. */
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

  /** The larger of both clocks: the monotonic one stands still while a machine sleeps, the other may be set back. */
  #sinceRenewal(renewedAt: Instant): number {
    const { clock } = this.#options;
    return Math.max(clock.monotonic() - renewedAt.monotonic, clock.now() - renewedAt.wall);
  }
}

/** `ending`: the work failed while it was being ended, which is no reason to end more. */
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
