import type { Timing } from "./timing.ts";

/** So many opened Pods of one template whose container did not start, in a row, stop all claims of that template. */
export const FAILURES_TO_OPEN = 3;

/**
 * Keeps a fault of an image or a template from eating the queue (invariant 10). Counts start failures in a row for one
 * template hash; open, it lets one probe claim through after 1, 2, 4 ... 30 min. A new hash starts closed, and until one
 * of its containers has served, no more claims of it are under way than failures open the breaker: those that started
 * together would all have failed before anybody knew.
 */
export class Breaker {
  #hash = "";
  #failures = 0;
  #message = "";
  #probes = 0;
  #nextProbeAtMs = 0;
  /** The claim that is the probe: what becomes of others says nothing of it. */
  #probe: string | null = null;
  #served = false;
  /** Claims under way of a template that has not served yet. */
  readonly #unproven = new Set<string>();
  readonly #timing: Pick<Timing, "probeFirstMs" | "probeMaxMs">;

  constructor(timing: Pick<Timing, "probeFirstMs" | "probeMaxMs">) {
    this.#timing = timing;
  }

  /** Called with the hash that new Pods are made from: a change forgets everything. Returns whether it changed. */
  watch(hash: string): boolean {
    if (hash === this.#hash) return false;
    this.#hash = hash;
    this.#clear();
    this.#unproven.clear();
    this.#served = false;
    return true;
  }

  get isOpen(): boolean {
    return this.#failures >= FAILURES_TO_OPEN;
  }

  /** A container of this template has served since it was first watched. */
  get hasServed(): boolean {
    return this.#served;
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
    return this.#served || this.#failures + this.#unproven.size < FAILURES_TO_OPEN;
  }

  /** A claim of `hash` goes ahead; while open it is the one probe. */
  claimed(hash: string, claim = ""): void {
    if (hash !== this.#hash) return;
    if (this.isOpen) this.#probe = claim;
    else if (!this.#served) this.#unproven.add(claim);
  }

  /** The claim came to nothing before a container was asked to start: it says nothing about the template. */
  released(hash: string, claim = ""): void {
    if (hash !== this.#hash) return;
    this.#unproven.delete(claim);
    if (this.#probe === claim) this.#probe = null;
  }

  /** A session container of `hash` began to serve. */
  succeeded(hash: string): void {
    if (hash !== this.#hash) return;
    this.#clear();
    this.#unproven.clear();
    this.#served = true;
  }

  /** An opened Pod of `hash` did not get to serve. */
  failed(hash: string, message: string, nowMs: number, claim = ""): void {
    if (hash !== this.#hash) return;
    // Many sessions may be starting when one of them opens the breaker: those are no probes and put no probe off.
    this.#unproven.delete(claim);
    const isProbe = this.#probe === claim;
    const counts = isProbe || !this.isOpen;
    this.#failures += 1;
    this.#message = message;
    if (isProbe) this.#probe = null;
    if (!this.isOpen || !counts) return;
    this.#nextProbeAtMs = nowMs + Math.min(this.#timing.probeMaxMs, this.#timing.probeFirstMs * 2 ** this.#probes);
    this.#probes += 1;
  }

  #clear(): void {
    this.#failures = 0;
    this.#message = "";
    this.#probes = 0;
    this.#nextProbeAtMs = 0;
    this.#probe = null;
  }
}
