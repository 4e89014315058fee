import type { Timing } from "../core/timing.ts";

/** After this many failed starts in a row of one template's opened Pods, no Pod of that template is claimed. */
export const FAILURES_TO_OPEN = 3;

/** One start of a container: its template's hash, its claim, and when (monotonic) it was given its session. */
export interface Start {
  readonly hash: string;
  readonly claim: string;
  readonly openedMs: number;
}

/** What finished Pods tell about a template that this process has not watched yet. */
export interface EarlierStarts {
  /** Starts that failed in a row, the last one opened at `openedMs` or earlier; null: none. */
  readonly row: { readonly failures: number; readonly message: string; readonly openedMs: number } | null;
  /** One of its containers served recently. */
  readonly hasServed: boolean;
}

/**
 * Keeps a broken image or template from using up the queue (invariant 10). The breaker counts start failures in a row
 * for each template hash. While it is open, it lets one probe claim through after 1, 2, 4 ... 30 min. A new hash starts
 * closed. Until one of its containers has served, at most `FAILURES_TO_OPEN` of its claims are under way: more would
 * all fail before the first failure is known.
 *
 * Failures are in a row by when their containers were started, not by when the outcome became known. The content behind
 * a tag or a ConfigMap may change, so a container that serves proves nothing about containers that started later.
 *
 * The parked Pods of an earlier template are claimed only if that template was known to serve when it was replaced.
 */
export class Breaker {
  /** By hash: the current template, and every template that still has Pods. */
  readonly #templates = new Map<string, TemplateStarts>();
  #hash = "";
  #current: TemplateStarts;
  readonly #timing: Pick<Timing, "probeFirstMs" | "probeMaxMs">;

  constructor(timing: Pick<Timing, "probeFirstMs" | "probeMaxMs">) {
    this.#timing = timing;
    this.#current = new TemplateStarts(timing, 0);
  }

  /**
   * Called with the hash that new Pods are made from. A template that has no Pods is forgotten.
   * @param existing returns the hashes of all Pods; called only if the template changed
   * @returns the hashes that are new to the breaker, for `resume`
   */
  watch(hash: string, nowMs: number, existing: () => Iterable<string> = () => []): string[] {
    if (hash === this.#hash) return [];
    this.#current.replaced();
    const hashes = new Set([hash, ...existing()]);
    for (const each of this.#templates.keys()) if (!hashes.has(each)) this.#templates.delete(each);
    const found = [...hashes].filter((each) => !this.#templates.has(each));
    for (const each of found) this.#templates.set(each, new TemplateStarts(this.#timing, nowMs));
    this.#hash = hash;
    this.#current = this.#templates.get(hash) ?? this.#current;
    return found;
  }

  /** Restores what an earlier process knew about a template. */
  resume(hash: string, starts: EarlierStarts, nowMs: number): void {
    this.#templates.get(hash)?.resume(starts, nowMs);
  }

  get isOpen(): boolean {
    return this.#current.isOpen;
  }

  /** Whether a container of this template was seen to serve since the template was first watched. */
  get hasServed(): boolean {
    return this.#current.hasServed;
  }

  /** Whether claims are held back: the breaker is open, or no container started since the first watch has served. */
  get holdsBack(): boolean {
    return this.#current.holdsBack;
  }

  /**
   * Whether other claims wait for the outcome of this one: it is the probe, or one of a new template's first claims.
   */
  isAwaited(claim: string): boolean {
    return [...this.#templates].some(([hash, starts]) => this.trusts(hash) && starts.isAwaited(claim));
  }

  get failures(): number {
    return this.#current.failures;
  }

  /** The kubelet's message about the last failure. */
  get message(): string {
    return this.#current.message;
  }

  get nextProbeAtMs(): number {
    return this.#current.nextProbeAtMs;
  }

  /** Whether Pods of `hash` may be claimed at all; those of an earlier template only if it was known to serve. */
  trusts(hash: string): boolean {
    return hash === this.#hash || (this.#templates.get(hash)?.isTrusted ?? false);
  }

  /** Whether a Pod of `hash` may be claimed at `nowMs`. While the breaker is open, true admits the one probe. */
  admits(hash: string, nowMs: number): boolean {
    return this.trusts(hash) && (this.#templates.get(hash)?.admits(nowMs) ?? false);
  }

  /** A claim of `hash` begins; while the breaker is open, it is the one probe. */
  claimed(hash: string, claim = ""): void {
    this.#templates.get(hash)?.claimed(claim);
  }

  /** The claim ended before its container was to start: it says nothing about the template. */
  released(hash: string, claim = ""): void {
    this.#templates.get(hash)?.released(claim);
  }

  /** Starts that failed in a row; null for an unknown template. */
  failuresOf(hash: string): number | null {
    return this.#templates.get(hash)?.failures ?? null;
  }

  /**
   * A session container began to serve. The probe's success counts whatever failed in the meantime.
   * @returns whether claims of its template were held back until now
   */
  succeeded(start: Start): boolean {
    const starts = this.#templates.get(start.hash);
    const heldBack = starts?.holdsBack ?? false;
    starts?.succeeded(start);
    return heldBack;
  }

  /** The fault may be fixed: the next probe is due immediately, and the pauses start short again. */
  probeNow(nowMs: number): void {
    this.#current.probeNow(nowMs);
  }

  /** An opened Pod ended before it served. */
  failed(start: Start, message: string, nowMs: number): void {
    this.#templates.get(start.hash)?.failed(start, message, nowMs);
  }
}

/** The starts of one template's containers. */
class TemplateStarts {
  #failures = 0;
  /** When the latest failed starts were opened, oldest first; at most as many as open the breaker. */
  #openings: readonly number[] = [];
  /** When the latest start that served was opened. */
  #servedMs = Number.NEGATIVE_INFINITY;
  #message = "";
  #probes = 0;
  #nextProbeAtMs = 0;
  /** The name of the claim that is the probe: only its own outcome decides on the next probe. */
  #probe: string | null = null;
  #served = false;
  /** A container that was started after the template was first watched has served. */
  #proven = false;
  /** The template was known to serve when another one replaced it. */
  #wasGood = false;
  readonly #watchedMs: number;
  /** The claims under way while the template is not proven. */
  readonly #unproven = new Set<string>();
  readonly #timing: Pick<Timing, "probeFirstMs" | "probeMaxMs">;

  constructor(timing: Pick<Timing, "probeFirstMs" | "probeMaxMs">, watchedMs: number) {
    this.#timing = timing;
    this.#watchedMs = watchedMs;
  }

  /** Another template is current from now on. */
  replaced(): void {
    this.#wasGood = this.#proven && !this.isOpen;
  }

  resume({ row, hasServed }: EarlierStarts, nowMs: number): void {
    this.#wasGood = hasServed;
    if (row === null) return;
    this.#failures = row.failures;
    this.#openings = Array.from({ length: Math.min(row.failures, FAILURES_TO_OPEN) }, () => row.openedMs);
    this.#message = row.message;
    if (this.isOpen) this.#putProbeOff(nowMs);
  }

  get isOpen(): boolean {
    return this.#failures >= FAILURES_TO_OPEN;
  }

  /** Whether the Pods of a replaced template may be claimed. A replaced template gets no probes. */
  get isTrusted(): boolean {
    return this.#wasGood && !this.isOpen;
  }

  get hasServed(): boolean {
    return this.#served;
  }

  get holdsBack(): boolean {
    return this.isOpen || !this.#proven;
  }

  isAwaited(claim: string): boolean {
    return this.#probe === claim || this.#unproven.has(claim);
  }

  get failures(): number {
    return this.#failures;
  }

  get message(): string {
    return this.#message;
  }

  get nextProbeAtMs(): number {
    return this.#nextProbeAtMs;
  }

  admits(nowMs: number): boolean {
    if (this.isOpen) return this.#probe === null && nowMs >= this.#nextProbeAtMs;
    return this.#proven || this.#failures + this.#unproven.size < FAILURES_TO_OPEN;
  }

  claimed(claim: string): void {
    if (this.isOpen) this.#probe = claim;
    else if (!this.#proven) this.#unproven.add(claim);
  }

  released(claim: string): void {
    this.#unproven.delete(claim);
    if (this.#probe === claim) this.#probe = null;
  }

  succeeded({ claim, openedMs }: Start): void {
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
    // An earlier process opened this session, and failures since then are unknown.
    if (openedMs < this.#watchedMs) return;
    this.#proven = true;
    this.#unproven.clear();
  }

  failed({ claim, openedMs }: Start, message: string, nowMs: number): void {
    // Other sessions may be starting when one opens the breaker. They are no probes, so they don't postpone the next
    // one.
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

  probeNow(nowMs: number): void {
    this.#nextProbeAtMs = nowMs;
    this.#probes = 0;
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
