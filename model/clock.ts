/**
 * The model has no clock: there, a rule that waits out a deadline is a guard (nothing in flight, nothing lapsed). This
 * file tests each such rule with every order of whole-tick times, to find the smallest margin that makes the guard
 * true.
 */
export interface ClockRule {
  readonly name: string;
  /** What the deadline counts from. */
  readonly from: string;
  /** The smallest margin that holds in every order of times, as text and in ticks. */
  readonly words: string;
  readonly margin: number;
  /** The orders of times that break the rule with this margin, as text. */
  broken(margin: number): Iterable<string>;
}

/**
 * Ticks until a request has taken effect and was answered, counted from its sending: the timeout and the time after it.
 */
const REQUEST = 2;
const TTL = 12;
/** Ticks until an offered item is reclaimed for other pollers. */
const RECLAIM = 9;
/** How far our estimate of the server's clock may be off, in either direction. */
const SKEW = 1;
/** Ticks between a holder's answered heartbeat and its next one. */
const BEAT = 4;

/** How far the list may lag. */
const LAG = 3;

/** Long enough for every deadline to pass. */
const HORIZON = TTL + 4 * REQUEST;

interface Request {
  readonly effect: number;
  readonly answered: number;
}

/** All outcomes of a request sent at 0. */
const REQUESTS: readonly Request[] = ticks(REQUEST).flatMap((answered) =>
  ticks(answered).map((effect) => ({ effect, answered })),
);

function ticks(last: number, first = 0): number[] {
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => first + index);
}

/** A heartbeat of ours is accepted, and a stop follows. Broken: the stop arrives after the lease lapsed. */
function* stopAfterBeat(margin: number, base: (beat: Request) => number): Iterable<string> {
  for (const beat of REQUESTS) {
    for (const sent of ticks(base(beat) + TTL - margin, beat.answered)) {
      const lapsed = beat.effect + TTL;
      if (sent + REQUEST >= lapsed)
        yield `the stop is sent at ${sent}, lands at ${sent + REQUEST}, the lease lapsed at ${lapsed}`;
    }
  }
}

/**
 * The list shows a heartbeat at 0 of the server's time, and a stop follows without a heartbeat of ours. Broken: as
 * above.
 */
function* stopByList(margin: number): Iterable<string> {
  for (const off of [-SKEW, SKEW]) {
    for (const sent of ticks(HORIZON)) {
      const judged = sent + off + margin <= TTL;
      if (judged && sent + REQUEST >= TTL)
        yield `our clock is off by ${off}, the stop is sent at ${sent}, the lease lapsed at ${TTL}`;
    }
  }
}

/**
 * The last heartbeat of a container moved after a list requested at 0, and the container is told to stop. Broken: that
 * heartbeat's lease has lapsed when the stop arrives.
 */
function* tellHolder(margin: number): Iterable<string> {
  for (const { effect: seen } of REQUESTS) {
    for (const beaten of ticks(TTL, seen - LAG)) {
      for (const sent of ticks(TTL - margin, Math.max(0, beaten))) {
        if (sent + REQUEST >= beaten + TTL) yield `the heartbeat lands at ${beaten}, the stop is sent at ${sent}`;
      }
    }
  }
}

/**
 * Heartbeat 1, sent at 0, was answered, and heartbeat 2 was not. A repeat is refused with a value that counts as
 * heartbeat 2's. Broken: the lease had lapsed before the server handled the repeat, so the value may be any client's.
 */
function* adoptAfterLostBeat(margin: number, base: (repeat: Request) => number): Iterable<string> {
  for (const { effect: first } of REQUESTS) {
    for (const second of ticks(TTL, 1)) {
      for (const landed of [null, ...ticks(second + REQUEST, second)]) {
        const lapsed = TTL + (landed !== null && landed < first + TTL ? landed : first);
        for (const sent of ticks(HORIZON, second + 1)) {
          for (const repeat of REQUESTS) {
            if (sent + base(repeat) + margin > TTL || sent + repeat.effect < lapsed) continue;
            yield `lapsed at ${lapsed}, the repeat is sent at ${sent} and handled at ${sent + repeat.effect}`;
          }
        }
      }
    }
  }
}

/**
 * A poll is sent at 0, then an acknowledgement. Broken: it arrives when the item may have been offered to other
 * clients.
 */
function* acknowledgeInWindow(margin: number, base: (poll: Request) => number): Iterable<string> {
  for (const poll of REQUESTS) {
    for (const sent of ticks(base(poll) + RECLAIM - margin, poll.answered)) {
      const others = poll.effect + RECLAIM;
      if (sent + REQUEST >= others) yield `sent at ${sent}, lands at ${sent + REQUEST}, offered again at ${others}`;
    }
  }
}

/**
 * An acknowledged_at before the poll's sending + RECLAIM - margin counts as ours. Broken: the acknowledged_at of
 * another client, which gets the item RECLAIM after our offer at the earliest, counts too.
 */
function* evidence(margin: number, known: readonly number[]): Iterable<string> {
  for (const { effect: offered } of REQUESTS) {
    for (const off of known) {
      for (const theirs of ticks(HORIZON, offered + RECLAIM)) {
        if (theirs < off + RECLAIM - margin)
          yield `our poll is thought to be sent at ${off}, theirs is acknowledged at ${theirs}`;
      }
    }
  }
}

/**
 * A holder sends a heartbeat, is answered, sleeps for its interval and sends another. Broken: the value did not change
 * for this long, although the holder lives.
 */
function* stoodStill(margin: number): Iterable<string> {
  for (const answered of ticks(REQUEST)) {
    for (const effect of ticks(REQUEST)) {
      const gap = answered + BEAT + effect;
      if (gap >= BEAT + margin)
        yield `answered after ${answered}, the next heartbeat lands ${effect} after its sending: ${gap} in total`;
    }
  }
}

/**
 * A process ends at 0 with a heartbeat in flight, and the next process reads the list. Broken: the heartbeat changes
 * the value after that.
 */
function* firstLook(margin: number): Iterable<string> {
  for (const landed of ticks(REQUEST)) {
    for (const { effect } of REQUESTS) {
      if (landed >= margin + effect)
        yield `the list is handled at ${margin + effect}, the heartbeat lands at ${landed}`;
    }
  }
}

/** A heartbeat of ours was accepted. Broken: a list that counts as current shows the state before it. */
function* lookAfterBeat(margin: number, base: (beat: Request) => number, lag = LAG): Iterable<string> {
  for (const beat of REQUESTS) {
    for (const look of REQUESTS) {
      const shown = base(beat) + margin + look.effect - lag;
      if (shown < beat.effect)
        yield `the list shows the state at ${shown}, the heartbeat took effect at ${beat.effect}`;
    }
  }
}

/** An unanswered heartbeat was sent at 0. Broken: its lease still runs when it counts as lapsed. */
function* lapsedBySilence(margin: number): Iterable<string> {
  for (const { effect } of REQUESTS) {
    for (const look of REQUESTS) {
      const handled = TTL + margin + look.effect;
      if (handled < effect + TTL) yield `the list is handled at ${handled}, the lease lapses at ${effect + TTL}`;
    }
  }
}

const sending = () => 0;
const answer = ({ answered }: Request) => answered;

export const CLOCK_RULES: readonly ClockRule[] = [
  rule("stop after our own heartbeat", "the heartbeat's sending", "F + 1", REQUEST + 1, (m) =>
    stopAfterBeat(m, sending),
  ),
  rule("stop after our own heartbeat", "its answer", "2F + 1", 2 * REQUEST + 1, (m) => stopAfterBeat(m, answer)),
  rule("stop by the listed last heartbeat", "the server's clock", "F + skew + 1", REQUEST + SKEW + 1, stopByList),
  rule(
    "tell a holder to stop after its heartbeat changed",
    "the first list's sending",
    "F + lag + 1",
    REQUEST + LAG + 1,
    tellHolder,
  ),
  rule("adopt the value after a lost heartbeat", "the last answered heartbeat; the refusal received", "1", 1, (m) =>
    adoptAfterLostBeat(m, answer),
  ),
  rule("adopt the value after a lost heartbeat", "the same; the repeat sent", "F + 1", REQUEST + 1, (m) =>
    adoptAfterLostBeat(m, sending),
  ),
  rule("acknowledge in the window", "the poll's sending", "F + 1", REQUEST + 1, (m) => acknowledgeInWindow(m, sending)),
  rule("acknowledge in the window", "its answer", "2F + 1", 2 * REQUEST + 1, (m) => acknowledgeInWindow(m, answer)),
  rule("an acknowledged_at is ours", "the poll's earliest sending", "0", 0, (m) => evidence(m, [-2 * SKEW, -SKEW, 0])),
  rule("an acknowledged_at is ours", "its latest sending", "2 skew", 2 * SKEW, (m) => evidence(m, [0, SKEW, 2 * SKEW])),
  rule("a value did not change", "the value read; the heartbeat interval and", "2F + 1", 2 * REQUEST + 1, stoodStill),
  rule("the first list after a restart", "the start", "F + 1", REQUEST + 1, firstLook),
  rule("a list shows the effect of our heartbeat", "the heartbeat's sending", "F + lag", REQUEST + LAG, (m) =>
    lookAfterBeat(m, sending),
  ),
  rule("a list shows the effect of our acknowledgement", "its answer", "lag", LAG, (m) => lookAfterBeat(m, answer)),
  rule("an offer shows the effect of our acknowledgement", "its answer", "0", 0, (m) => lookAfterBeat(m, answer, 0)),
  rule("a lease lost by silence has lapsed", "the last heartbeat's sending; TTL and", "F", REQUEST, lapsedBySilence),
];

function rule(
  name: string,
  from: string,
  words: string,
  margin: number,
  broken: (margin: number) => Iterable<string>,
): ClockRule {
  return { name, from, words, margin, broken };
}

/** The smallest margin that holds in every order of times. */
export function smallestMargin({ broken }: Pick<ClockRule, "broken">): number {
  return ticks(HORIZON).find((margin) => [...broken(margin)].length === 0) ?? Number.POSITIVE_INFINITY;
}

/**
 * How long after its last answered heartbeat a stock worker believes in its lease, in seconds. It judges a failed
 * heartbeat at its failure.
 * @param hangs heartbeats are never answered instead of refused, and time out after one interval
 */
export function believesFor(lease: { ttlSeconds: number; beatSeconds: number; hangs: boolean }): number {
  const perBeat = lease.beatSeconds * (lease.hangs ? 2 : 1);
  // Each heartbeat takes slightly longer than its interval, so the lease has lapsed at the last of them.
  return perBeat * Math.ceil(lease.ttlSeconds / perBeat);
}
