import { describe, expect, test } from "vitest";
import {
  type BoundCapacityInput,
  type BoundPod,
  planBoundCapacity,
  planVolumeCapacity,
} from "../../src/pool/bound-capacity.ts";
import type { CapacityInput } from "../../src/pool/capacity.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const NOW = 10 * 60 * MINUTE;
const HASH = "new";

const input = (more: Partial<BoundCapacityInput> = {}): BoundCapacityInput => ({
  nowMs: NOW,
  hash: HASH,
  maxConcurrent: 3,
  mostFree: 3,
  busy: 0,
  creating: new Set(),
  pods: [],
  awaited: [],
  lastOfferedMs: () => NOW,
  isTaken: () => false,
  prepareTimeoutMs: 10 * MINUTE,
  unclaimedParkedMs: MINUTE,
  unclaimedPreparingMs: 5 * MINUTE,
  draining: false,
  ...more,
});
const plan = (more: Partial<BoundCapacityInput> = {}) => planBoundCapacity(input(more));

/** Sessions that wait and have a volume. */
const own = (...ids: string[]) => ids.map((sessionId) => ({ sessionId, hasVolume: true }));

let made = 0;
function pod(sessionId: string | null, more: Partial<BoundPod> = {}): BoundPod {
  made += 1;
  const state = more.state ?? "warm";
  return {
    name: `p${made}`,
    hash: HASH,
    state,
    createdAtMs: NOW - MINUTE,
    scheduledAtMs: state === "unscheduled" ? null : NOW - MINUTE,
    leaving: false,
    forbidden: false,
    sessionId,
    parkedMs: state === "warm" ? NOW - MINUTE : null,
    ...more,
  };
}

describe("creating Pods", () => {
  test("creates them for waiting sessions, in order, while there is room", () => {
    expect(plan({ awaited: own("a", "b", "c", "d"), busy: 1 }).sessions).toEqual(["a", "b"]);
  });

  test("skips sessions that have a Pod or a creation in flight", () => {
    const given = { awaited: own("a", "b", "c"), pods: [pod("a", { state: "preparing" })], creating: new Set(["b"]) };
    expect(plan(given)).toMatchObject({ sessions: ["c"], create: 1, remove: [], wanted: 3 });
  });

  test("skips a session whose volume another Pod may still write to", () => {
    expect(plan({ awaited: own("a", "b"), isTaken: (id) => id === "a" }).sessions).toEqual(["b"]);
  });

  test("skips a session whose Pod is only now being removed", () => {
    const old = pod("a", { hash: "old" });
    expect(plan({ awaited: own("a"), pods: [old] })).toMatchObject({
      sessions: [],
      remove: [{ name: old.name, reason: "Outdated" }],
    });
  });

  test("creates one at a time while containers fail to start", () => {
    expect(plan({ awaited: own("a", "b"), mostFree: 1 }).sessions).toEqual(["a"]);
    expect(plan({ awaited: own("b"), mostFree: 1, pods: [pod("a")] }).sessions).toEqual([]);
  });

  test("creates none while the Environment is being deleted", () => {
    const free = pod("a");
    expect(plan({ awaited: own("b"), pods: [free], draining: true })).toMatchObject({
      sessions: [],
      remove: [{ name: free.name, reason: "Draining" }],
    });
  });
});

describe("removing Pods", () => {
  test.each<[string, Partial<BoundPod>, Partial<BoundCapacityInput>]>([
    ["PrepareTimeout", { state: "preparing", scheduledAtMs: NOW - 10 * MINUTE }, {}],
    [
      "PrepareTimeout",
      { state: "preparing", createdAtMs: NOW - 10 * MINUTE, scheduledAtMs: Number.MAX_SAFE_INTEGER },
      {},
    ],
    ["NodeLeaving", { leaving: true }, {}],
    ["Forbidden", { forbidden: true }, {}],
    ["Outdated", { sessionId: null }, {}],
    ["Unclaimed", {}, { lastOfferedMs: () => NOW - MINUTE }],
    ["Unclaimed", { state: "unscheduled", createdAtMs: NOW - 6 * MINUTE }, { lastOfferedMs: () => NOW - 5 * MINUTE }],
    ["OverMaximum", {}, { busy: 3 }],
  ])("removes it as %s", (reason, of, more) => {
    const free = pod("a", of);
    expect(plan({ pods: [free], ...more }).remove).toEqual([{ name: free.name, reason }]);
  });

  test("removes the unparked one of two Pods of a session", () => {
    const parked = pod("a", { createdAtMs: NOW - SECOND });
    const late = pod("a", { state: "preparing" });
    expect(plan({ pods: [late, parked] }).remove).toEqual([{ name: late.name, reason: "Surplus" }]);
  });
});

describe("keeping Pods", () => {
  test.each<[string, Partial<BoundPod>, Partial<BoundCapacityInput>]>([
    [
      "keeps a Pod parked just now, although its item was last offered long ago",
      { parkedMs: NOW - 59 * SECOND },
      { lastOfferedMs: () => 0 },
    ],
    [
      "keeps a Pod whose item was offered recently",
      { parkedMs: 0, createdAtMs: 0 },
      { lastOfferedMs: () => NOW - 59 * SECOND },
    ],
    ["keeps a Pod that waits for a node", { state: "unscheduled", createdAtMs: 0 }, {}],
  ])("%s", (_, of, more) => {
    const { remove, againAtMs } = plan({ pods: [pod("a", of)], ...more });
    expect(remove).toEqual([]);
    expect(againAtMs).toBeGreaterThan(NOW);
  });
});

describe("a Pod without a node", () => {
  const late = () => pod("a", { state: "unscheduled", createdAtMs: NOW - 10 * MINUTE });

  test("keeps waiting while no other session waits for a Pod", () => {
    expect(plan({ pods: [late()], awaited: own("a"), maxConcurrent: 1 }).remove).toEqual([]);
  });

  test("yields to others after the prepare timeout, since their Pods may fit where its volume can't", () => {
    const stuck = late();
    const { remove } = plan({ pods: [stuck], awaited: own("a", "b"), maxConcurrent: 1 });
    expect(remove).toEqual([{ name: stuck.name, reason: "PrepareTimeout" }]);
    const young = pod("a", { state: "unscheduled", createdAtMs: NOW - 9 * MINUTE });
    expect(plan({ pods: [young], awaited: own("a", "b") })).toMatchObject({ remove: [], againAtMs: NOW + MINUTE });
  });
});

describe("Pods with a volume that has no session", () => {
  const shared = (
    bound: Partial<BoundCapacityInput>,
    unassigned: Partial<CapacityInput>,
    lost: readonly string[] = [],
  ) => {
    const { nowMs, hash, maxConcurrent, busy, draining, prepareTimeoutMs } = input(bound);
    const limits = { nowMs, hash, maxConcurrent, busy, draining, prepareTimeoutMs, warm: 0, demand: 0, creating: 0 };
    const rest = { parkedMaxAgeMs: 0, warmScaleDownMs: 5 * MINUTE, surplusSinceMs: null, surgeBlockedUntilMs: 0 };
    const warm = { ...limits, ...rest, pods: [], trusts: () => true, ...unassigned };
    return planVolumeCapacity(input(bound), warm, lost);
  };
  const fresh = (...ids: string[]) => ids.map((sessionId) => ({ sessionId, hasVolume: false }));

  test("are created for warm, and for sessions without a volume", () => {
    expect(shared({}, { warm: 2 })).toMatchObject({ create: 2, sessions: [], wanted: 2 });
    expect(shared({ awaited: fresh("a", "b") }, {})).toMatchObject({ create: 2, sessions: [] });
    expect(shared({ awaited: fresh("a") }, { warm: 1, pods: [pod(null)] })).toMatchObject({ create: 1, remove: [] });
  });

  test("share maxConcurrent with the Pods of sessions that have a volume", () => {
    expect(shared({ awaited: own("a") }, { warm: 3 })).toMatchObject({ create: 3, sessions: ["a"] });
    expect(shared({ pods: [pod("a")], busy: 1 }, { warm: 3 })).toMatchObject({ create: 1, sessions: [] });
    expect(shared({ creating: new Set(["a"]), busy: 1 }, { warm: 3 }).create).toBe(1);
  });

  test("give way to the Pod of a session that waits, but not to one that is only kept", () => {
    const free = [pod(null), pod(null), pod(null)];
    const given = shared({ awaited: own("a") }, { warm: 3, pods: free });
    expect(given).toMatchObject({ sessions: ["a"], remove: [{ reason: "OverMaximum" }] });
    expect(given.remove).toHaveLength(1);
    expect(shared({}, { warm: 3, pods: free }).remove).toEqual([]);
  });

  test("keep their room for sessions that have waited longer", () => {
    const given = { awaited: [...fresh("a", "b"), ...own("c")], busy: 1 };
    expect(shared(given, {})).toMatchObject({ create: 2, sessions: [] });
    expect(shared({ ...given, awaited: [...own("c"), ...fresh("a", "b")] }, {})).toMatchObject({
      create: 2,
      sessions: ["c"],
    });
  });

  test("are removed if their volume is gone", () => {
    expect(shared({}, {}, ["p"]).remove).toEqual([{ name: "p", reason: "VolumeLost" }]);
  });

  test("go with the others while the Environment is being deleted", () => {
    const [bound, free] = [pod("a"), pod(null)];
    const plan = shared({ pods: [bound], draining: true, awaited: fresh("b") }, { pods: [free] });
    expect(plan).toMatchObject({ create: 0, wanted: 0 });
    expect(plan.remove.map(({ name }) => name)).toEqual([bound.name, free.name]);
  });
});
