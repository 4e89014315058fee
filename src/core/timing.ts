import { ASSUMED_TTL_MS, DESIRED_TTL_MS } from "./heartbeat-ttl.ts";

/**
 * The times of the protocol and of the loops, in milliseconds. Users do not set these; spec fields (seconds) are
 * elsewhere. Tests scale some of them, but never the claim window, which is the server's.
 */
export interface Timing {
  /** When other pollers reclaim an item by default: the Work API's own default for `reclaim_older_than_ms`. */
  readonly othersReclaimMs: number;
  /** The value that our polls send. It is longer than the default, so that a slow neighbor keeps its offer. */
  readonly ownReclaimMs: number;
  /** Timeout of a Work API request that is not one of the protocol, such as a poll. Tests do not scale it. */
  readonly requestTimeoutMs: number;
  /** Bound of one protocol request, from sending to reply (F in model/clock.py). */
  readonly requestBoundMs: number;
  /** One tick of clock.py, and the rounding of a Date header. */
  readonly marginMs: number;
  /** Duration of a long poll; the API accepts 1-999. */
  readonly pollBlockMs: number;
  /** Shortest time from one empty poll to the next once a queue has been empty for `idleAfterMs`. */
  readonly pollIdleGapMs: number;
  readonly idleAfterMs: number;
  /** Longest interval between heartbeats of a lease (clients send one every min(ttl / 2, 30 s)). */
  readonly beatIntervalMs: number;
  /** Added to the heartbeat interval before a value counts as unchanged: the holder's delay (2F + 1), not ours. */
  readonly quietMarginMs: number;
  /** The lease's TTL until the server has reported one. */
  readonly assumedTtlMs: number;
  /** The TTL that the operator's heartbeats request. The server's answer counts. */
  readonly desiredTtlMs: number;
  /** lease: Operator: a container that runs this long has started to serve; one that fails sooner has not. */
  readonly servesAfterMs: number;
  /** Pauses before a waiting container is touched again. */
  readonly touchAgainMs: readonly number[];
  /** How often the list call checks items of running sessions; the second value applies until the first heartbeat. */
  readonly observeMs: number;
  readonly observeFirstBeatMs: number;
  /** The same while no container of the template has served yet: claims are held back until one has. */
  readonly observeUnprovenMs: number;
  /** Pause between two checks of an item that is being settled, when the last check decided nothing. */
  readonly settleLookMs: number;
  /**
   * How far the list call may lag, which the API does not bound. Replicas usually follow in less than a second; 2 s
   * were observed. A list proves that something is missing or undone only if it was requested at least this much later.
   */
  readonly listLagMs: number;
  /**
   * How long after its window an acknowledgement without an answer may still take effect. 5.8 s after sending were
   * observed, and an acknowledgement is sent up to 2.5 s after its poll. Together with the list's lag, this ends before
   * our own polls offer the item again, unless sessions sleep or have volumes.
   */
  readonly lateAckMs: number;
  /**
   * The Work API counts as silent when no check of a session was answered for this long: three checks of a session that
   * awaits its first heartbeat. A busy API answers sooner. Tests do not scale it: a busy machine is not silent.
   */
  readonly silenceMs: number;
  /** Pause after listing all items, per page of that list; the second value is the longest pause. */
  readonly lookPageRestMs: number;
  readonly lookRestMaxMs: number;
  /** How often statistics are read: with work, when idle, and when idle while polls report an empty queue. */
  readonly statsBusyMs: number;
  readonly statsIdleMs: number;
  readonly statsPolledMs: number;
  /**
   * Longest pause between two checks of an empty queue, before jitter. Large groups of Environments slow down to it.
   */
  readonly idleMaxMs: number;
  /** The same where webhooks report work: the delay when one webhook is lost. */
  readonly hintedIdleMs: number;
  /** How long unexpected pollers must be counted before they are reported. The API counts a poller for 30 s. */
  readonly pollersLastMs: number;
  /** How often running sessions are counted with the list call while there are workers or waiting work. */
  readonly countMs: number;
  /** An older reading of the demand is ignored. Longer than the slowest pace plus a few failures. */
  readonly demandStaleMs: number;
  /** How often workers are probed for being busy. */
  readonly busyProbeMs: number;
  /** How often the number of workers is decided without a change, which causes a decision at once. The HPA's period. */
  readonly scaleMs: number;
  /** Backoff of failed calls: first and longest delay. */
  readonly retryBaseMs: number;
  readonly retryMaxMs: number;
  /**
   * A step that has failed for this long is reported, and an acknowledged claim that could not be opened by then is
   * given up. An item without heartbeats returns to the queue after 90 s, to be claimed in vain again.
   */
  readonly stepPatienceMs: number;
  /** Pause of claims after a session could not be started: an item that is claimed in vain is lost for 90 s. */
  readonly restartMs: number;
  /** Reported after this long, whatever the cause: work waits, a Pod is free, and nothing was acknowledged. */
  readonly stallMs: number;
  /** Pause after a 404 of the whole environment: only another id or key helps. */
  readonly notFoundPauseMs: number;
  /** How often a good key is read again, to notice a rotation before the old key expires. */
  readonly keyRefreshMs: number;
  /** How often a missing or rejected key is read again. Short, so that a user sees a fix take effect. */
  readonly keyRetryMs: number;
  /** When an unchanged rejected key is tried again: the platform may have been at fault. */
  readonly rejectedKeyRetryMs: number;
  /** Backoff of a refused template. The cause (a policy, a namespace's label) may be fixed outside the spec. */
  readonly templateRetryBaseMs: number;
  readonly templateRetryMaxMs: number;
  /** Backoff of Pods that never parked, per template. */
  readonly prepareBackoffBaseMs: number;
  readonly prepareBackoffMaxMs: number;
  /** When the Events of a Pod are read that is still waiting on its node and whose status gives no reason. */
  readonly askNodeAfterMs: number;
  /**
   * They are read again after 50-100 % of this at first, for one Pod of an Environment; the second value is the limit.
   */
  readonly askNodeAgainMs: number;
  readonly askNodeMaxMs: number;
  /** While starts fail: delay of the first probe claim, doubling up to the longest. */
  readonly probeFirstMs: number;
  readonly probeMaxMs: number;
  /** If a Pod still exists this long after its deletion should have ended, its node does not answer. */
  readonly podOverdueMs: number;
  /** By then, all requests of an earlier process have arrived, however long they were delayed. */
  readonly lateRecordsMs: number;
  /** A created Pod that the cache has not shown by then was lost or deleted, and no longer counts. */
  readonly expectationMs: number;
  /** The finalizer is removed this long after an Environment's last claim, so that a short pause costs no writes. */
  readonly finalizerLingerMs: number;
  /** How often the budget is read again, since another client may have changed or deleted it. */
  readonly budgetCheckMs: number;
  /** How often a NetworkPolicy is read again, in addition to the watch. */
  readonly policyCheckMs: number;
  /** How often the volumes of sessions are listed again, since another client may have deleted one. */
  readonly workspaceCheckMs: number;
  /** Parked Pods beyond `warm` are deleted after this long, since the queue may fill again. Tests do not scale it. */
  readonly warmScaleDownMs: number;
  /** A Pod made for a session is deleted if its item is not offered for this long: once parked, and before. */
  readonly unclaimedParkedMs: number;
  readonly unclaimedPreparingMs: number;
  /** Pause before the next poll after an item for which there is no room. */
  readonly noRoomPauseMs: number;
  /** How long forwarding a webhook may take: a later hint is nearly useless, and the peer is a Pod of the same cluster. */
  readonly passTimeoutMs: number;
  /** Deleting an Environment ends at most this long after deletionGraceSeconds. */
  readonly drainBoundMs: number;
}

/** Share of `drainBoundMs` that programs get to exit. Ending Pods and settling gets the rest. */
export const DRAIN_GRACE = 0.5;

export const DEFAULT_TIMING: Timing = {
  othersReclaimMs: 5_000,
  ownReclaimMs: 15_000,
  requestTimeoutMs: 10_000,
  requestBoundMs: 1_500,
  marginMs: 1_000,
  pollBlockMs: 999,
  pollIdleGapMs: 1_000,
  idleAfterMs: 30_000,
  beatIntervalMs: 30_000,
  quietMarginMs: 20_000,
  assumedTtlMs: ASSUMED_TTL_MS,
  desiredTtlMs: DESIRED_TTL_MS,
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
  pollersLastMs: 90_000,
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
  // A Pod whose image is present takes 2 s. For one that pulls a large image, one or two reads are in vain.
  askNodeAfterMs: 20_000,
  askNodeAgainMs: 60_000,
  askNodeMaxMs: 120_000,
  probeFirstMs: 60_000,
  probeMaxMs: 1_800_000,
  podOverdueMs: 30_000,
  lateRecordsMs: 60_000,
  expectationMs: 30_000,
  finalizerLingerMs: 30_000,
  budgetCheckMs: 60_000,
  policyCheckMs: 600_000,
  workspaceCheckMs: 300_000,
  warmScaleDownMs: 300_000,
  // An item is offered again after 5 s, so several offers were missed.
  unclaimedParkedMs: 60_000,
  unclaimedPreparingMs: 300_000,
  noRoomPauseMs: 250,
  passTimeoutMs: 2_000,
  drainBoundMs: 60_000,
};

/** The times that may run faster in a test, where the server's clock runs faster too. */
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
  "pollersLastMs",
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
  "budgetCheckMs",
  "policyCheckMs",
  "workspaceCheckMs",
  "drainBoundMs",
] as const satisfies readonly (keyof Timing)[];

/** For tests: divides the scaled times by `factor`. The claim window does not change. */
export function scaleTiming(timing: Timing, factor: number): Timing {
  const scaled = Object.fromEntries(SCALED.map((name) => [name, timing[name] / factor]));
  return { ...timing, ...scaled };
}
