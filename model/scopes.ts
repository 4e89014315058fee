import type { LeaseKind } from "../src/protocol/journal.ts";
import type { Property } from "./properties.ts";
import { CODE, type Rules } from "./rules.ts";

/** What to explore, and the expected result. */
export interface Scope {
  readonly name: string;
  /** Each variant is explored separately. */
  readonly variants: readonly Rules[];
  /** The properties that fail; empty: all hold. */
  readonly fails: readonly Property[];
  /** Takes minutes instead of seconds, and gigabytes: only for the long run. */
  readonly isLarge: boolean;
}

/** Makes scopes of a kind, each for one kind of lease. @param base what the code does */
export function scopesOf(kind: string, base: Rules) {
  return (lease: LeaseKind, name: string, variants: readonly Partial<Rules>[], isLarge = false): Scope =>
    scope(`${lease}, ${kind}: ${name}`, { ...base, lease }, variants, isLarge);
}

/** Every combination of what the Work API's contract leaves open: 32. */
export const SERVERS: readonly Partial<Rules>[] = product({
  lapsed: ["queued", "stopped"],
  unbeaten: ["queued", "stays"],
  lapsedStopping: ["stays", "stopped"],
  secondAck: ["refused", "accepted"],
  onPodFailure: ["Stop", "Release"],
});

function product(values: { readonly [K in keyof Rules]?: readonly Rules[K][] }): Partial<Rules>[] {
  return Object.entries(values).reduce<Partial<Rules>[]>(
    (all, [name, each]) => all.flatMap((one) => each.map((value) => ({ ...one, [name]: value }))),
    [{}],
  );
}

export const LEASES: readonly LeaseKind[] = ["Worker", "Operator"];

function scope(name: string, base: Rules, variants: readonly Partial<Rules>[], isLarge: boolean): Scope {
  return { name, variants: variants.map((over) => ({ ...base, ...over })), fails: [], isLarge };
}

const [SMALL, LARGE] = [false, true];
const SECOND_ACKS = [{ secondAck: "refused" }, { secondAck: "accepted" }] as const;

/** Servers that keep the first acknowledged_at, as if an item's owner were always known. */
const KEPT = { stamp: "kept", unanswered: "by-owner" } as const;

/**
 * Servers where the owner is unknown, but which never take back a starting item and do end a stopping one; for others
 * see LIMITS.
 */
const DOUBTFUL = { unbeaten: "stays", lapsedStopping: "stopped" } as const;

/** Scopes in which the protocol holds, for the code or for the first written version. */
export function holdingScopes(base: Rules): Scope[] {
  return LEASES.flatMap((lease) => {
    const of = (name: string, variants: readonly Partial<Rules>[], isLarge: boolean) =>
      scope(`${lease}: ${name}`, { ...base, lease }, variants, isLarge);
    const every = (over: Partial<Rules>) => SERVERS.map((server) => ({ ...server, ...over }));
    return [
      of("1 operator, 1 item, 1 Pod, every server", every({ deletion: true }), SMALL),
      of("1 operator, 1 item, 2 Pods", [{ pods: 2, deletion: true }], SMALL),
      of("1 operator, 2 items, 1 Pod", [{ items: 2, deletion: true }], SMALL),
      of("1 operator, 2 items, 2 Pods", [{ items: 2, pods: 2 }], LARGE),
      of("2 operators, 1 item, every server", every({ operators: 2 }), LARGE),
      of("2 operators, Environment deleted", [{ operators: 2, deletion: true }], LARGE),
      of("2 operators, one ignores the window", bothSecondAcks({ operators: 2, window: "first-operator" }), LARGE),
      of("2 operators, both ignore the window", bothSecondAcks({ operators: 2, window: "nobody" }), LARGE),
      of("2 operators, 2 items, acknowledged once", [{ operators: 2, items: 2, acknowledgements: 1 }], LARGE),
      of(
        "2 operators, 1 item, 2 Pods each, acknowledged once",
        [{ operators: 2, pods: 2, acknowledgements: 1 }],
        LARGE,
      ),
      of("2 operators, acknowledged_at is kept", [{ operators: 2, lapsedStopping: "stopped", ...KEPT }], LARGE),
    ];
  });
}

function bothSecondAcks(over: Partial<Rules>): Partial<Rules>[] {
  return SECOND_ACKS.map((second) => ({ ...over, ...second }));
}

const OF_EACH_LEASE: readonly Scope[] = LEASES.flatMap((lease) => [
  scope(
    `${lease}: 1 operator, 2 items of one session, 2 Pods, acknowledged once`,
    { ...CODE, lease },
    [{ items: 2, pods: 2, oneSession: true, acknowledgements: 1 }],
    SMALL,
  ),
  scope(
    `${lease}: 1 operator, told to stop when its heartbeat moved`,
    { ...CODE, lease, graceful: "moved" },
    [
      { pods: 2, deletion: true },
      { items: 2, deletion: true },
    ],
    SMALL,
  ),
  scope(
    `${lease}: 1 operator, acknowledged_at is kept`,
    { ...CODE, lease },
    bothSecondAcks({ ...KEPT, pods: 2 }),
    SMALL,
  ),
  scope(
    `${lease}: 1 operator, acknowledged_at is kept, and says nothing`,
    { ...CODE, lease, ...DOUBTFUL, stamp: "kept" },
    bothSecondAcks({ pods: 2 }),
    SMALL,
  ),
  scope(
    `${lease}: 1 operator, acknowledgements take effect late`,
    { ...CODE, lease, ...DOUBTFUL, lateAck: "late" },
    bothSecondAcks({ pods: 2, deletion: true }),
    SMALL,
  ),
  scope(
    `${lease}: 2 operators, acknowledgements take effect late`,
    { ...CODE, lease, ...DOUBTFUL, lateAck: "late" },
    bothSecondAcks({ operators: 2, acknowledgements: 1 }),
    SMALL,
  ),
  scope(
    `${lease}: 2 operators, acknowledged once`,
    { ...CODE, lease },
    [
      { operators: 2, acknowledgements: 1 },
      { operators: 2, acknowledgements: 1, onPodFailure: "Release" },
    ],
    SMALL,
  ),
]);

/** What the code has in addition to the first written version of the protocol. */
export const CODE_SCOPES: readonly Scope[] = [
  ...OF_EACH_LEASE,
  scope("Worker: 1 operator, workers that stay", CODE, [{ pods: 2, deletion: true, worker: "stays" }], SMALL),
];

/** A scope without one rule, or a limit that no rule of the operator can lift. */
export interface Broken extends Scope {
  /** The removed rule as text; for a limit, its cause. */
  readonly without: string;
  readonly isLimit: boolean;
}

function broken(without: string, fails: readonly Property[], over: Partial<Rules>, more: Partial<Broken> = {}): Broken {
  const name = more.isLimit ? `limit: ${without}` : `without: ${without}`;
  return { name, without, fails, variants: [{ ...CODE, ...over }], isLarge: false, isLimit: false, ...more };
}

/**
 * Makes scopes without one rule.
 * @param base what the code does
 * @param all the kinds of leases, unless a scope names some
 */
export function brokenOf(base: Rules, all: readonly LeaseKind[] = LEASES) {
  return (
    without: string,
    fails: readonly Property[],
    over: Partial<Rules>,
    leases: readonly LeaseKind[] = all,
  ): Broken => {
    const variants = leases.map((lease) => ({ ...base, lease, ...over }));
    return { name: `without: ${without}`, without, fails, variants, isLarge: false, isLimit: false };
  };
}

const TWO = { operators: 2 } as const;
const BY_OPERATOR = { lease: "Operator" } as const;
const LIMIT = { isLimit: true } as const;

/** Each rule removed in turn, alone unless another rule backs it up (values.ts), with the properties that then fail. */
export const WITHOUT_A_RULE: readonly Broken[] = [
  broken("the key enters the Secret only after the acknowledgement", ["S4", "L"], { key: "before-ack" }),
  broken("a journal is dropped only when no acknowledgement can be under way", ["L"], { drop: "at-once" }),
  broken("a starting item after an unanswered acknowledgement: not dropped when it is ours", ["L"], {
    unanswered: "not-ours",
    unbeaten: "stays",
  }),
  broken("a starting item after an unanswered acknowledgement: opened only when it is ours", ["S4"], {
    ...TWO,
    unanswered: "ours",
    acknowledgements: 1,
  }),
  broken("an item that may be ours is not forgotten", ["L"], {
    ...DOUBTFUL,
    doubted: "forgotten",
    lateAck: "late",
  }),
  broken("an item that is journaled is not journaled again", ["S2b"], { journalOnce: false, pods: 2 }),
  broken("the Secret lives until the item is settled", ["L"], { record: "with-its-pod", unbeaten: "stays" }),
  broken("patches and deletes carry the resourceVersion", ["S4", "L"], { versions: false, items: 2 }),
  broken("the Pod is read live before the acknowledgement", ["S1"], { readLive: false }),
  broken("a stop comes after a fence (here: unless a heartbeat came since the container's end)", ["S3", "L"], {
    ...TWO,
    stop: "unbeaten-since-the-end",
    unbeaten: "stays",
  }),
  broken("a stop comes after a fence (here: the same acknowledged_at)", ["S3"], {
    ...TWO,
    stop: "same-acknowledgement",
  }),
  broken("a fence is for a value that did not change", ["S3"], { ...TWO, fenceStill: false }),
  broken("an adopted value did not change", ["S2", "S3", "L"], { ...TWO, ...BY_OPERATOR, adoptStill: false }),
  broken("only the side that surely holds is told to stop", ["S3"], { ...TWO, graceful: "any" }),
  broken("no client acknowledges after its window, or a 200 with an older acknowledged_at is a refusal", ["L"], {
    ...TWO,
    ...BY_OPERATOR,
    acknowledgements: 1,
    secondAck: "accepted",
    olderAck: "believed",
    window: "nobody",
  }),
  broken("a 200 with an older acknowledged_at is none if the poll showed the same one", ["L"], {
    pods: 2,
    stamp: "kept",
    olderAck: "refused",
    unbeaten: "stays",
  }),
  broken("a lease lost by silence is checked until it has lapsed", ["L"], { ...BY_OPERATOR, silence: "forgotten" }),
  broken("a container that stays after it lost its item has its Pod deleted", ["L"], {
    worker: "stays",
    overstay: "stays",
  }),
  broken("a session's item waits while a Pod of that session runs", ["S5"], {
    items: 2,
    pods: 2,
    oneSession: true,
    sessionTurn: false,
    acknowledgements: 1,
  }),
];

/** What no rule of the operator can guarantee. */
export const LIMITS: readonly Broken[] = [
  broken("a stock worker that is late to notice the lapse", ["S3"], { ...TWO, worker: "late" }, LIMIT),
  broken(
    "a stock worker that gets SIGTERM before its first heartbeat is answered",
    ["S3"],
    { ...TWO, sigterm: true },
    LIMIT,
  ),
  broken(
    "a heartbeat that moved may be that of another cluster's container",
    ["S3"],
    { ...TWO, graceful: "moved" },
    LIMIT,
  ),
  broken("two containers, and a stop in another's grace (Worker)", ["S2w", "S3p"], { ...TWO, strict: true }, LIMIT),
  broken(
    "two containers, and a stop in another's grace (Operator)",
    ["S2o", "S2w", "S3p"],
    { ...TWO, ...BY_OPERATOR, strict: true },
    LIMIT,
  ),
  broken(
    "an item acknowledged late, with heartbeats of a previous container, on a server that never ends a stopping item",
    ["L"],
    { pods: 2, lateAck: "late", unbeaten: "stays" },
    LIMIT,
  ),
  broken("a server that accepts heartbeats on queued items", ["L"], { ...TWO, beatOnQueued: "accepted" }, LIMIT),
];

/** The weaker rule that holds only on some servers. */
export const WEAKER: Scope = scope(
  "a stop by the same acknowledged_at alone, where starting items never expire",
  CODE,
  [{ operators: 2, stop: "same-acknowledgement", unbeaten: "stays", doubted: "forgotten" }],
  SMALL,
);
