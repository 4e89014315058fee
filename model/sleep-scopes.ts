import { CODE, type Rules } from "./rules.ts";
import { type Broken, brokenOf, LEASES, type Scope, scopesOf } from "./scopes.ts";

// What to explore of sessions that sleep in their Pod. An item that is offered again represents the session's next one.

/** What the code does: a Pod has two turns. */
const SLEEPING: Rules = { ...CODE, parking: "Shell", turns: 2, oneSession: true };

const TWO_ITEMS = { items: 2, acknowledgements: 1 } as const;

/** Two sessions, whose items are offered again. */
const TWO_SESSIONS: Partial<Rules> = {
  items: 2,
  oneSession: false,
  userStops: "gracefully",
  lapsed: "stopped",
  lapsedStopping: "stopped",
};

/** For scopes with many states, such as those of several Pods: without the late requests, which others have. */
const NO_LATE = { lateRequests: false } as const;

const scope = scopesOf("sleeping", SLEEPING);

const OF_EACH_LEASE: readonly Scope[] = LEASES.flatMap((lease) => [
  scope(lease, "1 item, 2 turns, Stop and Release", [{ deletion: true }, { onPodFailure: "Release" }]),
  scope(lease, "1 item, 2 turns, containers that run again", [{ ...NO_LATE, reruns: true }]),
  scope(lease, "1 item, 3 turns", [{ turns: 3 }]),
  scope(lease, "2 items of two sessions, 2 turns", [{ ...TWO_ITEMS, oneSession: false }]),
  scope(lease, "no mark before the Secret is deleted, but Pods left assigned sleep again unless a program may run", [
    { sleep: "after-secret", takeBack: "unless-running" },
  ]),
  scope(lease, "a user deletes Secrets", [{ secretDeletion: "while-marked" }]),
  scope(lease, "1 item, 2 Pods with 2 turns each", [{ ...NO_LATE, pods: 2 }]),
  scope(lease, "2 items of one session, 2 turns, Environment deleted", [{ ...TWO_ITEMS, deletion: true }], true),
  scope(lease, "1 item, 3 turns, containers that run again", [{ turns: 3, reruns: true }], true),
]);

export const SLEEP_SCOPES: readonly Scope[] = [
  ...OF_EACH_LEASE,
  scope(
    "Worker",
    "2 items of one session, 2 Pods with 2 turns each",
    [{ ...TWO_ITEMS, ...NO_LATE, pods: 2, userStops: "gracefully" }],
    true,
  ),
  scope("Worker", "2 operators, 1 item, 2 turns", [{ ...NO_LATE, operators: 2, userStops: "gracefully" }], true),
];

const broken = brokenOf(SLEEPING);

/** Each rule of sleeping sessions removed in turn, with the properties that then fail. */
export const WITHOUT_A_SLEEP_RULE: readonly Broken[] = [
  broken("a Pod is marked as sleeping before its Secret is deleted", ["S12"], { sleep: "after-secret" }),
  broken("a Pod is marked as sleeping only after its turn's container was seen ended", ["S7", "S9", "S11", "S12"], {
    ...NO_LATE,
    sleepEnd: "item-settled",
  }),
  broken(
    "a Pod that is assigned and has no Secret is deleted, even if its turn waits (here: a user deletes the Secret)",
    ["S8", "S11", "S12"],
    { takeBack: "if-waiting", secretDeletion: "while-marked" },
    ["Worker"],
  ),
  broken(
    "a Pod that is assigned and has no Secret is deleted, even if nothing runs in it (here: a user deletes the Secret)",
    ["S8", "S11", "S12"],
    { takeBack: "unless-running", secretDeletion: "while-marked" },
    ["Worker"],
  ),
  broken(
    "a late patch of another session's claim can't rename a sleeping Pod, which then would run that session",
    ["S10", "S12"],
    { takeBack: "if-waiting", touchVersion: false, ...TWO_SESSIONS },
    ["Worker"],
  ),
  broken(
    "the end of each turn is recorded on its Pod",
    ["S1", "S9", "S11", "S12"],
    { ...NO_LATE, endedRecord: false, reruns: true },
    ["Worker"],
  ),
  broken(
    "a session's item is given to another Pod only when none of its Pods sleeps",
    ["S5"],
    { ...NO_LATE, freshPod: "any-time", pods: 2 },
    ["Worker"],
  ),
  broken(
    "a sleeping Pod takes only items of its session",
    ["S1", "S10"],
    { ...TWO_ITEMS, ...NO_LATE, oneSession: false, wakeSession: false },
    ["Worker"],
  ),
  broken("a sleeping Pod is read live before the acknowledgement that wakes it", ["S1"], { wakeRead: false }),
  broken("a sleeping Pod is deleted only under the Secret of its next turn", ["S12"], { removalLock: false }),
  broken(
    "a sleeping Pod is read live under that lock, and must still sleep before the locked turn",
    ["S12"],
    { removalRead: false, turns: 3 },
    ["Worker"],
  ),
  broken(
    "the delete of a sleeping Pod carries its resourceVersion (here: the locked turn ends, and is skipped)",
    ["S12"],
    { removalVersion: false, turns: 3 },
    ["Worker"],
  ),
  broken("a removal that holds its lock is carried to its end", ["S12"], { removalEnd: "given-up" }),
  broken("the patch that marks a Pod as assigned carries its resourceVersion", ["S12"], { touchVersion: false }, [
    "Worker",
  ]),
  broken(
    "the patch that marks a Pod as sleeping carries its resourceVersion (here: a turn was skipped since)",
    ["S11", "S12"],
    { sleepVersion: false, turns: 3 },
    ["Worker"],
  ),
  broken("the delete of a Pod whose session is given up carries its resourceVersion", ["S12"], {
    deleteVersion: false,
  }),
  broken(
    "a line is delivered only to the container that the claim was made for, by its id",
    ["S9"],
    { ...NO_LATE, rerun: "by-name", reruns: true },
    ["Worker"],
  ),
];

/** What no rule of the operator can guarantee. */
export const SLEEP_LIMITS: readonly Broken[] = [
  {
    ...broken(
      "a user who deletes a claim's Secret between its line and the mark of its woken Pod",
      ["S8", "S11", "S12"],
      { secretDeletion: "any-time" },
      ["Worker"],
    ),
    isLimit: true,
  },
];
