import { type Clock, SECOND_MS, type Timer } from "../core/clock.ts";
import type { Metrics } from "../observe/metrics.ts";

/** A webhook's report that a session started to run. It may be wrong or late, and it names no Environment. */
export interface Hint {
  readonly sessionId: string;
  readonly workspaceId: string | null;
}

/** What the hints need from an Environment. */
export interface HintedEnvironment {
  readonly labels: { readonly namespace: string; readonly environment: string };
  /** `spec.api.workspaceId`. */
  readonly workspaceId: () => string | undefined;
  /** Whether a Pod of this Environment runs the session; its worker then learns everything directly. */
  readonly runs: (sessionId: string) => boolean;
  /** Polls or reads the queue once, now. */
  readonly look: () => void;
}

/** An Environment's view of the hints, which also receives what its loops find. */
export interface HintedQueue {
  /** Whether hints announce this Environment's work reliably, so that it may poll rarely. */
  readonly isTrusted: boolean;
  /** Notes that the Environment reads its queue now. */
  looks(): void;
  /** Notes whether statistics show work. */
  sees(work: boolean): void;
  /** Notes an item that was found. */
  found(item: { readonly workId: string; readonly sessionId: string }): void;
  /**
   * Notes that a claim of this session ended. A hint that arrived during the claim may concern the session's next item.
   */
  over(sessionId: string): void;
  /** Notes that the Environment is no longer served. */
  leave(): void;
}

/**
 * How long before work is noticed, or after its item is found, a hint still counts for it. Hints outside this window
 * are useless.
 */
export const FRESH_MS = 30_000;
/**
 * Consecutive hinted items before an Environment polls rarely. The value is high enough that a sender that reaches this
 * process only every other time rarely counts as reliable.
 */
export const PROVEN_AFTER = 3;
/**
 * After this long without a delivery, the endpoint counts as disabled. The platform disables endpoints automatically
 * after failures.
 */
export const ALIVE_MS = 24 * 60 * 60_000;
/**
 * A hint may arrive before its item. If no Environment has found the item, all poll again this long after the hint.
 */
export const EARLY_MS = 5_000;
/**
 * A session that no Environment here had an item for belongs to another client. The process does not search for it
 * again for this long.
 */
const ELSEWHERE_MS = 10 * 60_000;
/**
 * Looks a second for unknown sessions, and the size of a burst. All idle Environments together make as many without
 * hints (docs/request-budget.md), so a flood of hints can't cost more.
 */
export const LOOKS_PER_SECOND = 10;
/** Remembered sessions, about 300 bytes each. A forgotten session is searched for everywhere again. */
const MAX_SESSIONS = 20_000;
/** Workspaces to tell apart; one receiver serves the endpoints of a few. */
const MAX_WORKSPACES = 64;
/** The prefix of the platform's workspace ids. An id without it uses another notation and can't be compared. */
const WORKSPACE_PREFIX = "wrkspc_";

interface Session {
  owner: Member | null;
  hintedMs: number;
  /** When the search for it ended without result. */
  elsewhereMs: number;
}

/** A search for a session that no Environment here knows. */
interface Sought {
  /** Environments that have not looked since then must look. */
  readonly sinceMs: number;
  readonly workspaceId: string | null;
  /** Whether this is the second search. */
  readonly isAgain: boolean;
}

interface Awaited {
  readonly member: Member;
  readonly foundMs: number;
}

/**
 * What webhooks say, for the Environments of this process. A hint never counts as work: it makes an Environment look
 * once. A hint for a known session goes to the Environment that served it. Any other hint makes Environments look one
 * after the other, the most recently busy first, until one finds the item or all have looked.
 *
 * Trust is earned: an Environment whose last items came with hints may poll rarely, until an item comes without one.
 */
export class Hints {
  readonly #clock: Clock;
  readonly #metrics: Metrics;
  readonly #members = new Set<Member>();
  /** Oldest first. */
  readonly #sessions = new Map<string, Session>();
  readonly #open = new Map<string, Sought>();
  /** Sessions that the first search missed. The second search starts at their `sinceMs`; the earliest comes first. */
  readonly #early = new Map<string, Sought>();
  /** When the newest open hint arrived, by workspace; null: any workspace. */
  readonly #newestMs = new Map<string | null, number>();
  /** Items whose hint has not arrived, by session, oldest first. */
  readonly #awaited = new Map<string, Awaited>();
  /** Environments that have yet to look in the current round. */
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

  /** Registers an Environment that is served from now on. */
  join(environment: HintedEnvironment): HintedQueue {
    const member = new Member(environment, this.#clock, {
      isTrusted: () => this.#isTrusted(member),
      found: (item) => this.#found(member, item),
      leave: () => this.#members.delete(member),
    });
    this.#members.add(member);
    return member;
  }

  /** Notes a delivery of any kind, which shows that the endpoint works. */
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

  /** Whether an Environment of this process last had the session, so that no other process needs the hint. */
  owns(sessionId: string): boolean {
    const owner = this.#sessions.get(sessionId)?.owner;
    return owner != null && this.#members.has(owner);
  }

  // --- trust ------------------------------------------------------------------------------------------------------

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
    // The queue offers a released item again and again.
    if (member.lastWorkId === workId) return;
    member.lastWorkId = workId;
    // If no warm Pod was there, statistics showed the work first and the item waited for a Pod.
    const noticedMs = member.seenMs ?? nowMs;
    if (session.hintedMs >= noticedMs - FRESH_MS) this.#judge(member, true);
    // A repeated item keeps its first deadline: moving it back each time would block the judgment of all items behind
    // it.
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
   * Starts a round with every Environment that an open hint concerns. If none is left, the hints were too early or
   * their sessions belong to another client; the second search finds out which.
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

/** One Environment that hints may concern. */
class Member implements HintedQueue {
  readonly environment: HintedEnvironment;
  readonly #clock: Clock;
  readonly #board: { isTrusted(): boolean; found: HintedQueue["found"]; leave(): void };
  /** Sessions that were running when a hint for them arrived. */
  readonly #passedOver = new Set<string>();
  /** The number of its last items that came with a hint, without a gap. */
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

  /** A hint for its own session. A running session resumes after each tool call, and its worker knows. */
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
