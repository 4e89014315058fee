import type { LeaseKind } from "../src/protocol/journal.ts";

/**
 * What a run of the model is about: a setting, and which rules of the protocol hold. The defaults are what the code does, but
 * for `graceful`, where it sees less.
 */
export interface Rules extends Setting, Protocol {}

/** How many of each there are, what the Work API does where its contract is silent, and how workers and users behave. */
export interface Setting {
  readonly operators: number;
  readonly items: number;
  /** Of each operator. */
  readonly pods: number;
  /** An item is acknowledged at most so often. */
  readonly acknowledgements: number;
  readonly lease: LeaseKind;
  /** All items are of one session. */
  readonly oneSession: boolean;
  /** The Environment may be deleted. */
  readonly deletion: boolean;
  /** How a user stops an item. */
  readonly userStops: "gracefully" | "also-by-force";
  /** Judges what no rule of the operator can give, too: S3p, S2w, S2o. */
  readonly strict: boolean;

  // --- The Work API, where its contract is silent
  /** An acknowledgement of an item that left the queue already. */
  readonly secondAck: "refused" | "accepted";
  /** An active item whose lease lapsed. */
  readonly lapsed: "queued" | "stopped";
  /** A stopping item whose lease lapsed. */
  readonly lapsedStopping: "stays" | "stopped";
  /** A starting item that nobody beats. */
  readonly unbeaten: "queued" | "stays";
  /** acknowledged_at of an item that is acknowledged once more. */
  readonly stamp: "renewed" | "kept";
  /** NO_HEARTBEAT on a queued item. */
  readonly beatOnQueued: "refused" | "accepted";
  /** When an acknowledgement takes effect that no request waits for any more: `late`, others may have been offered the item. */
  readonly lateAck: "in-its-window" | "late";

  // --- Workers
  /** `late`: believes in its lease for a while after it lapsed. `stays`: knows that it lost its item, and does not end. */
  readonly worker: "prompt" | "late" | "stays";
  /** A SIGTERM may come before the first beat was answered; the stock worker stops its item all the same. */
  readonly sigterm: boolean;

  // --- What the spec asks for
  /** `Either`: Release of what died without a word, and a stop of what ended otherwise. */
  readonly onPodFailure: "Stop" | "Release" | "Either";
}

/** The operator's own rules; what each other value of one is for is in values.ts. */
export interface Protocol {
  /** When the key that the container waits for enters the Secret. */
  readonly key: "after-ack" | "before-ack";
  /** An item that a Secret of ours names is not journaled again. */
  readonly journalOnce: boolean;
  /** How long the Secret lives. */
  readonly record: "until-settled" | "with-its-pod";
  /** Patches and deletes of the Secret carry its resourceVersion. */
  readonly versions: boolean;
  /** The Pod is read live before the acknowledgement. */
  readonly readLive: boolean;
  /** Who acknowledges only while nobody else can have been offered the item. */
  readonly window: "everybody" | "first-operator" | "nobody";
  /** Whose a 200 with an older acknowledged_at is: somebody else's, unless the poll showed it; always; or never. */
  readonly olderAck: "refused-unless-polled" | "refused" | "believed";
  /** When a journal whose item is queued is dropped. */
  readonly drop: "no-ack-under-way" | "at-once";
  /**
   * Whose a starting item is after an acknowledgement without an answer. `by-evidence`: its acknowledged_at lies in our
   * window, which says nothing where the first one is kept; `by-owner`: as if that could always be told.
   */
  readonly unanswered: "by-evidence" | "by-owner" | "ours" | "not-ours";
  /**
   * What the operator does with an item that may be another client's: it sends one heartbeat if nobody else does, and
   * releases it; or it forgets it.
   */
  readonly doubted: "released" | "forgotten";
  /** What a stop asks for. */
  readonly stop: "fence" | "same-acknowledgement" | "unbeaten-since-the-end";
  /** A value is fenced only when it stood still for an interval. */
  readonly fenceStill: boolean;
  /** The same for a value that is adopted. */
  readonly adoptStill: boolean;
  /**
   * Whose running session may be told to stop. lease: Worker: one that holds the lease, as if that could be seen; one whose
   * heartbeat was seen to move, which is what the code can see; or any. lease: Operator: one whose lease is in hand.
   */
  readonly graceful: "moved" | "holding" | "any";
  /** lease: Worker: a container that does not leave by itself, though its item is not its own any more, has its Pod deleted. */
  readonly overstay: "deleted" | "stays";
  /**
   * lease: Operator. `stop`: a lease is beaten until the container has ended, and is enough for a stop then; one that is
   * taken up after a restart is, too, when the item is stopping already. `fence`: the item is fenced anew at the end.
   */
  readonly inHand: "stop" | "fence";
  /** lease: Operator: a lease may be given up after a TTL of silence, and the item looked at until it has lapsed, or forgotten. */
  readonly silence: "never" | "looked-at" | "forgotten";
  /** A session's item is not journaled while a Pod of that session runs. */
  readonly sessionTurn: boolean;
  /** The spec may name another Work API; claims ask the one they came from, or the one that it names now. */
  readonly moved: "never" | "asks-where-claimed" | "asks-where-named";
}

/** What the code does, as if it could see which container holds a lease: `graceful: "moved"` is what it can see. */
export const CODE: Rules = {
  operators: 1,
  items: 1,
  pods: 1,
  acknowledgements: 2,
  lease: "Worker",
  oneSession: false,
  deletion: false,
  userStops: "also-by-force",
  strict: false,
  secondAck: "refused",
  lapsed: "queued",
  lapsedStopping: "stays",
  unbeaten: "queued",
  stamp: "renewed",
  beatOnQueued: "refused",
  lateAck: "in-its-window",
  worker: "prompt",
  sigterm: false,
  key: "after-ack",
  journalOnce: true,
  record: "until-settled",
  versions: true,
  readLive: true,
  window: "everybody",
  olderAck: "refused-unless-polled",
  drop: "no-ack-under-way",
  unanswered: "by-evidence",
  doubted: "released",
  stop: "fence",
  fenceStill: true,
  adoptStill: true,
  graceful: "holding",
  overstay: "deleted",
  inHand: "stop",
  silence: "looked-at",
  sessionTurn: true,
  moved: "never",
  onPodFailure: "Stop",
};

/**
 * The protocol as it was first written down: a kept lease is fenced anew at the end, and never given up before it lapses;
 * what the list cannot show is known all the same.
 */
export const FIRST: Rules = {
  ...CODE,
  overstay: "stays",
  userStops: "gracefully",
  inHand: "fence",
  silence: "never",
  unanswered: "by-owner",
  doubted: "forgotten",
};
