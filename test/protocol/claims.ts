/** Claims, items, Pod states and facts for the tests of the protocol, with times relative to one poll. */
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { End, PodState } from "../../src/pods/pod-state.ts";
import type { Claim } from "../../src/protocol/claim.ts";
import type { ClaimLease } from "../../src/protocol/claim-lease.ts";
import type { ClaimObserved, ItemView } from "../../src/protocol/claim-observed.ts";
import type { ClaimRecord } from "../../src/protocol/claim-record.ts";
import { newClaim } from "../../src/protocol/claim-table.ts";
import type { SessionContext } from "../../src/protocol/context.ts";
import type { Facts, Limits } from "../../src/protocol/facts.ts";
import { Holds } from "../../src/protocol/holds.ts";
import type { Journal } from "../../src/protocol/journal.ts";

/** The server's wall clock at zero of the monotonic clock. POLLED is the monotonic time of the poll. */
export const EPOCH = Date.UTC(2030, 0, 1);
export const POLLED = 10_000;

/** An RFC 3339 time `ms` after the epoch of these tests: the monotonic clock as the server writes it. */
export const at = (ms: number) => new Date(EPOCH + ms).toISOString();

/** When our acknowledgement took effect, in these tests. */
export const OURS = at(POLLED + 700);
/** When another client acknowledged the item, long after us. */
export const THEIRS = at(POLLED + 400_000);

export const JOURNAL: Journal = {
  use: "session",
  lease: "Worker",
  environmentUid: "env-uid",
  podUid: "pod-uid",
  workId: "work_1",
  sessionId: "sesn_1",
  queuedAt: at(0),
  polledFromMs: EPOCH + POLLED,
  polledUntilMs: EPOCH + POLLED + 40,
  acknowledgedAt: null,
  opened: false,
};

export const LIMITS: Limits = {
  firstBeatTimeoutMs: 60_000,
  maxDurationMs: 3_600_000,
  graceMs: 120_000,
  onPodFailure: "Stop",
  draining: false,
  drainDeadlineMs: Number.POSITIVE_INFINITY,
};

/** An item in the answer to a list that was requested at `askedMs`. */
export const view = (state: ItemView["state"], askedMs: number, more: Partial<ItemView> = {}): ItemView => ({
  state,
  acknowledgedAt: state === "queued" ? null : OURS,
  latestHeartbeatAt: state === "starting" || state === "queued" ? null : at(POLLED + 2_000),
  startedAt: null,
  askedMs,
  ...more,
});

/** No view, and every item state, acknowledged by us and by another client. */
export const EVERY_ITEM: readonly (ItemView | null)[] = [
  null,
  ...(["queued", "starting", "active", "stopping", "stopped", "absent", "unknown"] as const).flatMap((state) => [
    view(state, POLLED + 20_000),
    view(state, POLLED + 20_000, { acknowledgedAt: THEIRS }),
  ]),
];

export const END: End = {
  cause: "Completed",
  message: "",
  exitCode: 0,
  startedAtMs: EPOCH + POLLED + 1_000,
  finishedAtMs: EPOCH + POLLED + 5_000,
};

export const RUNNING: PodState = { is: "running", startedAtMs: EPOCH + POLLED + 1_000 };
export const PARKED: PodState = { is: "parked" };
export const GONE = { is: "gone" } as const;
export const ended = (end: Partial<End> = {}): PodState => ({ is: "ended", end: { ...END, ...end } });

/** Fields of a claim's parts, as one flat list; `lease` is the lease that the operator took. */
export type ClaimFields = Partial<
  Omit<Claim, "record" | "lease" | "observed"> &
    ClaimRecord &
    Omit<ClaimLease, "own"> &
    ClaimObserved & { lease: ClaimLease["own"] }
>;

/** Writes fields into the parts that they belong to. */
export function withFields(claim: Claim, { lease, ...more }: ClaimFields): Claim {
  if (lease !== undefined) Object.assign(claim.lease, { own: lease });
  for (const [field, value] of Object.entries(more)) {
    const part = [claim.record, claim.lease, claim.observed].find((each) => Object.hasOwn(each, field));
    Object.assign(part ?? claim, { [field]: value });
  }
  return claim;
}

/** A claim that was just handed over: journaled, acknowledgement sent. `more` overrides fields. */
export function claimOf(more: ClaimFields = {}): Claim {
  const claim = newClaim({
    name: "berth-research-x",
    journal: JOURNAL,
    secretVersion: "1",
    secretUid: "secret-uid",
    lateAckUntilMs: POLLED + DEFAULT_TIMING.othersReclaimMs,
    templateHash: "hash",
  });
  return withFields(claim, more);
}

/** A claim whose acknowledgement was answered. */
export const acknowledged = (more: ClaimFields = {}): Claim =>
  claimOf({ acknowledgedAt: OURS, item: view("starting", POLLED + 700), ...more });

/** A claim whose container got its key, touched about a second after the poll. */
export const opened = (more: ClaimFields = {}): Claim =>
  claimOf({
    journal: { ...JOURNAL, acknowledgedAt: OURS, opened: true },
    acknowledgedAt: OURS,
    openedMs: POLLED + 900,
    openedAtMs: EPOCH + POLLED + 900,
    waitedMs: POLLED + 900,
    touches: 1,
    touchedMs: POLLED + 910,
    deadlineSeconds: 3_800,
    ...more,
  });

/** A claim whose container ran, served, and ended at `endedMs`. */
export const over = (endedMs: number, more: ClaimFields = {}): Claim =>
  opened({ startedAtMs: EPOCH + POLLED + 1_000, end: END, endedMs, ...more });

/** Facts `afterMs` after the poll, with all clocks in agreement. */
export function facts(claim: Claim, pod: Facts["pod"], afterMs: number, more: Partial<Facts> = {}): Facts {
  const nowMs = POLLED + afterMs;
  return {
    claim,
    pod,
    podGoneByMs: null,
    podAssigned: claim.record.touchedMs !== null,
    waitsForLine: false,
    nowMs,
    wallMs: EPOCH + nowMs,
    clusterMs: EPOCH + nowMs,
    limits: LIMITS,
    timing: DEFAULT_TIMING,
    ...more,
  };
}

/** A context with the given members, plus those that record failures. */
export function contextOf(given: ConstructorParameters<typeof Holds>[0]): SessionContext {
  return { ...given, holds: new Holds(given, [], () => {}) } as SessionContext;
}
