import { SECOND_MS } from "./clock.ts";

/**
 * The protocol's and the loops' times, in milliseconds, in one place. Spec fields (seconds) are not here: these are the
 * numbers a user does not set. Tests scale some of them; the claim window is never scaled, since it is the server's.
 */
export interface Timing {
  /** What other pollers reclaim after by default; the Work API's own default for `reclaim_older_than_ms`. */
  readonly othersReclaimMs: number;
  /** What our polls say: out of courtesy longer than the default, so that a slow neighbour keeps its offer. */
  readonly ownReclaimMs: number;
  /** Bound of one protocol request, from sending to reply (F in model/clock.py). */
  readonly requestBoundMs: number;
  /** One tick of clock.py, and the rounding of a Date header. */
  readonly marginMs: number;
  /** Long poll: the API takes 1-999. */
  readonly pollBlockMs: number;
  /** Least pause between empty polls once a queue has been empty for `idleAfterMs`. */
  readonly pollIdleGapMs: number;
  readonly idleAfterMs: number;
  /** A lease's interval between beats at most (clients beat every min(ttl / 2, 30 s)). */
  readonly beatIntervalMs: number;
  /** Added to the beat interval before a value counts as standing still: the holder's slowness counts, not ours (2F + 1). */
  readonly quietMarginMs: number;
  /** The lease's length while the server has not said one. */
  readonly assumedTtlMs: number;
  /** The lease's length that beats of the operator ask for; what counts is what the server says. */
  readonly desiredTtlMs: number;
  /** lease: Operator: a container that runs so long has started to serve; one that fails sooner did not. */
  readonly servesAfterMs: number;
  /** A container that still waits after the touch is touched again after these. */
  readonly touchAgainMs: readonly number[];
  /** How often items of running sessions are looked at with the list call, and while a first beat is awaited. */
  readonly observeMs: number;
  readonly observeFirstBeatMs: number;
  /** The same while no container of the template has served yet: claims are held back until one has. */
  readonly observeUnprovenMs: number;
  /** Between two looks while an item is being settled and the last look decided nothing. */
  readonly settleLookMs: number;
  /**
   * How far the list call may be behind, which the API does not bound: replicas that answer lists follow in less than a second,
   * and 2 s were met. What a list shows as missing or not yet done counts only when it was asked for so much later.
   */
  readonly listLagMs: number;
  /**
   * How long after its window an acknowledgement without an answer may still take effect: 5.8 s after its sending were met,
   * and one is sent up to 2.5 s after its poll. Together with the list's lag this is over before our own polls offer the item again.
   */
  readonly lateAckMs: number;
  /**
   * The Work API is silent when no look at a session was answered for so long: three looks of one whose first heartbeat is
   * awaited. A busy API answers sooner. Tests do not scale it, since a busy machine is not silent either.
   */
  readonly silenceMs: number;
  /** After each page of a walk through the list there is no walk for so long, and at most, however many pages it had. */
  readonly lookPageRestMs: number;
  readonly lookRestMaxMs: number;
  /** Queue statistics: while there is work, when idle, and when idle while polls say that the queue is empty. */
  readonly statsBusyMs: number;
  readonly statsIdleMs: number;
  readonly statsPolledMs: number;
  /** Longest pause between two looks at an empty queue, before jitter: what a large group of Environments slows down to. */
  readonly idleMaxMs: number;
  /** The same where webhooks tell of work: so late it is seen when one of them is lost, once. */
  readonly hintedIdleMs: number;
  /** Running sessions are counted with the list call so often while workers are there or work waits. */
  readonly countMs: number;
  /** A reading of the demand older than this is no reading. More than the slowest pace and a few failures. */
  readonly demandStaleMs: number;
  /** Workers are asked so often whether they are busy. */
  readonly busyProbeMs: number;
  /** The number of workers is decided anew so often, and at once when something changed; the HPA's own period. */
  readonly scaleMs: number;
  /** Backoff of calls that failed: first, and at most. */
  readonly retryBaseMs: number;
  readonly retryMaxMs: number;
  /**
   * A step that has failed for so long is reported, and an acknowledged claim that could not be opened by then is given up:
   * an item without heartbeats goes back to the queue after 90 s, to be claimed in vain again.
   */
  readonly stepPatienceMs: number;
  /** The next session is claimed so long after one could not be started: an item that is claimed in vain is lost for 90 s. */
  readonly restartMs: number;
  /** Work waits, a Pod is free, and nothing was acknowledged for so long: reported, whatever the cause. */
  readonly stallMs: number;
  /** After a 404 of the whole environment: nothing but another id or key helps, so ask seldom. */
  readonly notFoundPauseMs: number;
  /** A good key is read anew so often, to notice a rotation before the old key ends. */
  readonly keyRefreshMs: number;
  /** A missing or rejected key is looked for so often: whoever mends it wants to see it work. */
  readonly keyRetryMs: number;
  /** A key that was rejected is tried again so long after, though nobody changed it: it may have been the platform's fault. */
  readonly rejectedKeyRetryMs: number;
  /** Backoff of a refused template: what refuses it (a policy, a namespace's label) may be mended outside the spec. */
  readonly templateRetryBaseMs: number;
  readonly templateRetryMaxMs: number;
  /** Backoff of Pods that never got parked, by template. */
  readonly prepareBackoffBaseMs: number;
  readonly prepareBackoffMaxMs: number;
  /** A Pod that has waited so long on its node, and whose status does not say what for, has its Events read. */
  readonly askNodeAfterMs: number;
  /** They are read again after a half to the whole of this at first, for one Pod of an Environment; and at most. */
  readonly askNodeAgainMs: number;
  readonly askNodeMaxMs: number;
  /** Breaker: the first probe claim, doubling up to the last. */
  readonly probeFirstMs: number;
  readonly probeMaxMs: number;
  /** A Pod that is still there so long after its deletion should have ended is on a node that does not answer. */
  readonly podOverdueMs: number;
  /** By then no request of an earlier process is on its way any more, whatever held it up. */
  readonly lateRecordsMs: number;
  /** A created Pod that the cache has not shown by then was lost or deleted: it no longer counts. */
  readonly expectationMs: number;
  /** The finalizer goes so long after an Environment's last claim, so that every short pause costs no two writes. */
  readonly finalizerLingerMs: number;
  /** A disruption budget is lowered so long after it could be: too high a number protects as well. */
  readonly budgetLingerMs: number;
  /** It is read anew so often, since somebody may have changed or deleted it. */
  readonly budgetCheckMs: number;
  /** A NetworkPolicy is read anew so often, beside the watch that shows what becomes of it. */
  readonly policyCheckMs: number;
  /** Volumes of sessions are listed anew so often: somebody may have deleted one. */
  readonly workspaceCheckMs: number;
  /** A Pod that was made for a session goes when its item was not offered for so long: parked, and before it is. */
  readonly unclaimedParkedMs: number;
  readonly unclaimedPreparingMs: number;
  /** After an item for which there is no room, the next is asked for so much later. */
  readonly noRoomPauseMs: number;
  /** Deleting an Environment ends at the latest so long after deletionGraceSeconds. */
  readonly drainBoundMs: number;
}

export const DEFAULT_TIMING: Timing = {
  othersReclaimMs: 5_000,
  ownReclaimMs: 15_000,
  requestBoundMs: 1_500,
  marginMs: 1_000,
  pollBlockMs: 999,
  pollIdleGapMs: 1_000,
  idleAfterMs: 30_000,
  beatIntervalMs: 30_000,
  quietMarginMs: 20_000,
  assumedTtlMs: 90_000,
  // A new leader takes up to 20 s to act, then a value must stand still for 50 s, of a lease that was beaten up to 30 s
  // before the old one's end: more than the usual 90 s.
  desiredTtlMs: 180_000,
  servesAfterMs: 5_000,
  touchAgainMs: [500, 1_000, 2_000, 4_000],
  observeMs: 30_000,
  observeFirstBeatMs: 5_000,
  observeUnprovenMs: 500,
  settleLookMs: 5_000,
  listLagMs: 5_000,
  lateAckMs: 5_000,
  silenceMs: 15_000,
  lookPageRestMs: 100,
  lookRestMaxMs: 2_000,
  statsBusyMs: 2_000,
  statsIdleMs: 5_000,
  statsPolledMs: 60_000,
  idleMaxMs: 60_000,
  hintedIdleMs: 300_000,
  countMs: 10_000,
  demandStaleMs: 120_000,
  busyProbeMs: 5_000,
  scaleMs: 15_000,
  retryBaseMs: 500,
  retryMaxMs: 30_000,
  stepPatienceMs: 45_000,
  restartMs: 120_000,
  stallMs: 120_000,
  notFoundPauseMs: 30_000,
  keyRefreshMs: 60_000,
  keyRetryMs: 5_000,
  rejectedKeyRetryMs: 600_000,
  templateRetryBaseMs: 5_000,
  templateRetryMaxMs: 60_000,
  prepareBackoffBaseMs: 5_000,
  prepareBackoffMaxMs: 300_000,
  // A Pod with its image at hand takes 2 s, and one that pulls a large one is asked about once or twice for nothing.
  askNodeAfterMs: 20_000,
  askNodeAgainMs: 60_000,
  askNodeMaxMs: 120_000,
  probeFirstMs: 60_000,
  probeMaxMs: 1_800_000,
  podOverdueMs: 30_000,
  lateRecordsMs: 60_000,
  expectationMs: 30_000,
  finalizerLingerMs: 30_000,
  budgetLingerMs: 30_000,
  budgetCheckMs: 60_000,
  policyCheckMs: 600_000,
  workspaceCheckMs: 300_000,
  // Offered again after 5 s: several offers that did not come.
  unclaimedParkedMs: 60_000,
  unclaimedPreparingMs: 300_000,
  noRoomPauseMs: 250,
  drainBoundMs: 60_000,
};

/** A poll waits for at least so long. */
const SHORTEST_BLOCK_MS = 200;

/**
 * The same with another bound of protocol requests. What it takes from the time in which an item may be acknowledged, polls
 * that wait for work give back: an item may come at their end.
 */
export function withRequestBound(timing: Timing, requestBoundMs: number): Timing {
  const moreMs = requestBoundMs - timing.requestBoundMs;
  return { ...timing, requestBoundMs, pollBlockMs: Math.max(SHORTEST_BLOCK_MS, timing.pollBlockMs - moreMs) };
}

/** The times that may run faster in a test, where the other side's clock runs faster too. */
const SCALED = [
  "beatIntervalMs",
  "quietMarginMs",
  "assumedTtlMs",
  "desiredTtlMs",
  "servesAfterMs",
  "observeMs",
  "observeFirstBeatMs",
  "settleLookMs",
  "listLagMs",
  "lateAckMs",
  "lookPageRestMs",
  "lookRestMaxMs",
  "statsBusyMs",
  "statsIdleMs",
  "statsPolledMs",
  "countMs",
  "demandStaleMs",
  "busyProbeMs",
  "scaleMs",
  "retryBaseMs",
  "retryMaxMs",
  "stepPatienceMs",
  "restartMs",
  "notFoundPauseMs",
  "keyRefreshMs",
  "keyRetryMs",
  "rejectedKeyRetryMs",
  "templateRetryBaseMs",
  "templateRetryMaxMs",
  "prepareBackoffBaseMs",
  "prepareBackoffMaxMs",
  "askNodeAfterMs",
  "askNodeAgainMs",
  "askNodeMaxMs",
  "probeFirstMs",
  "probeMaxMs",
  "podOverdueMs",
  "lateRecordsMs",
  "finalizerLingerMs",
  "budgetLingerMs",
  "budgetCheckMs",
  "policyCheckMs",
  "workspaceCheckMs",
  "drainBoundMs",
] as const satisfies readonly (keyof Timing)[];

/** A test seam: waits `factor` times shorter. The claim window stays as it is. */
export function scaleTiming(timing: Timing, factor: number): Timing {
  const scaled = Object.fromEntries(SCALED.map((name) => [name, timing[name] / factor]));
  return { ...timing, ...scaled };
}

/** What a beat of the operator asks for: whole seconds, at least one. */
export function desiredTtlSeconds({ desiredTtlMs }: Pick<Timing, "desiredTtlMs">): number {
  return Math.max(1, Math.round(desiredTtlMs / SECOND_MS));
}
