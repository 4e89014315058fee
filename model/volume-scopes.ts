import { CODE, type Rules } from "./rules.ts";
import { type Broken, brokenOf, LEASES, type Scope, scopesOf } from "./scopes.ts";

// What to explore of sessions with volumes. An item that is offered again represents the session's next one.

/** What the code does. */
const WITH_VOLUMES: Rules = { ...CODE, volumes: 1 };

/** Scopes about which volume a session gets. */
const KEPT: Partial<Rules> = { volumeDeletion: false };
const TWO_VOLUMES: Partial<Rules> = { pods: 2, volumes: 2 };
const TWO_PODS: Partial<Rules> = { ...KEPT, ...TWO_VOLUMES };
const TWO_SESSIONS: Partial<Rules> = { items: 2, oneSession: false };
const ONE_SESSION: Partial<Rules> = { items: 2, oneSession: true };
const ONCE = { acknowledgements: 1 } as const;

/** Two Pods mount one volume: the creation of one takes effect late. */
const SHARED: Partial<Rules> = { pods: 2, latePods: true };

/** A user deletes volumes, and Pods and volumes are replaced. */
const LOST: Partial<Rules> = { volumeLoss: true, newVolumes: true };

/** Pods with two turns, in which sessions sleep. */
const SLEEPING: Partial<Rules> = { parking: "Shell", turns: 2, oneSession: true };

/** A server that takes back no item, for a scope that would be too large otherwise. */
const PLAIN: Partial<Rules> = {
  userStops: "gracefully",
  lapsed: "stopped",
  lapsedStopping: "stopped",
  unbeaten: "stays",
};

const scope = scopesOf("volumes", WITH_VOLUMES);

export const VOLUME_SCOPES: readonly Scope[] = [
  ...LEASES.flatMap((lease) => [
    scope(lease, "1 item, 1 Pod, a user deletes volumes", [{ ...LOST, latePods: true }]),
    scope(lease, "2 items of two sessions, 1 Pod", [TWO_SESSIONS]),
    scope(lease, "1 item, 2 Pods, no volume is deleted", [TWO_PODS]),
    scope(lease, "1 item, 2 Pods with one volume, which is not deleted", [{ ...SHARED, ...KEPT }]),
    scope(lease, "1 item, 2 Pods, a user deletes volumes, acknowledged once", [
      { ...TWO_PODS, ...ONCE, volumeLoss: true },
    ]),
    scope(lease, "1 item, 1 Pod with 2 turns", [SLEEPING]),
    scope(lease, "1 item, 2 Pods", [TWO_VOLUMES], true),
    scope(lease, "1 item, 2 Pods with one volume", [SHARED], true),
    scope(
      lease,
      "1 item, 2 Pods, late and new ones, a user deletes volumes, acknowledged once",
      [{ ...TWO_PODS, ...LOST, ...ONCE, latePods: true }],
      true,
    ),
    scope(lease, "1 item, 1 Pod with 2 turns, a user deletes volumes", [{ ...SLEEPING, ...LOST }], true),
    scope(
      lease,
      "2 items of one session, 2 Pods, no volume is deleted",
      [{ ...TWO_PODS, ...ONCE, ...ONE_SESSION }],
      true,
    ),
    scope(
      lease,
      "2 items of one session, 2 Pods with one volume, which is not deleted, acknowledged once",
      [{ ...SHARED, ...KEPT, ...ONCE, ...ONE_SESSION }],
      true,
    ),
    scope(
      lease,
      "1 item, 2 Pods with 2 turns each, no volume is deleted",
      [{ ...TWO_PODS, ...SLEEPING, lateRequests: false }],
      true,
    ),
  ]),
  scope(
    "Worker",
    "2 items of two sessions, 2 Pods, no volume is deleted, acknowledged once",
    [{ ...TWO_PODS, ...TWO_SESSIONS, ...ONCE, ...PLAIN }],
    true,
  ),
];

const broken = brokenOf(WITH_VOLUMES, [CODE.lease]);

/** Each rule of volumes removed in turn, with the properties that then fail. */
export const WITHOUT_A_VOLUME_RULE: readonly Broken[] = [
  broken("a volume is assigned before the acknowledgement", ["S15"], { assign: "with-opening" }),
  broken("a Pod whose volume has a session serves only that session", ["S13"], {
    ...TWO_SESSIONS,
    ...KEPT,
    ...ONCE,
    boundPod: false,
  }),
  broken("the assignment carries the volume's resourceVersion", ["S13"], {
    ...TWO_SESSIONS,
    ...KEPT,
    ...ONCE,
    assignVersion: false,
  }),
  broken("a session that has a volume never gets a Pod whose volume has no session", ["S14"], {
    ...TWO_PODS,
    ...ONCE,
    warmPod: "any-session",
  }),
  broken("a new process lists the volumes before it assigns one", ["S14"], {
    ...TWO_PODS,
    ...ONCE,
    volumeList: "never",
  }),
  broken("a new process writes to each volume without a session before it assigns one", ["S14"], {
    ...TWO_PODS,
    ...ONCE,
    volumeList: "lists",
  }),
  broken("after an assignment without an answer, its volume and its session wait for such a write", ["S14"], {
    ...TWO_PODS,
    ...ONCE,
    volumeDoubt: false,
  }),
  broken("the first claim of a Pod writes to its volume, even if that is the session's", ["S15"], {
    claimTakes: false,
  }),
  broken("a volume is marked as unused only if no Pod uses it", ["S15"], { marks: "any-time" }),
  broken("the mark as unused carries the volume's resourceVersion", ["S15"], { markVersion: false }),
  broken("the deletion of a volume carries its resourceVersion", ["S15"], { volumeDeleteVersion: false }),
  broken("a volume that is being deleted is given to no session (here: a user deletes it)", ["S15"], {
    ...ONCE,
    volumeLoss: true,
    goingVolume: "used",
  }),
  broken("a session whose volume is being deleted gets no other one (here: a user deletes it)", ["S14"], {
    ...TWO_PODS,
    ...ONCE,
    ...PLAIN,
    volumeLoss: true,
    warmPod: "without-kept-volume",
  }),
  broken("a Pod whose volume is gone runs no session (here: a user deletes it)", ["S14"], {
    ...TWO_PODS,
    ...ONCE,
    ...PLAIN,
    volumeLoss: true,
    lostPod: "used",
  }),
  broken("a Pod whose volume is gone is removed (here: a user deletes it)", ["L"], {
    ...LOST,
    ...ONCE,
    lostPod: "used",
  }),
];
