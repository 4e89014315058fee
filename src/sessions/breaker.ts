import type { Timing } from "./timing.ts";

/** So many opened Pods of one template whose container did not start, in a row, stop all claims of that template. */
export const FAILURES_TO_OPEN = 3;

/** One start of a container: of which template, for which claim, and when (monotonic) it was given its session. */
export interface Start {
  readonly hash: string;
  readonly claim: string;
  readonly openedMs: number;
}

/**
 * Keeps a fault of an image or a template from eating the queue (invariant 10). Counts start failures in a row for one
 * template hash; open, it lets one probe claim through after 1, 2, 4 ... 30 min. A new hash starts closed, and until one
 * of its containers has served, no more claims of it are under way than failures open the breaker: those that started
 * together would all have failed before anybody knew.
 *
 * A row is one of starts, whenever it is known how each came out: what hides behind a tag or a ConfigMap may have changed
 * since a container that serves was started, so it says nothing of later ones.
 */
export class Breaker {
  #hash = "";
  #failures = 0;
  /** When the newest of them were opened, the oldest first: more than open the breaker need not be told apart. */
  #openings: readonly number[] = [];
  /** When the newest start was opened that served. */
  #servedMs = Number.NEGATIVE_INFINITY;
  #message = "";
  #probes = 0;
  #nextProbeAtMs = 0;
  /** The claim that is the probe: what becomes of others says nothing of it. */
  #probe: string | null = null;
  #served = false;
  /** A start has served that came after the template was first watched. */
  #proven = false;
  #watchedMs = 0;
  /** Claims under way of a template that is not proven yet. */
  readonly #unproven = new Set<string>();
  readonly #timing: Pick<Timing, "probeFirstMs" | "probeMaxMs">;

  constructor(timing: Pick<Timing, "probeFirstMs" | "probeMaxMs">) {
    this.#timing = timing;
  }

  /** Called with the hash that new Pods are made from: a change forgets everything. Returns whether it changed. */
  watch(hash: string, nowMs: number): boolean {
    if (hash === this.#hash) return false;
    this.#hash = hash;
    this.#clear();
    this.#unproven.clear();
    this.#served = false;
    this.#proven = false;
    this.#watchedMs = nowMs;
    this.#servedMs = Number.NEGATIVE_INFINITY;
    return true;
  }

  get isOpen(): boolean {
    return this.#failures >= FAILURES_TO_OPEN;
  }

  /** A container of this template was seen to serve since it was first watched. */
  get hasServed(): boolean {
    return this.#served;
  }

  /** Claims are held back: it is open, or no start since the template was first watched has served. */
  get holdsBack(): boolean {
    return this.isOpen || !this.#proven;
  }

  /** Whether other claims wait for what becomes of this one: it is the probe, or one of the first of a new template. */
  isAwaited(claim: string): boolean {
    return this.#probe === claim || this.#unproven.has(claim);
  }

  get failures(): number {
    return this.#failures;
  }

  /** kubelet's message of the last failure. */
  get message(): string {
    return this.#message;
  }

  get nextProbeAtMs(): number {
    return this.#nextProbeAtMs;
  }

  /** May a Pod of `hash` be claimed at `nowMs`? A true answer while open is the probe: ask once per claim. */
  admits(hash: string, nowMs: number): boolean {
    if (hash !== this.#hash) return true;
    if (this.isOpen) return this.#probe === null && nowMs >= this.#nextProbeAtMs;
    return this.#proven || this.#failures + this.#unproven.size < FAILURES_TO_OPEN;
  }

  /** A claim of `hash` goes ahead; while open it is the one probe. */
  claimed(hash: string, claim = ""): void {
    if (hash !== this.#hash) return;
    if (this.isOpen) this.#probe = claim;
    else if (!this.#proven) this.#unproven.add(claim);
  }

  /** The claim came to nothing before a container was asked to start: it says nothing about the template. */
  released(hash: string, claim = ""): void {
    if (hash !== this.#hash) return;
    this.#unproven.delete(claim);
    if (this.#probe === claim) this.#probe = null;
  }

  /** Starts that failed in a row; null for a template that is not watched. */
  failuresOf(hash: string): number | null {
    return hash === this.#hash ? this.#failures : null;
  }

  /** A row that an earlier process knew of, the last of it opened at `openedMs` at the latest. */
  resume(row: { failures: number; message: string; openedMs: number }, nowMs: number): void {
    this.#failures = row.failures;
    this.#openings = Array.from({ length: Math.min(row.failures, FAILURES_TO_OPEN) }, () => row.openedMs);
    this.#message = row.message;
    if (this.isOpen) this.#putProbeOff(nowMs);
  }

  /** A session container began to serve. The probe is tried for its own sake: it counts whatever failed meanwhile. */
  succeeded({ hash, claim, openedMs }: Start): void {
    if (hash !== this.#hash) return;
    this.#unproven.delete(claim);
    const since = this.#probe === claim ? [] : this.#openings.filter((failedMs) => failedMs > openedMs);
    if (since.length > 0 && since.length === this.#openings.length) return;
    const message = this.#message;
    this.#clear();
    this.#failures = since.length;
    this.#openings = since;
    if (since.length > 0) this.#message = message;
    this.#served = true;
    this.#servedMs = Math.max(this.#servedMs, openedMs);
    // Of an earlier process's session nobody knows what failed since.
    if (openedMs < this.#watchedMs) return;
    this.#proven = true;
    this.#unproven.clear();
  }

  /** An opened Pod did not get to serve. */
  failed({ hash, claim, openedMs }: Start, message: string, nowMs: number): void {
    if (hash !== this.#hash) return;
    // Many sessions may be starting when one of them opens the breaker: those are no probes and put no probe off.
    this.#unproven.delete(claim);
    const isProbe = this.#probe === claim;
    if (!isProbe && openedMs < this.#servedMs) return;
    const counts = isProbe || !this.isOpen;
    this.#failures += 1;
    this.#openings = [...this.#openings, openedMs].sort((one, other) => one - other).slice(-FAILURES_TO_OPEN);
    this.#message = message;
    if (isProbe) this.#probe = null;
    if (this.isOpen && counts) this.#putProbeOff(nowMs);
  }

  #putProbeOff(nowMs: number): void {
    this.#nextProbeAtMs = nowMs + Math.min(this.#timing.probeMaxMs, this.#timing.probeFirstMs * 2 ** this.#probes);
    this.#probes += 1;
  }

  #clear(): void {
    this.#failures = 0;
    this.#openings = [];
    this.#message = "";
    this.#probes = 0;
    this.#nextProbeAtMs = 0;
    this.#probe = null;
  }
}
