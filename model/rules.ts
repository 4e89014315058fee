import type { LeaseKind } from "../src/protocol/journal.ts";

/**
 * The subject of one run of the model: a setting, and the protocol rules in force. The defaults match the code, except
 * for `graceful`, where the code sees less.
 */
export interface Rules extends Setting, Protocol {}

/** The number of each actor, what the Work API does where its contract is silent, and how workers and users behave. */
export interface Setting {
  readonly operators: number;
  readonly items: number;
  /** For each operator. */
  readonly pods: number;
  /** The most acknowledgements of an item. */
  readonly acknowledgements: number;
  readonly lease: LeaseKind;
  /** How a Pod waits for its session. A program that reads its line itself (`parking: Program`) waits like a shell. */
  readonly parking: "Key" | "Shell";
  /** Whether all items belong to one session. */
  readonly oneSession: boolean;
  /** Whether the Environment may be deleted. */
  readonly deletion: boolean;
  /** How a user stops an item. */
  readonly userStops: "gracefully" | "also-by-force";
  /**
   * When a user may delete claim Secrets. The operator then knows no more of the claim than after a restart.
   * `while-marked`: not between the opening of a woken Pod's claim and the patch that marks the Pod as assigned.
   */
  readonly secretDeletion: "never" | "while-marked" | "any-time";
  /** The most turns of a Pod, with `parking: Shell`. 1: sessions don't sleep, and a Pod serves one item. */
  readonly turns: number;
  /** Whether the kubelet may lose the record of a container that ended, and run it again. */
  readonly reruns: boolean;
  /** Whether a request without an answer about such a Pod may take effect later. */
  readonly lateRequests: boolean;
  /** The most volumes of an operator at a time, if each session has one; 0: sessions have none. */
  readonly volumes: number;
  /** Whether volumes may be deleted: those without a session, and those that were unused for long enough. */
  readonly volumeDeletion: boolean;
  /** Whether Pods and volumes without a session are replaced. */
  readonly newVolumes: boolean;
  /** Whether the creation of a session's Pod may take effect after its operator ended. */
  readonly latePods: boolean;
  /** Whether a user may delete volumes. */
  readonly volumeLoss: boolean;
  /**
   * Whether this is about a trace. New Pods are then at any of the free places, and also for sessions without an item in
   * the queue: one may just have left it.
   */
  readonly isTrace: boolean;
  /** Whether to check also what no rule of the operator can guarantee: S3p, S2w, S2o. */
  readonly strict: boolean;

  // --- The Work API, where its contract is silent
  /** An acknowledgement of an item that already left the queue. */
  readonly secondAck: "refused" | "accepted";
  /** An active item whose lease lapsed. */
  readonly lapsed: "queued" | "stopped";
  /** A stopping item whose lease lapsed. */
  readonly lapsedStopping: "stays" | "stopped";
  /** A starting item without heartbeats. */
  readonly unbeaten: "queued" | "stays";
  /** The acknowledged_at of an item that is acknowledged again. */
  readonly stamp: "renewed" | "kept";
  /** A heartbeat with NO_HEARTBEAT on a queued item. */
  readonly beatOnQueued: "refused" | "accepted";
  /**
   * When an acknowledgement takes effect that no request waits for any more. With `late`, the item may have been
   * offered to other clients.
   */
  readonly lateAck: "in-its-window" | "late";

  // --- The way to the Pod, with `parking: Shell`
  /**
   * When a line without an answer arrives: at any time, or, if its sender held the lease, before that lease lapses.
   */
  readonly lateLine: "at-any-time" | "in-its-lease";

  // --- Workers
  /**
   * `late`: believes in its lease for a while after it lapsed. `stays`: knows that it lost its item, but does not exit.
   */
  readonly worker: "prompt" | "late" | "stays";
  /** Whether a SIGTERM may arrive before the first heartbeat is answered; the stock worker stops its item anyway. */
  readonly sigterm: boolean;

  // --- What the spec asks for
  /** `Either`: Release for a container that died without a stop, and Stop for other ends. */
  readonly onPodFailure: "Stop" | "Release" | "Either";
}

/** The operator's own rules; values.ts explains each other value. */
export interface Protocol {
  /** When the key that the container waits for enters the Secret. */
  readonly key: "after-ack" | "before-ack";
  /** Whether an item that one of our Secrets names is not journaled again. */
  readonly journalOnce: boolean;
  /** How long the Secret lives. */
  readonly record: "until-settled" | "with-its-pod";
  /** Whether patches and deletes of the Secret carry its resourceVersion. */
  readonly versions: boolean;
  /** Whether the Pod is read live before the acknowledgement. */
  readonly readLive: boolean;
  /** Which operators acknowledge only while no other client can have been offered the item. */
  readonly window: "everybody" | "first-operator" | "nobody";
  /**
   * What a 200 with an older acknowledged_at means: another client's item unless the poll showed the value; always
   * another client's; or always ours.
   */
  readonly olderAck: "refused-unless-polled" | "refused" | "believed";
  /** When the journal of a queued item is dropped. */
  readonly drop: "no-ack-under-way" | "at-once";
  /**
   * Whose a starting item is after an unanswered acknowledgement. `by-evidence`: ours if its acknowledged_at lies in
   * our window, which proves nothing where the first value is kept. `by-owner`: as if the owner were always known.
   */
  readonly unanswered: "by-evidence" | "by-owner" | "ours" | "not-ours";
  /**
   * What the operator does with an item that may be another client's: send one heartbeat if no other client does, then
   * release it; or forget it.
   */
  readonly doubted: "released" | "forgotten";
  /** The precondition of a stop. */
  readonly stop: "fence" | "same-acknowledgement" | "unbeaten-since-the-end";
  /** Whether a value must be unchanged for an interval before it is fenced. */
  readonly fenceStill: boolean;
  /** The same for an adopted value. */
  readonly adoptStill: boolean;
  /**
   * Which running session may be told to stop. lease: Worker: one that holds the lease, as if that were visible; one
   * whose heartbeat was seen to change, which the code can see; or any. lease: Operator: one whose lease the operator
   * holds.
   */
  readonly graceful: "moved" | "holding" | "any";
  /** lease: Worker: whether the Pod is deleted when its container does not exit after losing its item. */
  readonly overstay: "deleted" | "stays";
  /**
   * lease: Operator. `stop`: the operator sends heartbeats until the container has ended, and may then stop without a
   * fence; the same holds for a lease adopted after a restart when the item is already stopping. `fence`: the operator
   * fences the item again at the end.
   */
  readonly inHand: "stop" | "fence";
  /**
   * lease: Operator: whether a lease may be abandoned after a TTL of silence, and whether the item is then watched
   * until the lease has lapsed, or forgotten.
   */
  readonly silence: "never" | "looked-at" | "forgotten";
  /** Whether a session's item is not journaled while a Pod of that session runs. */
  readonly sessionTurn: boolean;

  // --- parking: Shell
  /**
   * When a line is sent: after the Secret's `opened` and the Pod's `assigned` took effect, or before one of them. That of
   * a woken Pod never waits for `assigned`.
   */
  readonly line: "after-both" | "before-opened" | "before-assigned";
  /** Whether a process that knows of no start looks at the item before it delivers again. */
  readonly redelivery: "looks-first" | "blind";
  /**
   * When a process takes a program for started: when its marker, the log or, lease: Worker, the item's heartbeats show
   * it; or also when it has waited long enough.
   */
  readonly start: "shown" | "assumed";
  /** lease: Operator: whether the operator holds the lease before each delivery. */
  readonly lineLease: boolean;
  /** When the item of an opened claim is settled or released, whose program may not have started. */
  readonly giveUp: "container-ended" | "send-failed";
  /** Whether a Pod that still waits is given to another session after its claim was opened. */
  readonly reuse: "never" | "while-waiting";
  /** What becomes of a Pod that is marked as assigned and has no Secret. */
  readonly assignedAlone: "deleted" | "free";
  /** Whether an operator checks that it still leads before it sends a line. */
  readonly leadership: "checked" | "unchecked";

  // --- Sessions that sleep in their Pod
  /** When the Pod of a settled item is marked as sleeping: before its Secret is deleted, or after. */
  readonly sleep: "before-secret" | "after-secret";
  /** When it may be marked: after its turn's container was seen ended, or as soon as the item is settled. */
  readonly sleepEnd: "container-ended" | "item-settled";
  /**
   * Which Pods that are assigned and have no Secret sleep again instead of being deleted: those in which no program runs
   * and no line may be under way; of them, only those whose next turn waits; or none.
   */
  readonly takeBack: "unless-running" | "if-waiting" | "none";
  /** Whether the end of each turn is recorded on the Pod. Without it, any turn that waits is open. */
  readonly endedRecord: boolean;
  /** When the next turn is added: once the end of the previous one is recorded, or while that runs. */
  readonly nextTurn: "after-end" | "early";
  /** When an item of a session is given to another Pod than the session's. */
  readonly freshPod: "when-none-sleeps" | "any-time";
  /** Whether a sleeping Pod takes only items of its session. */
  readonly wakeSession: boolean;
  /** Whether a sleeping Pod is read live before the acknowledgement that wakes it. */
  readonly wakeRead: boolean;
  /** Whether a sleeping Pod is deleted only under the Secret of its next turn. */
  readonly removalLock: boolean;
  /** Whether it is read live under that lock, and deleted only if it still sleeps before that turn. */
  readonly removalRead: boolean;
  /** Whether a removal that holds its lock is carried to its end, or may be given up while the Pod sleeps. */
  readonly removalEnd: "carried-out" | "given-up";
  /** Whether its delete carries the Pod's resourceVersion. */
  readonly removalVersion: boolean;
  /** The same for the patch that marks the Pod as assigned. */
  readonly touchVersion: boolean;
  /** The same for the patch that marks it as sleeping. */
  readonly sleepVersion: boolean;
  /** The same for the delete of a Pod whose session is given up. */
  readonly deleteVersion: boolean;
  /** Whether a claim's container is known by its id, so that one that runs again is another one; or by its name. */
  readonly rerun: "by-id" | "by-name";

  // --- Sessions with volumes
  /** When a volume is assigned to its session: before the acknowledgement, or together with the opening. */
  readonly assign: "before-ack" | "with-opening";
  /** Whether the assignment carries the volume's resourceVersion. */
  readonly assignVersion: boolean;
  /**
   * What a new process does before its first assignment: it reads all volumes and writes to those without a session; it
   * only reads them; or nothing.
   */
  readonly volumeList: "adopts" | "lists" | "never";
  /** Whether, after an assignment without an answer, its volume and its session wait until one such write succeeded. */
  readonly volumeDoubt: boolean;
  /**
   * Which sessions a Pod may serve whose volume has none: those without a volume; also those whose volume is being
   * deleted; or any.
   */
  readonly warmPod: "without-volume" | "without-kept-volume" | "any-session";
  /** Whether a volume is given to a session while it is being deleted. */
  readonly goingVolume: "left" | "used";
  /** What becomes of a free Pod whose volume is gone, or being deleted. */
  readonly lostPod: "removed" | "used";
  /** Whether a Pod whose volume has a session serves only that. */
  readonly boundPod: boolean;
  /** Whether a volume is marked as in use before its session's next Pod is made. */
  readonly podTakes: boolean;
  /** Whether the first claim of a Pod writes to a volume that its session has already. */
  readonly claimTakes: boolean;
  /** When a session's volume is marked as unused. */
  readonly marks: "without-pod" | "any-time";
  /** Whether such a mark carries the resourceVersion. */
  readonly markVersion: boolean;
  /** The same for the deletion of a volume. */
  readonly volumeDeleteVersion: boolean;
}

/** What the code does, if it could see which container holds a lease; `graceful: "moved"` is what it can see. */
export const CODE: Rules = {
  operators: 1,
  items: 1,
  pods: 1,
  acknowledgements: 2,
  lease: "Worker",
  parking: "Key",
  oneSession: false,
  deletion: false,
  userStops: "also-by-force",
  secretDeletion: "never",
  turns: 1,
  reruns: false,
  lateRequests: true,
  volumes: 0,
  volumeDeletion: true,
  newVolumes: false,
  latePods: false,
  volumeLoss: false,
  isTrace: false,
  strict: false,
  secondAck: "refused",
  lapsed: "queued",
  lapsedStopping: "stays",
  unbeaten: "queued",
  stamp: "renewed",
  beatOnQueued: "refused",
  lateAck: "in-its-window",
  lateLine: "at-any-time",
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
  line: "after-both",
  redelivery: "looks-first",
  start: "shown",
  lineLease: true,
  giveUp: "container-ended",
  reuse: "never",
  assignedAlone: "deleted",
  leadership: "checked",
  sleep: "before-secret",
  sleepEnd: "container-ended",
  takeBack: "none",
  endedRecord: true,
  nextTurn: "after-end",
  freshPod: "when-none-sleeps",
  wakeSession: true,
  wakeRead: true,
  removalLock: true,
  removalRead: true,
  removalEnd: "carried-out",
  removalVersion: true,
  touchVersion: true,
  sleepVersion: true,
  deleteVersion: true,
  rerun: "by-id",
  assign: "before-ack",
  assignVersion: true,
  volumeList: "adopts",
  volumeDoubt: true,
  warmPod: "without-volume",
  goingVolume: "left",
  lostPod: "removed",
  boundPod: true,
  podTakes: true,
  claimTakes: true,
  marks: "without-pod",
  markVersion: true,
  volumeDeleteVersion: true,
  onPodFailure: "Stop",
};

/**
 * The first written version of the protocol. At the end it fences a kept lease again, and it never abandons a lease
 * before it lapses. It assumes knowledge that the list can't show.
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
