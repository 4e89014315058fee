import type { Secret } from "../kube/resource.ts";
import { TOO_LONG } from "../pods/pod-gate.ts";
import type { Journal, SlotUse } from "./journal.ts";
import type { Ending } from "./step.ts";

/** What this process wrote, requested and decided for a claim: its Secret, acknowledgement, opening and Pod. */
export interface ClaimRecord {
  readonly journal: Journal;
  /** The Secret's resourceVersion and uid: every patch and delete carries them. */
  readonly secretVersion: string;
  readonly secretUid: string;
  /** Another client deleted the Secret of a live claim: the item is settled, and the claim is never opened. */
  readonly gone: boolean;
  /** Base64, kept from the journal until the opening; null: it must be read from the Secret. Never shown. */
  readonly credential: string | null;
  /** The claim loop works on the claim: no other loop may. */
  readonly claiming: boolean;
  /** `acknowledged_at` in the poll's answer, before this claim; null: there was none, or an earlier process polled. */
  readonly acknowledgedBefore: string | null;
  /** The `acknowledged_at` under which the item is ours; durable once the claim is opened. */
  readonly acknowledgedAt: string | null;
  /** Our acknowledgement had taken effect by then; null: not known. */
  readonly ackedMs: number | null;
  /** The item was acknowledged after its window, by us or by another client. The claim is released, never opened. */
  readonly lateAck: boolean;
  /** The opening was sent: until it is confirmed, the container may be about to start. */
  readonly openingSent: boolean;
  /** When this process added the key to the Secret, or found that an earlier process had. */
  readonly openedMs: number | null;
  /**
   * When this process added the key to the Secret, on the wall clock; null: an earlier process did, or it isn't known.
   */
  readonly openedAtMs: number | null;
  /** The Pod's resourceVersion as last read for a claim of one of its turns; null: use that of the cache. */
  readonly podVersion: string | null;
  /** The Pod's patch was answered: it is assigned, even if the cache doesn't show that yet. */
  readonly assigned: boolean;
  /** The time in the Pod's annotation, by the API server's clock. Set once, and each touch repeats it. */
  readonly assignedAtMs: number | null;
  /**
   * parking: Shell and Program: whether the container has read its line. `unknown`: a line may have been sent without an
   * answer. `unclear`: the container's log does not show more.
   */
  readonly delivery: "unsent" | "unknown" | "unclear" | "done";
  /** When this process last sent the line (monotonic). */
  readonly deliverySentMs: number | null;
  /** When the container's log last showed that its program had not started (monotonic). */
  readonly unstartedMs: number | null;
  readonly touches: number;
  readonly touchedMs: number | null;
  /** The Pod's activeDeadlineSeconds: the first touch sets it, and later ones repeat it. */
  readonly deadlineSeconds: number | null;
  /** Set when Berth decided to end the session. */
  readonly ending: { readonly why: Ending; readonly message: string } | null;
}

type Writable = { -readonly [Field in keyof ClaimRecord]: ClaimRecord[Field] };
/** The part as this module may change it: everyone else gets it read-only. */
type Recorded = { readonly record: Writable };

/** How the session of a claim ends that only stops its item. */
const ENDINGS: { readonly [use in SlotUse]?: ClaimRecord["ending"] } = {
  "too-long": { why: "StartFailed", message: `${TOO_LONG}; set spec.sessions.parking: Key` },
  stop: { why: "StopIgnored", message: "the Work API offered the work item again after it had called it stopped" },
};

/** The record of a claim whose Secret says `journal`. */
export function newRecord(
  from: Pick<ClaimRecord, "journal" | "secretVersion" | "secretUid"> &
    Partial<Pick<ClaimRecord, "claiming" | "acknowledgedBefore">>,
): ClaimRecord {
  return {
    gone: false,
    credential: null,
    claiming: false,
    acknowledgedBefore: null,
    acknowledgedAt: from.journal.acknowledgedAt,
    ackedMs: null,
    lateAck: false,
    openingSent: false,
    openedMs: null,
    openedAtMs: null,
    podVersion: null,
    assigned: false,
    assignedAtMs: null,
    delivery: from.journal.opened ? "unknown" : "unsent",
    deliverySentMs: null,
    unstartedMs: null,
    touches: 0,
    touchedMs: null,
    deadlineSeconds: null,
    ending: ENDINGS[from.journal.use] ?? null,
    ...from,
  };
}

/** The claim loop has finished with the claim. */
export function noteHandedOver({ record }: Recorded): void {
  record.claiming = false;
}

/** The claim's Secret exists and holds this credential; null: the credential must be read. */
export function noteWritten({ record }: Recorded, { metadata }: Secret, credential: string | null): void {
  noteVersion({ record }, metadata.resourceVersion ?? "");
  record.secretUid = metadata.uid ?? "";
  record.credential = credential;
}

/** The Secret's resourceVersion after a write or a read; undefined: the server did not say. */
export function noteVersion({ record }: Recorded, version: string | undefined): void {
  record.secretVersion = version ?? record.secretVersion;
}

/** Keeps the credential until the container has read its line. */
export function keepCredential({ record }: Recorded, credential: string): void {
  record.credential = credential;
}

/** Returns the credential, and forgets it. */
export function takeCredential({ record }: Recorded): string | null {
  const { credential } = record;
  record.credential = null;
  return credential;
}

/** Our acknowledgement took effect by `ackedMs`; `isLate`: after its window, so it may be another client's. */
export function noteAcknowledged(
  { record }: Recorded,
  acknowledgedAt: string | null,
  { ackedMs, isLate }: { ackedMs: number; isLate: boolean },
): void {
  record.acknowledgedAt = acknowledgedAt;
  record.ackedMs = ackedMs;
  record.lateAck = isLate;
}

export function noteOpeningSent({ record }: Recorded): void {
  record.openingSent = true;
}

/** The Secret holds its key now. */
export function noteOpened(
  { record }: Recorded,
  acknowledgedAt: string,
  { nowMs, wallMs }: { nowMs: number; wallMs: number },
): void {
  const journal: Journal = { ...record.journal, acknowledgedAt, opened: true };
  // The claim was given up although an unanswered opening had started its container.
  const ending = record.ending?.why === "StartFailed" ? null : record.ending;
  record.journal = journal;
  record.openedMs = nowMs;
  record.openedAtMs = wallMs;
  record.ending = ending;
}

/**
 * Records what the claim's Secret says. It may be open although this process saw no opening succeed: the answer was
 * lost, or an earlier process opened it.
 */
export function noteJournal({ record }: Recorded, journal: Journal, nowMs: number): void {
  record.journal = journal;
  if (!journal.opened) return;
  // Bounds count from these times: without them, they would never end.
  record.openedMs ??= nowMs;
  record.ackedMs ??= nowMs;
  // A claim is opened only once its acknowledgement is known to be ours.
  record.lateAck = false;
}

/** The claim's Secret was read again after a conflict. */
export function noteReread({ record }: Recorded, secret: Secret, journal: Journal, nowMs: number): void {
  noteJournal({ record }, journal, nowMs);
  noteWritten({ record }, secret, null);
  record.acknowledgedAt = journal.acknowledgedAt ?? record.acknowledgedAt;
}

/** Another client deleted the Secret of a live claim. */
export function noteRecordGone({ record }: Recorded): void {
  record.gone = true;
}

export function notePodVersion({ record }: Recorded, version: string | undefined): void {
  record.podVersion = version ?? null;
}

/** The Pod is assigned to its session since `assignedAtMs`; see the field of that name. */
export function noteAssigning({ record }: Recorded, assignedAtMs: number): void {
  record.assignedAtMs ??= assignedAtMs;
}

/** The line is about to be sent: from now on its container may start. */
export function noteDeliverySent({ record }: Recorded, nowMs: number): void {
  record.delivery = "unknown";
  record.deliverySentMs = nowMs;
}

/** The container has read its line; `before`: it had read that of an earlier process, so this one's did nothing. */
export function noteDelivered({ record }: Recorded, before = false): void {
  record.delivery = "done";
  if (before) record.deliverySentMs = null;
  record.credential = null;
}

/** The container's log does not show that its program has started; `unclear`: or can't show it. */
export function noteUnstarted({ record }: Recorded, nowMs: number, shown: "unsent" | "unclear"): void {
  record.delivery = shown;
  record.unstartedMs = nowMs;
}

export function noteDeadline({ record }: Recorded, deadlineSeconds: number): void {
  record.deadlineSeconds = deadlineSeconds;
}

/** A touch of the Pod was sent. `isAssigned`: and was answered, so the Pod is assigned. */
export function noteTouched({ record }: Recorded, touchedMs: number, isAssigned: boolean): void {
  record.touches += 1;
  record.touchedMs = touchedMs;
  record.assigned ||= isAssigned;
}

/** Berth ends the session. An earlier decision is kept. */
export function decideEnding({ record }: Recorded, why: Ending, message: string): void {
  record.ending ??= { why, message };
}

/** Berth ends the session. Replaces an earlier decision. */
export function replaceEnding({ record }: Recorded, why: Ending, message: string): void {
  record.ending = { why, message };
}
