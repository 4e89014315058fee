import { type Clock, SECOND_MS, type Timer } from "../core/clock.ts";
import type { Metrics } from "../observe/metrics.ts";

/** A session began to run, says somebody who may be wrong, late, or silent. It names no environment. */
export interface Hint {
  readonly sessionId: string;
  readonly workspaceId: string | null;
}

/** What is asked of an Environment. */
export interface HintedEnvironment {
  readonly labels: { readonly namespace: string; readonly environment: string };
  /** `spec.api.workspaceId`. */
  readonly workspaceId: () => string | undefined;
  /** Whether a Pod here runs this session: then its worker hears of everything by itself. */
  readonly runs: (sessionId: string) => boolean;
  /** Looks at the queue, now and once. */
  readonly look: () => void;
}

/** An Environment's part in the hints; told what its loops find. */
export interface HintedQueue {
  /** Whether hints tell of its work, so that it may look at its queue rarely. */
  readonly isTrusted: boolean;
  /** It looks at its queue. */
  looks(): void;
  /** Statistics show that there is work, or none. */
  sees(work: boolean): void;
  /** It found an item. */
  found(item: { readonly workId: string; readonly sessionId: string }): void;
  /** A claim of this session is over: what was said of it meanwhile may have been about its next item. */
  over(sessionId: string): void;
  /** It is served no longer. */
  leave(): void;
}

/**
 * So long before work is noticed, or after its item is found, the hint of it may come. What comes sooner than the item is in
 * the queue, or later, is of no use.
 */
export const FRESH_MS = 30_000;
/**
 * Items in a row that came with their hints before an Environment looks rarely: of a sender that reaches this process every
 * other time only, few are taken for reliable.
 */
export const PROVEN_AFTER = 3;
/** Without any delivery for so long the endpoint is taken for switched off. The platform does that by itself after failures. */
export const ALIVE_MS = 24 * 60 * 60_000;
/**
 * A hint may be earlier than its item: who looked sooner than that after one, and found nothing, looks once more then. Longer
 * after it an item would hardly start at once.
 */
export const EARLY_MS = 5_000;
/** A session that no Environment here had an item of, then either, is somebody else's; so long it is not looked for again. */
const ELSEWHERE_MS = 10 * 60_000;
/**
 * Looks a second for sessions that nobody knows yet, and so many at once: as many as all idle Environments make together
 * where there are no hints (docs/request-budget.md). A flood of hints cannot cost more.
 */
export const LOOKS_PER_SECOND = 10;
/** Sessions that are remembered, some 300 bytes each. One that is forgotten is looked for everywhere once more. */
const MAX_SESSIONS = 20_000;
/** Workspaces that are told apart; one receiver has the endpoints of a few. */
const MAX_WORKSPACES = 64;
/** What ids of the platform's workspaces begin with. What does not is another notation, and compares with nothing. */
const WORKSPACE_PREFIX = "wrkspc_";

interface Session {
  owner: Member | null;
  hintedMs: number;
  /** Everybody looked for it, and nobody found it. */
  elsewhereMs: number;
}

/** A session that is looked for, since nobody knows it. */
interface Sought {
  /** Whoever has not looked since then is to look. */
  readonly sinceMs: number;
  readonly workspaceId: string | null;
  /** Whether it was looked for before. */
  readonly isAgain: boolean;
}

interface Awaited {
  readonly member: Member;
  readonly foundMs: number;
}

/**
 * What webhooks say, for the Environments of this process. A hint is never taken for work: it makes an Environment look once.
 * One whose session is known goes where that was served; others make Environments look one after the other, those first that
 * had work last, until the item is found or all have looked.
 *
 * Hints are trusted by what they are worth: an Environment whose last items came with them may look rarely; an item without
 * one ends that.
 */
export class Hints {
  readonly #clock: Clock;
  readonly #metrics: Metrics;
  readonly #members = new Set<Member>();
  /** Oldest first. */
  readonly #sessions = new Map<string, Session>();
  readonly #open = new Map<string, Sought>();
  /** Sessions that nobody found, and that are looked for once more at their `sinceMs`; the earliest first. */
  readonly #early = new Map<string, Sought>();
  /** The newest hint about one of them, by workspace; null: it may be anybody's. */
  readonly #newestMs = new Map<string | null, number>();
  /** Items whose hint has not come, by session, oldest first. */
  readonly #awaited = new Map<string, Awaited>();
  /** Who looks next in the round under way. */
  #round: Member[] = [];
  #looksLeft = LOOKS_PER_SECOND;
  #countedMs: number;
  #timer: Timer | null = null;
  #earlyTimer: Timer | null = null;
  #deliveredMs = Number.NEGATIVE_INFINITY;

  constructor(options: { clock: Clock; metrics: Metrics }) {
    this.#clock = options.clock;
    this.#metrics = options.metrics;
    this.#countedMs = options.clock.monotonic();
  }

  /** An Environment is served from now on. */
  join(environment: HintedEnvironment): HintedQueue {
    const member = new Member(environment, this.#clock, {
      isTrusted: () => this.#isTrusted(member),
      found: (item) => this.#found(member, item),
      leave: () => this.#members.delete(member),
    });
    this.#members.add(member);
    return member;
  }

  /** A delivery came, about whatever: deliveries do come. */
  delivered(): void {
    this.#deliveredMs = this.#clock.monotonic();
  }

  arrived(hint: Hint): void {
    const nowMs = this.#clock.monotonic();
    this.delivered();
    this.#judgeAwaited();
    const session = this.#sessionOf(hint.sessionId);
    session.hintedMs = nowMs;
    const awaited = this.#awaited.get(hint.sessionId);
    if (awaited) {
      this.#awaited.delete(hint.sessionId);
      this.#judge(awaited.member, true);
      return;
    }
    if (session.owner && this.#members.has(session.owner)) session.owner.hinted(hint.sessionId);
    else if (nowMs >= session.elsewhereMs + ELSEWHERE_MS && !this.#early.has(hint.sessionId)) {
      const isAgain = this.#open.get(hint.sessionId)?.isAgain ?? false;
      this.#seek(hint.sessionId, { sinceMs: nowMs, workspaceId: hint.workspaceId, isAgain });
      this.#search();
    }
  }

  /** Whether an Environment here had the session last: then nobody else needs to hear of it. */
  owns(sessionId: string): boolean {
    const owner = this.#sessions.get(sessionId)?.owner;
    return owner != null && this.#members.has(owner);
  }

  // --- what hints are worth ---------------------------------------------------------------------------------------

  #isTrusted(member: Member): boolean {
    this.#judgeAwaited();
    return member.hintedInARow >= PROVEN_AFTER && this.#clock.monotonic() - this.#deliveredMs < ALIVE_MS;
  }

  #found(member: Member, { workId, sessionId }: { workId: string; sessionId: string }): void {
    const nowMs = this.#clock.monotonic();
    member.workedMs = nowMs;
    this.#judgeAwaited();
    const session = this.#sessionOf(sessionId);
    session.owner = member;
    session.elsewhereMs = Number.NEGATIVE_INFINITY;
    this.#open.delete(sessionId);
    this.#early.delete(sessionId);
    // An item that was let go is offered again and again.
    if (member.lastWorkId === workId) return;
    member.lastWorkId = workId;
    // Where no Pod was kept warm, statistics showed the work, and the item had to wait for a Pod.
    const noticedMs = member.seenMs ?? nowMs;
    if (session.hintedMs >= noticedMs - FRESH_MS) this.#judge(member, true);
    // One that comes back before the first is judged is judged with it: put off by each, none behind it would ever be.
    else if (!this.#awaited.has(sessionId)) this.#awaited.set(sessionId, { member, foundMs: nowMs });
  }

  #judgeAwaited(): void {
    const latestMs = this.#clock.monotonic() - FRESH_MS;
    for (const [sessionId, { member, foundMs }] of this.#awaited) {
      if (foundMs >= latestMs) return;
      this.#awaited.delete(sessionId);
      this.#judge(member, false);
    }
  }

  #judge(member: Member, isHinted: boolean): void {
    if (!this.#members.has(member)) return;
    member.hintedInARow = isHinted ? member.hintedInARow + 1 : 0;
    this.#metrics.hintedItems.inc({ ...member.environment.labels, result: isHinted ? "hinted" : "not-hinted" });
  }

  // --- the search -------------------------------------------------------------------------------------------------

  #seek(sessionId: string, sought: Sought): void {
    const { workspaceId, sinceMs } = sought;
    this.#open.set(sessionId, sought);
    if (this.#open.size > MAX_SESSIONS) this.#open.delete(firstOf(this.#open) ?? "");
    const isOfOne = workspaceId?.startsWith(WORKSPACE_PREFIX) && this.#newestMs.size < MAX_WORKSPACES;
    const of = isOfOne ? workspaceId : null;
    this.#newestMs.set(of, Math.max(sinceMs, this.#newestMs.get(of) ?? sinceMs));
  }

  #search(): void {
    this.#timer?.cancel();
    this.#timer = null;
    while (this.#open.size > 0) {
      if (this.#round.length === 0) this.#beginRound();
      const member = this.#round[0];
      if (member === undefined) return;
      if (!this.#takeLook()) {
        this.#timer = this.#clock.setTimer(() => this.#search(), SECOND_MS / LOOKS_PER_SECOND);
        return;
      }
      this.#round.shift();
      if (this.#members.has(member) && this.#concerns(member)) member.look();
      else this.#looksLeft += 1;
    }
    this.#endSearch();
  }

  #endSearch(): void {
    this.#round = [];
    this.#open.clear();
    this.#newestMs.clear();
  }

  /**
   * Whoever any open hint concerns. Hints that concern nobody any more were too early, or are about sessions that are somebody
   * else's: the second search tells.
   */
  #beginRound(): void {
    this.#round = [...this.#members]
      .filter((member) => this.#concerns(member))
      .sort((one, other) => other.workedMs - one.workedMs);
    if (this.#round.length > 0) return;
    for (const [sessionId, { sinceMs, workspaceId, isAgain }] of this.#open) {
      if (isAgain) this.#sessionOf(sessionId).elsewhereMs = this.#clock.monotonic();
      else this.#early.set(sessionId, { sinceMs: sinceMs + EARLY_MS, workspaceId, isAgain: true });
      if (this.#early.size > MAX_SESSIONS) this.#early.delete(firstOf(this.#early) ?? "");
    }
    this.#endSearch();
    this.#searchAgainLater();
  }

  #searchAgainLater(): void {
    const [next] = this.#early.values();
    if (this.#earlyTimer || !next) return;
    const delayMs = Math.max(0, next.sinceMs - this.#clock.monotonic());
    this.#earlyTimer = this.#clock.setTimer(() => this.#searchAgain(), delayMs);
  }

  #searchAgain(): void {
    this.#earlyTimer = null;
    for (const [sessionId, sought] of this.#early) {
      if (sought.sinceMs > this.#clock.monotonic()) break;
      this.#early.delete(sessionId);
      this.#seek(sessionId, sought);
    }
    this.#searchAgainLater();
    if (this.#open.size > 0) this.#search();
  }

  #concerns(member: Member): boolean {
    const own = member.environment.workspaceId();
    for (const [workspaceId, atMs] of this.#newestMs) {
      if (member.lookedMs < atMs && (workspaceId === null || own === undefined || workspaceId === own)) return true;
    }
    return false;
  }

  #takeLook(): boolean {
    const nowMs = this.#clock.monotonic();
    const earned = ((nowMs - this.#countedMs) / SECOND_MS) * LOOKS_PER_SECOND;
    this.#looksLeft = Math.min(LOOKS_PER_SECOND, this.#looksLeft + earned);
    this.#countedMs = nowMs;
    if (this.#looksLeft < 1) return false;
    this.#looksLeft -= 1;
    return true;
  }

  #sessionOf(sessionId: string): Session {
    const known = this.#sessions.get(sessionId);
    const session = known ?? {
      owner: null,
      hintedMs: Number.NEGATIVE_INFINITY,
      elsewhereMs: Number.NEGATIVE_INFINITY,
    };
    this.#sessions.delete(sessionId);
    this.#sessions.set(sessionId, session);
    if (this.#sessions.size > MAX_SESSIONS) this.#sessions.delete(firstOf(this.#sessions) ?? "");
    return session;
  }
}

/** One Environment among those that hints may be for. */
class Member implements HintedQueue {
  readonly environment: HintedEnvironment;
  readonly #clock: Clock;
  readonly #board: { isTrusted(): boolean; found: HintedQueue["found"]; leave(): void };
  /** Sessions that ran when something was said of them. */
  readonly #passedOver = new Set<string>();
  /** So many of its last items came with a hint. */
  hintedInARow = 0;
  lastWorkId: string | null = null;
  lookedMs = Number.NEGATIVE_INFINITY;
  workedMs = Number.NEGATIVE_INFINITY;
  /** Since when statistics show work; null: they show none. */
  seenMs: number | null = null;

  constructor(
    environment: HintedEnvironment,
    clock: Clock,
    board: { isTrusted(): boolean; found: HintedQueue["found"]; leave(): void },
  ) {
    this.environment = environment;
    this.#clock = clock;
    this.#board = board;
  }

  get isTrusted(): boolean {
    return this.#board.isTrusted();
  }

  looks(): void {
    this.lookedMs = this.#clock.monotonic();
  }

  sees(work: boolean): void {
    this.seenMs = work ? (this.seenMs ?? this.#clock.monotonic()) : null;
  }

  found(item: { readonly workId: string; readonly sessionId: string }): void {
    this.#board.found(item);
  }

  /** A session of its own was hinted at. One that runs starts to run again after every tool call: its worker knows. */
  hinted(sessionId: string): void {
    if (this.environment.runs(sessionId)) this.#passedOver.add(sessionId);
    else this.look();
  }

  over(sessionId: string): void {
    if (this.#passedOver.delete(sessionId)) this.look();
  }

  look(): void {
    this.looks();
    this.environment.look();
  }

  leave(): void {
    this.#board.leave();
  }
}

function firstOf<K>(all: { keys(): Iterator<K> }): K | undefined {
  return all.keys().next().value;
}
