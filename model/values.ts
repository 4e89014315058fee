import type { Protocol } from "./rules.ts";

/** The role of a rule's value. `ours`: what the code does. `removed`: the rule is removed, and a promise breaks. */
export type Standing =
  | "ours"
  | "removed"
  /** The rule is removed, but another one backs it up: a promise breaks only without both. */
  | { readonly behind: keyof Protocol }
  /** The rule is not removed: every promise holds, for this reason. */
  | { readonly holds: string };

type Values<Value> = Value extends boolean | string ? `${Value}` : never;

/** Every value of every rule. A new value needs its role here, and a removal needs its scope (scopes.ts). */
export const VALUES: {
  readonly [Rule in keyof Protocol]: { readonly [Value in Values<Protocol[Rule]>]: Standing };
} = {
  key: { "after-ack": "ours", "before-ack": "removed" },
  journalOnce: { true: "ours", false: "removed" },
  record: { "until-settled": "ours", "with-its-pod": "removed" },
  versions: { true: "ours", false: "removed" },
  readLive: { true: "ours", false: "removed" },
  window: {
    everybody: "ours",
    "first-operator": { holds: "of two clusters, one is as it should be: the other is none of ours" },
    nobody: { behind: "olderAck" },
  },
  olderAck: { "refused-unless-polled": "ours", refused: "removed", believed: { behind: "window" } },
  drop: { "no-ack-under-way": "ours", "at-once": "removed" },
  unanswered: {
    "by-evidence": "ours",
    "by-owner": { holds: "no operator can know that much" },
    ours: "removed",
    "not-ours": "removed",
  },
  doubted: { released: "ours", forgotten: "removed" },
  stop: { fence: "ours", "same-acknowledgement": "removed", "unbeaten-since-the-end": "removed" },
  fenceStill: { true: "ours", false: "removed" },
  adoptStill: { true: "ours", false: "removed" },
  graceful: {
    holding: "ours",
    moved: { holds: "what the code can see of it; with a second cluster it has a limit" },
    any: "removed",
  },
  overstay: { deleted: "ours", stays: "removed" },
  inHand: { stop: "ours", fence: { holds: "the protocol as it was first written down: as safe, and slower" } },
  silence: {
    "looked-at": "ours",
    never: { holds: "the protocol as it was first written down: it waits for the server" },
    forgotten: "removed",
  },
  sessionTurn: { true: "ours", false: "removed" },
  line: { "after-both": "ours", "before-opened": "removed", "before-assigned": "removed" },
  redelivery: { "looks-first": "ours", blind: "removed" },
  start: { shown: "ours", assumed: "removed" },
  lineLease: { true: "ours", false: "removed" },
  giveUp: { "container-ended": "ours", "send-failed": "removed" },
  reuse: { never: "ours", "while-waiting": "removed" },
  assignedAlone: { deleted: "ours", free: "removed" },
  leadership: { checked: "ours", unchecked: "removed" },
  sleep: { "before-secret": "ours", "after-secret": "removed" },
  sleepEnd: { "container-ended": "ours", "item-settled": "removed" },
  takeBack: { none: "ours", "if-waiting": "removed", "unless-running": "removed" },
  endedRecord: { true: "ours", false: "removed" },
  nextTurn: {
    "after-end": "ours",
    early: { holds: "only a Pod that sleeps is woken: a turn that waits beside a running one is harmless" },
  },
  freshPod: { "when-none-sleeps": "ours", "any-time": "removed" },
  wakeSession: { true: "ours", false: "removed" },
  wakeRead: { true: "ours", false: "removed" },
  removalLock: { true: "ours", false: "removed" },
  removalRead: { true: "ours", false: "removed" },
  removalEnd: { "carried-out": "ours", "given-up": "removed" },
  removalVersion: { true: "ours", false: "removed" },
  touchVersion: { true: "ours", false: "removed" },
  sleepVersion: { true: "ours", false: "removed" },
  deleteVersion: { true: "ours", false: "removed" },
  rerun: { "by-id": "ours", "by-name": "removed" },
  assign: { "before-ack": "ours", "with-opening": "removed" },
  assignVersion: { true: "ours", false: "removed" },
  volumeList: { adopts: "ours", lists: "removed", never: "removed" },
  volumeDoubt: { true: "ours", false: "removed" },
  warmPod: { "without-volume": "ours", "without-kept-volume": "removed", "any-session": "removed" },
  goingVolume: { left: "ours", used: "removed" },
  lostPod: { removed: "ours", used: "removed" },
  boundPod: { true: "ours", false: "removed" },
  podTakes: { true: "ours", false: { holds: "a claim takes the volume, too" } },
  claimTakes: { true: "ours", false: "removed" },
  marks: { "without-pod": "ours", "any-time": "removed" },
  markVersion: { true: "ours", false: "removed" },
  volumeDeleteVersion: { true: "ours", false: "removed" },
};
