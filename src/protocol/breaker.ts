import type { Timing } from "../core/timing.ts";

/** So many opened Pods of one template whose container did not start, in a row, stop all claims of that template. */
export const FAILURES_TO_OPEN = 3;

/** One start of a container: of which template, for which claim, and when (monotonic) it was given its session. */
export interface Start {
  readonly hash: string;
  readonly claim: string;
  readonly openedMs: number;
}

/** What finished Pods say of a template that this process has not watched yet. */
export interface EarlierStarts {
  /** Starts that failed in a row, the last of them opened at `openedMs` at the latest; null: none. */
  readonly row: { readonly failures: number; readonly message: string; readonly openedMs: number } | null;
  /** One of its containers served lately. */
  readonly hasServed: boolean;
}

/**
 * Keeps a fault of an image or a template from eating the queue (invariant 10). Counts start failures in a row for each
 * template hash; open, it lets one probe claim through after 1, 2, 4 ... 30 min. A new hash starts closed, and until one
 * of its containers has served, no more claims of it are under way than failures open the breaker: those that started
 * together would all have failed before anybody knew.
 *
 * A row is one of starts, whenever it is known how each came out: what hides behind a tag or a ConfigMap may have changed
 * since a container that serves was started, so it says nothing of later ones.
 *
 * The parked Pods of an earlier template are claimed only if that template was known to serve when it was replaced.
 */
export class Breaker {
  /** By hash: of the current template, and of those that there are Pods of. */
  readonly #templates = new Map<string, TemplateStarts>();
  #hash = "";
  #current: TemplateStarts;
  readonly #timing: Pick<Timing, "probeFirstMs" | "probeMaxMs">;

  constructor(timing: Pick<Timing, "probeFirstMs" | "probeMaxMs">) {
    this.#timing = timing;
    this.#current = new TemplateStarts(timing, 0);
  }

  /**
   * Called with the hash that new Pods are made from. A template of which there are no Pods is forgotten.
   * @param existing hashes of all Pods, asked for when the template changed
   * @returns the hashes of which nothing is known yet, for `resume`
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

  /** What an earlier process knew of a template. */
  resume(hash: string, starts: EarlierStarts, nowMs: number): void {
    this.#templates.get(hash)?.resume(starts, nowMs);
  }

  get isOpen(): boolean {
    return this.#current.isOpen;
  }

  /** A container of this template was seen to serve since it was first watched. */
  get hasServed(): boolean {
    return this.#current.hasServed;
  }

  /** Claims are held back: it is open, or no start since the template was first watched has served. */
  get holdsBack(): boolean {
    return this.#current.holdsBack;
  }

  /** Whether other claims wait for what becomes of this one: it is the probe, or one of the first of a new template. */
  isAwaited(claim: string): boolean {
    return [...this.#templates].some(([hash, starts]) => this.trusts(hash) && starts.isAwaited(claim));
  }

  get failures(): number {
    return this.#current.failures;
  }

  /** kubelet's message of the last failure. */
  get message(): string {
    return this.#current.message;
  }

  get nextProbeAtMs(): number {
    return this.#current.nextProbeAtMs;
  }

  /** Whether Pods of `hash` are claimed at all: of an earlier template only where it was known to serve. */
  trusts(hash: string): boolean {
    return hash === this.#hash || (this.#templates.get(hash)?.isTrusted ?? false);
  }

  /** May a Pod of `hash` be claimed at `nowMs`? A true answer while open is the probe: ask once per claim. */
  admits(hash: string, nowMs: number): boolean {
    return this.trusts(hash) && (this.#templates.get(hash)?.admits(nowMs) ?? false);
  }

  /** A claim of `hash` goes ahead; while open it is the one probe. */
  claimed(hash: string, claim = ""): void {
    this.#templates.get(hash)?.claimed(claim);
  }

  /** The claim came to nothing before a container was asked to start: it says nothing about the template. */
  released(hash: string, claim = ""): void {
    this.#templates.get(hash)?.released(claim);
  }

  /** Starts that failed in a row; null for a template that is not known. */
  failuresOf(hash: string): number | null {
    return this.#templates.get(hash)?.failures ?? null;
  }

  /**
   * A session container began to serve. The probe is tried for its own sake: it counts whatever failed meanwhile.
   * @returns whether claims of its template were held back until now
   */
  succeeded(start: Start): boolean {
    const starts = this.#templates.get(start.hash);
    const heldBack = starts?.holdsBack ?? false;
    starts?.succeeded(start);
    return heldBack;
  }

  /** The fault may be fixed: the next probe is due at once, and the pauses begin small again. */
  probeNow(nowMs: number): void {
    this.#current.probeNow(nowMs);
  }

  /** An opened Pod did not get to serve. */
  failed(start: Start, message: string, nowMs: number): void {
    this.#templates.get(start.hash)?.failed(start, message, nowMs);
  }
}

/** The starts of one template's containers. */
class TemplateStarts {
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
  /** It was known to serve when another template replaced it. */
  #wasGood = false;
  readonly #watchedMs: number;
  /** Claims under way of a template that is not proven yet. */
  readonly #unproven = new Set<string>();
  readonly #timing: Pick<Timing, "probeFirstMs" | "probeMaxMs">;

  constructor(timing: Pick<Timing, "probeFirstMs" | "probeMaxMs">, watchedMs: number) {
    this.#timing = timing;
    this.#watchedMs = watchedMs;
  }

  /** Another template is the current one from now on. */
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

  /** Of a template that was replaced: whether its Pods are claimed. There are no probes of it. */
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
    // Of an earlier process's session nobody knows what failed since.
    if (openedMs < this.#watchedMs) return;
    this.#proven = true;
    this.#unproven.clear();
  }

  failed({ claim, openedMs }: Start, message: string, nowMs: number): void {
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
