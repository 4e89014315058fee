import { Backoff } from "../core/backoff.ts";
import type { Timing } from "../core/timing.ts";

/** After this many failed starts in a row of one template, no Pod of that template is claimed. */
export const FAILURES_TO_OPEN = 3;

/** Of one session, this many of them count while the template is known to serve: its own files may be the cause. */
const MOST_OF_ONE_SESSION = FAILURES_TO_OPEN - 1;

/** Whose start it is. */
export interface Starter {
  readonly session: string;
  /** The session wakes in its own Pod. */
  readonly wakes: boolean;
}

/** One start of a container: its template's hash, its claim, and when (monotonic) it was given its session. */
export interface Start extends Starter {
  readonly hash: string;
  readonly claim: string;
  readonly openedMs: number;
}

/** A start that failed. */
interface Failure extends Starter {
  readonly openedMs: number;
}

const NO_FAILURE = { message: "", isRefused: false };

/** Any new session. */
const ANY_NEW: Starter = { session: "", wakes: false };

/**
 * What a sleeping session's next work item does. `moves`: it starts in a Pod of the current template, because the own
 * Pod's template did not start sessions when it was replaced.
 */
export type Waking = "wakes" | "waits" | "moves";

/** What finished Pods tell about a template that this process has not watched yet. */
export interface EarlierStarts {
  /** Starts that failed in a row, the last one opened at `openedMs` or earlier; null: none. */
  readonly row: { readonly failures: number; readonly message: string; readonly openedMs: number } | null;
  /** One of its containers served recently. */
  readonly hasServed: boolean;
}

/**
 * Keeps a broken image or template from using up the queue (invariant 10). It counts start failures in a row for each
 * template hash. After `FAILURES_TO_OPEN`, starts are failing: one probe claim is admitted after 1, 2, 4 ... 30 min. A
 * new hash starts without failures. Until one of its containers has served, at most `FAILURES_TO_OPEN` of its claims are
 * under way: more would all fail before the first failure is known.
 *
 * Failures are in a row by when their containers were started, not by when the outcome became known. The content behind
 * a tag or a ConfigMap may change, so a container that serves proves nothing about containers that started later.
 *
 * **By session.** Failures of two sessions or more are the template's, and hold every session. Those of one session are
 * its own: they hold none, and end one of its work items each. Only while no session of the template has served, they
 * hold that one session, because nothing else shows whether the template is broken. Another session is then the test,
 * and is claimed at once.
 *
 * **Sessions that wake** in their own Pod ask like new ones. One that serves shows that others can wake, but nothing about
 * new Pods: its image was pulled earlier. An image that can't be pulled holds none of them: Pods only sleep after they
 * waited in a shell or program, so the pull fails before a claim, and counts for the creation of Pods.
 *
 * **Pods of an earlier template.** Its parked Pods are claimed only if it was known to serve when it was replaced. Its
 * sleeping sessions wake in their Pods, unless their template is held. Then they move to Pods of the current template:
 * until that one has served, one a minute, because a move may cost a session its files.
 */
export class Starts {
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
   * @returns the hashes that are new, for `resume`
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

  /** Whether claims are held back: starts are failing, or no container started since the first watch has served. */
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

  /** The message of the last failure. */
  get message(): string {
    return this.#current.message;
  }

  /** Whether requests of the operator were refused at the last failure, so that its program had no part in it. */
  get isRefused(): boolean {
    return this.#current.isRefused;
  }

  /** The only session that is held; null: all are, or none is. */
  get heldSession(): string | null {
    return this.#current.heldSession;
  }

  get nextProbeAtMs(): number {
    return this.#current.nextProbeAtMs;
  }

  /** Whether Pods of `hash` may be claimed at all; those of an earlier template only if it was known to serve. */
  trusts(hash: string): boolean {
    return hash === this.#hash || (this.#templates.get(hash)?.isTrusted ?? false);
  }

  /**
   * Whether a new session may claim a Pod of `hash` at `nowMs`. While it is held, true admits the one probe.
   * @param session by default any that is not held alone
   */
  admits(hash: string, nowMs: number, session?: string): boolean {
    const starter = session === undefined ? null : { session, wakes: false };
    return this.trusts(hash) && (this.#templates.get(hash)?.admits(starter, nowMs) ?? false);
  }

  /** What a session that sleeps in a Pod of `hash` does with its next work item at `nowMs`. */
  wakes(hash: string, session: string, nowMs: number): Waking {
    const starts = this.#templates.get(hash);
    const isHeld = starts?.isHeld({ session, wakes: true }) ?? false;
    if (hash !== this.#hash && isHeld) return this.#current.admitsMove(session, nowMs) ? "moves" : "waits";
    return (starts?.admits({ session, wakes: true }, nowMs) ?? true) ? "wakes" : "waits";
  }

  /** A session gives up its Pod of a held earlier template, for one of the current template. */
  moved(nowMs: number): void {
    this.#current.moved(nowMs);
  }

  /** Whether the last starts of this template failed, whether or not that holds any session. */
  isFailing(hash: string): boolean {
    return (this.#templates.get(hash)?.failures ?? 0) > 0;
  }

  /** A claim of `hash` begins. If its session is held, it is the one probe. */
  claimed(hash: string, claim = "", starter = ANY_NEW): void {
    this.#templates.get(hash)?.claimed(claim, starter);
  }

  /** The claim ended before its container was to start: it says nothing about the template. */
  released(hash: string, claim = ""): void {
    this.#templates.get(hash)?.released(claim);
  }

  /** Starts that failed in a row and count as the template's, for `resume`; null for an unknown template. */
  failuresOf(hash: string): number | null {
    return this.#templates.get(hash)?.counted ?? null;
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

  /** An opened Pod ended before it served. */
  failed(start: Start, message: string, nowMs: number, isRefused = false): void {
    this.#templates.get(start.hash)?.failed(start, { message, isRefused }, nowMs);
  }
}

/** The starts of one template's containers. */
class TemplateStarts {
  /** All failed starts in a row. */
  #failures = 0;
  /** Those that count, oldest first: a few of each session, and at most `FAILURES_TO_OPEN` in all. */
  #row: readonly Failure[] = [];
  /** When the latest start that served was opened: of a new session, and of one that woke. */
  #servedMs = Number.NEGATIVE_INFINITY;
  #wokeMs = Number.NEGATIVE_INFINITY;
  /** The last of them. */
  #last = NO_FAILURE;
  readonly #probes: Backoff;
  /** The name of the claim that is the probe: only its own outcome decides on the next probe. */
  #probe: string | null = null;
  #served = false;
  /** A new session that was started after the template was first watched has served. */
  #proven = false;
  /** The template was known to serve when another one replaced it. */
  #wasGood = false;
  /** When a session last moved to a Pod of this template. */
  #movedMs = Number.NEGATIVE_INFINITY;
  readonly #watchedMs: number;
  /** The claims under way while the template is not proven. */
  readonly #unproven = new Set<string>();
  readonly #timing: Pick<Timing, "probeFirstMs" | "probeMaxMs">;

  constructor(timing: Pick<Timing, "probeFirstMs" | "probeMaxMs">, watchedMs: number) {
    this.#timing = timing;
    this.#probes = new Backoff({ baseMs: timing.probeFirstMs, maxMs: timing.probeMaxMs, spread: 0 });
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
    const failure = { ...ANY_NEW, openedMs: row.openedMs };
    this.#row = Array.from({ length: Math.min(row.failures, FAILURES_TO_OPEN) }, () => failure);
    this.#last = { message: row.message, isRefused: false };
    if (this.isOpen) this.#probes.postpone(nowMs);
  }

  /** Whether new sessions are held, or one of them. */
  get isOpen(): boolean {
    return this.#isOpenFor(false);
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

  get counted(): number {
    return this.isOpen ? this.#failures : this.#row.length;
  }

  get heldSession(): string | null {
    return this.isOpen && this.#row.length < FAILURES_TO_OPEN ? (this.#row[0]?.session ?? null) : null;
  }

  get message(): string {
    return this.#last.message;
  }

  get isRefused(): boolean {
    return this.#last.isRefused;
  }

  get nextProbeAtMs(): number {
    return this.#probes.untilMs;
  }

  /** Whether this start may only be a probe. */
  isHeld({ session, wakes }: Starter): boolean {
    return this.#isOpenFor(wakes) && (this.#row.length >= FAILURES_TO_OPEN || this.heldSession === session);
  }

  /** @param starter null: any new session */
  admits(starter: Starter | null, nowMs: number): boolean {
    const { session, wakes } = starter ?? { session: null, wakes: false };
    if (this.isHeld({ session: session ?? "", wakes })) return this.#probe === null && nowMs >= this.#probes.untilMs;
    return this.#isProvenFor(wakes) || this.#rowFor(wakes).length + this.#unproven.size < FAILURES_TO_OPEN;
  }

  /** Whether a session may give up its Pod for one of this template. */
  admitsMove(session: string, nowMs: number): boolean {
    if (!this.admits({ session, wakes: false }, nowMs)) return false;
    return this.#proven || nowMs >= this.#movedMs + this.#timing.probeFirstMs;
  }

  moved(nowMs: number): void {
    this.#movedMs = nowMs;
  }

  claimed(claim: string, starter: Starter): void {
    if (this.isHeld(starter)) this.#probe = claim;
    else if (!this.#isProvenFor(starter.wakes)) this.#unproven.add(claim);
  }

  released(claim: string): void {
    this.#unproven.delete(claim);
    if (this.#probe === claim) this.#probe = null;
  }

  succeeded(start: Start): void {
    this.#unproven.delete(start.claim);
    const isProbe = this.#probe === start.claim;
    if (start.wakes) this.#woke(start, isProbe);
    else this.#startedNew(start, isProbe);
  }

  #startedNew({ openedMs }: Start, isProbe: boolean): void {
    const since = isProbe ? [] : this.#row.filter((failure) => failure.openedMs > openedMs);
    if (since.length > 0 && since.length === this.#row.length) return;
    this.#keep(since);
    this.#served = true;
    this.#servedMs = Math.max(this.#servedMs, openedMs);
    // An earlier process opened this session, and failures since then are unknown.
    if (openedMs < this.#watchedMs) return;
    this.#proven = true;
    this.#unproven.clear();
  }

  /** A session that woke serves. New sessions still don't start, if some have failed. */
  #woke({ openedMs }: Start, isProbe: boolean): void {
    if (isProbe) this.#probe = null;
    this.#served = true;
    this.#wokeMs = Math.max(this.#wokeMs, openedMs, ...(isProbe ? this.#row.map((failure) => failure.openedMs) : []));
    this.#keep(this.#row.filter((failure) => !failure.wakes || failure.openedMs > this.#wokeMs));
  }

  failed(start: Start, last: typeof NO_FAILURE, nowMs: number): void {
    const { claim, openedMs, session, wakes } = start;
    // Other sessions may be starting when the third failure is known. They are no probes, so they don't postpone the next
    // one.
    this.#unproven.delete(claim);
    const isProbe = this.#probe === claim;
    if (!isProbe && openedMs < (wakes ? Math.max(this.#servedMs, this.#wokeMs) : this.#servedMs)) return;
    const counts = isProbe || !this.isHeld(start);
    this.#failures += 1;
    const others = this.#row.filter((failure) => failure.session !== session);
    const own = [...this.#row.filter((failure) => failure.session === session), start];
    this.#row = [...others, ...own.sort(byOpening).slice(-MOST_OF_ONE_SESSION)]
      .sort(byOpening)
      .slice(-FAILURES_TO_OPEN);
    this.#last = last;
    if (isProbe) this.#probe = null;
    if (this.isOpen && counts) this.#probes.postpone(nowMs);
  }

  /** The failures that count for new sessions, or for those that wake. */
  #rowFor(wakes: boolean): readonly Failure[] {
    return wakes ? this.#row.filter(({ openedMs }) => openedMs > this.#wokeMs) : this.#row;
  }

  #isOpenFor(wakes: boolean): boolean {
    const { length } = this.#rowFor(wakes);
    if (length >= FAILURES_TO_OPEN) return true;
    return length > 0 && this.#failures >= FAILURES_TO_OPEN && !this.#isProvenFor(wakes);
  }

  #isProvenFor(wakes: boolean): boolean {
    return this.#proven || (wakes && this.#wokeMs >= this.#watchedMs);
  }

  /** Ends the row of failures, except for these. */
  #keep(row: readonly Failure[]): void {
    if (row.length > 0 && row.length === this.#row.length) return;
    if (row.length === 0) this.#last = NO_FAILURE;
    this.#failures = row.length;
    this.#row = row;
    this.#probes.reset();
    this.#probe = null;
  }
}

function byOpening(one: Failure, other: Failure): number {
  return one.openedMs - other.openedMs;
}
