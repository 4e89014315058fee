import { describe, expect, test } from "vitest";
import { type CapacityInput, type FreePod, planCapacity, SURGE_PATIENCE_MS } from "../../src/pool/capacity.ts";

const MINUTE = 60_000;
const NOW = 10 * 60 * MINUTE;
const HASH = "new";
const OLD = "old";

const input = (more: Partial<CapacityInput> = {}): CapacityInput => ({
  nowMs: NOW,
  hash: HASH,
  maxConcurrent: 10,
  warm: 0,
  demand: 0,
  busy: 0,
  creating: 0,
  pods: [],
  trusts: () => true,
  parkedMaxAgeMs: 10 * MINUTE,
  prepareTimeoutMs: 10 * MINUTE,
  warmScaleDownMs: 5 * MINUTE,
  surplusSinceMs: null,
  surgeBlockedUntilMs: 0,
  draining: false,
  ...more,
});
const plan = (more: Partial<CapacityInput> = {}) => planCapacity(input(more));

let made = 0;
/** A free Pod, bound to its node at its creation. */
function pod(state: FreePod["state"], more: Partial<FreePod> & { ageMs?: number } = {}): FreePod {
  const { ageMs = MINUTE, ...rest } = more;
  const createdAtMs = NOW - ageMs;
  made += 1;
  return {
    name: `p${made}`,
    hash: HASH,
    state,
    createdAtMs,
    scheduledAtMs: state === "unscheduled" ? null : createdAtMs,
    leaving: false,
    forbidden: false,
    ...rest,
  };
}
const parked = (ageMs = MINUTE) => pod("warm", { ageMs });
const preparing = (ageMs = MINUTE) => pod("preparing", { ageMs });
const unscheduled = (ageMs = MINUTE) => pod("unscheduled", { ageMs });
const outdated = (state: FreePod["state"] = "warm") => pod(state, { hash: OLD });
/** Past its maximum age, including jitter. */
const aged = () => parked(11 * MINUTE);
const NOTHING = { create: 0, remove: [] };

describe("the number of Pods", () => {
  test.each<[string, Partial<CapacityInput>, number]>([
    ["nothing requested", {}, 0],
    ["only warm Pods", { warm: 2 }, 2],
    ["the queue's demand in addition to warm", { warm: 2, demand: 3 }, 5],
    ["no more than maxConcurrent", { warm: 2, demand: 30 }, 10],
    ["running sessions count toward maxConcurrent", { warm: 2, demand: 30, busy: 7 }, 3],
    ["warm Pods are replaced while sessions run", { warm: 2, busy: 3 }, 2],
    ["more sessions than a maximum that was lowered meanwhile", { warm: 2, busy: 12 }, 0],
  ])("%s", (_, more, wanted) => {
    expect(plan(more)).toMatchObject({ wanted, create: wanted, remove: [] });
  });

  test("counts Pods in preparation, whether or not the cache shows them", () => {
    const pods = [parked(), preparing(), unscheduled()];
    expect(plan({ warm: 5, creating: 1, pods })).toMatchObject({ create: 1, remove: [] });
    expect(plan({ warm: 4, creating: 1, pods })).toMatchObject(NOTHING);
  });

  test("removes the least useful Pods for a lowered maximum: unscheduled, then preparing, then the youngest", () => {
    const [old, young, getting, waiting] = [parked(3 * MINUTE), parked(2 * MINUTE), preparing(), unscheduled()];
    const names = (maxConcurrent: number) =>
      plan({ maxConcurrent, warm: 4, pods: [young, getting, waiting, old] }).remove.map(({ name }) => name);
    expect(names(3)).toEqual([waiting.name]);
    expect(names(2)).toEqual([waiting.name, getting.name]);
    expect(names(1)).toEqual([waiting.name, getting.name, young.name]);
  });

  test("removes unparked Pods to make room for creations in flight beyond the maximum", () => {
    const pods = [unscheduled()];
    expect(plan({ maxConcurrent: 1, warm: 1, creating: 1, pods })).toMatchObject({
      create: 0,
      remove: [{ reason: "OverMaximum" }],
    });
  });
});

describe("surplus", () => {
  const pods = [parked(3 * MINUTE), parked(2 * MINUTE), preparing()];

  test("is kept for a while, since the queue may fill again", () => {
    expect(plan({ warm: 1, pods })).toMatchObject({ ...NOTHING, surplusSinceMs: NOW, againAtMs: NOW + 5 * MINUTE });
    const since = NOW - 4 * MINUTE;
    expect(plan({ warm: 1, pods, surplusSinceMs: since })).toMatchObject({
      ...NOTHING,
      surplusSinceMs: since,
      againAtMs: NOW + MINUTE,
    });
  });

  test("is removed after that, unready Pods first", () => {
    const { remove, surplusSinceMs } = plan({ warm: 1, pods, surplusSinceMs: NOW - 5 * MINUTE });
    expect(remove).toEqual([
      { name: pods[2]?.name, reason: "Surplus" },
      { name: pods[1]?.name, reason: "Surplus" },
    ]);
    expect(surplusSinceMs).toBeNull();
  });

  test("starts a new period after the surplus was needed meanwhile", () => {
    expect(plan({ warm: 3, pods, surplusSinceMs: NOW - 4 * MINUTE })).toMatchObject({ surplusSinceMs: null });
  });

  test("scales to zero with warm 0", () => {
    const last = parked();
    expect(plan({ pods: [last], surplusSinceMs: NOW - 5 * MINUTE })).toMatchObject({
      remove: [{ name: last.name, reason: "Surplus" }],
    });
  });

  test("is removed at once with no time to wait", () => {
    expect(plan({ pods: [parked()], warmScaleDownMs: 0 }).remove).toHaveLength(1);
  });

  test("removes an unneeded aged Pod for its age, instead of keeping it for a replacement", () => {
    const old = aged();
    expect(plan({ pods: [old] })).toMatchObject({ create: 0, remove: [{ name: old.name, reason: "Aged" }] });
  });

  test("does not remove a serving outdated Pod for a surplus of unready new ones", () => {
    const serves = outdated();
    const waiting = [unscheduled(), unscheduled()];
    const { remove } = plan({ warm: 1, pods: [serves, ...waiting], surplusSinceMs: NOW - 5 * MINUTE });
    expect(remove).toEqual([{ name: waiting[0]?.name, reason: "Surplus" }]);
  });

  test("does not remove a ready Pod for one in creation", () => {
    expect(plan({ warm: 1, pods: [parked()], creating: 1, surplusSinceMs: NOW - 5 * MINUTE }).remove).toEqual([]);
  });
});

describe("preparation", () => {
  test("replaces a Pod with a node that is not parked in prepareTimeoutSeconds", () => {
    const stuck = preparing(10 * MINUTE);
    expect(plan({ warm: 1, pods: [stuck] })).toMatchObject({
      create: 1,
      remove: [{ name: stuck.name, reason: "PrepareTimeout" }],
    });
    expect(plan({ warm: 1, pods: [preparing(10 * MINUTE - 1)] })).toMatchObject({ ...NOTHING, againAtMs: NOW + 1 });
  });

  test("counts the time from the binding, not from the creation", () => {
    const late = pod("preparing", { ageMs: 60 * MINUTE, scheduledAtMs: NOW - MINUTE });
    expect(plan({ warm: 1, pods: [late] })).toMatchObject(NOTHING);
  });

  test("does not believe a binding time far in the future", () => {
    const year9999 = Date.parse("9999-12-31T23:59:59Z");
    const stuck = pod("preparing", { ageMs: 10 * MINUTE, scheduledAtMs: year9999 });
    expect(plan({ warm: 1, pods: [stuck] }).remove).toEqual([{ name: stuck.name, reason: "PrepareTimeout" }]);
    const young = pod("preparing", { ageMs: 9 * MINUTE, scheduledAtMs: year9999 });
    expect(plan({ warm: 1, pods: [young] })).toMatchObject({ ...NOTHING, againAtMs: NOW + MINUTE });
    // A clock may run ahead.
    const ahead = pod("preparing", { ageMs: 60 * MINUTE, scheduledAtMs: NOW + 10 * MINUTE });
    expect(plan({ warm: 1, pods: [ahead] })).toMatchObject({ ...NOTHING, againAtMs: NOW + 20 * MINUTE });
  });

  test("never replaces a Pod without a node, since a node may be starting", () => {
    expect(plan({ warm: 1, pods: [unscheduled(24 * 60 * MINUTE)] })).toMatchObject(NOTHING);
  });
});

describe("age", () => {
  test("removes none while another's successor is missing", () => {
    const pods = [aged(), aged()];
    expect(plan({ warm: 3, pods })).toMatchObject({ create: 1, remove: [] });
  });

  test("deletes the old Pod first if two or more are free, one at a time", () => {
    const pods = [aged(), aged(), parked()];
    expect(plan({ warm: 3, pods })).toMatchObject({
      create: 1,
      remove: [{ name: pods[0]?.name, reason: "Aged" }],
    });
    expect(plan({ warm: 3, pods: pods.slice(1), creating: 1 })).toMatchObject(NOTHING);
    expect(plan({ warm: 3, pods: [...pods.slice(1), preparing()] })).toMatchObject(NOTHING);
    expect(plan({ warm: 3, pods: [...pods.slice(1), parked()] })).toMatchObject({
      create: 1,
      remove: [{ name: pods[1]?.name }],
    });
  });

  test("creates the replacement of the only free Pod first, one over the maximum", () => {
    const old = aged();
    const only = { warm: 1, maxConcurrent: 1 };
    expect(plan({ ...only, pods: [old] })).toMatchObject({ create: 1, remove: [] });
    expect(plan({ ...only, pods: [old], creating: 1 })).toMatchObject(NOTHING);
    expect(plan({ ...only, pods: [old, preparing()] })).toMatchObject(NOTHING);
    expect(plan({ ...only, pods: [old, parked()] })).toMatchObject({
      create: 0,
      remove: [{ name: old.name, reason: "Aged" }],
    });
  });

  test("leaves no room over the maximum for an old Pod that sessions displaced", () => {
    const { remove } = plan({ warm: 1, maxConcurrent: 2, busy: 2, pods: [aged()] });
    expect(remove).toHaveLength(1);
  });

  test("never replaces a Pod for its age with parkedMaxAgeSeconds: 0", () => {
    expect(plan({ warm: 1, parkedMaxAgeMs: 0, pods: [parked(24 * 60 * MINUTE)] })).toMatchObject({
      ...NOTHING,
      againAtMs: null,
    });
  });

  test("spreads the ages of Pods made together over a fifth of the span, with a fixed time for each", () => {
    const pods = Array.from({ length: 50 }, () => parked(0));
    const agedAt = pods.map((one) => plan({ warm: 1, pods: [one] }).againAtMs ?? 0);
    for (const at of agedAt) {
      expect(at).toBeGreaterThanOrEqual(NOW + 8 * MINUTE);
      expect(at).toBeLessThanOrEqual(NOW + 10 * MINUTE);
    }
    expect(new Set(agedAt).size).toBeGreaterThan(40);
    expect(pods.map((one) => plan({ warm: 1, pods: [one] }).againAtMs)).toEqual(agedAt);
  });

  test("does not count the wait for a node", () => {
    const late = pod("warm", { ageMs: 60 * MINUTE, scheduledAtMs: NOW - MINUTE });
    expect(plan({ warm: 1, pods: [late] })).toMatchObject(NOTHING);
  });

  test("does not keep a Pod young because of a binding time far in the future", () => {
    const old = [1, 2].map(() => pod("warm", { ageMs: 11 * MINUTE, scheduledAtMs: Number.MAX_SAFE_INTEGER }));
    expect(plan({ warm: 2, pods: old }).remove).toEqual([{ name: old[0]?.name, reason: "Aged" }]);
  });

  test("abandons a replacement without a node after a minute, and does not retry at once", () => {
    const pods = [aged(), unscheduled(SURGE_PATIENCE_MS)];
    expect(plan({ warm: 1, pods })).toMatchObject({
      create: 0,
      remove: [{ name: pods[1]?.name, reason: "SurgeGivenUp" }],
    });
    const young = [aged(), unscheduled(SURGE_PATIENCE_MS - 1)];
    expect(plan({ warm: 1, pods: young })).toMatchObject({ ...NOTHING, againAtMs: NOW + 1 });
  });

  test("tries the next replacement when the pause has ended", () => {
    const pods = [aged()];
    const until = NOW + 5 * MINUTE;
    expect(plan({ warm: 1, pods, surgeBlockedUntilMs: until })).toMatchObject({ ...NOTHING, againAtMs: until });
    expect(plan({ warm: 1, pods, surgeBlockedUntilMs: NOW })).toMatchObject({ create: 1 });
  });

  test("keeps a needed Pod without a node, which is no replacement", () => {
    expect(plan({ warm: 2, pods: [aged(), unscheduled(SURGE_PATIENCE_MS)] })).toMatchObject(NOTHING);
    const rolling = [outdated(), aged(), unscheduled(SURGE_PATIENCE_MS)];
    expect(plan({ warm: 2, pods: rolling }).remove).toEqual([]);
  });
});

describe("a change of the template", () => {
  test("removes unready old Pods at once, and keeps serving ones until new ones are parked", () => {
    const pods = [outdated(), outdated(), outdated("preparing"), outdated("unscheduled")];
    expect(plan({ warm: 2, pods })).toMatchObject({
      create: 2,
      remove: pods.slice(2).map(({ name }) => ({ name, reason: "Outdated" })),
    });
  });

  test("keeps old Pods that only lack an attach, as after a restart of the operator", () => {
    const pods = [1, 2].map(() => pod("preparing", { hash: OLD, unreachable: true, scheduledAtMs: NOW - 29_999 }));
    expect(plan({ warm: 2, pods }).remove).toEqual([]);
    const lost = pods.map((each) => ({ ...each, scheduledAtMs: NOW - 30_000 }));
    expect(plan({ warm: 2, pods: lost }).remove).toHaveLength(2);
    expect(plan({ warm: 2, pods: [...pods, parked()] }).remove).toHaveLength(1);
  });

  test("removes an old Pod for each new one that is parked", () => {
    const pods = [outdated(), outdated()];
    expect(plan({ warm: 2, pods: [...pods, parked(), preparing()] })).toMatchObject({
      create: 0,
      remove: [{ reason: "Outdated" }],
    });
    expect(plan({ warm: 2, pods: [...pods, parked(), parked()] }).remove).toHaveLength(2);
  });

  test("replaces Pods one by one at the maximum, one over it", () => {
    const pods = [outdated(), outdated(), outdated()];
    const full = { warm: 3, maxConcurrent: 3 };
    expect(plan({ ...full, pods })).toMatchObject({ create: 1, remove: [] });
    expect(plan({ ...full, pods, creating: 1 })).toMatchObject(NOTHING);
    expect(plan({ ...full, pods: [...pods, preparing()] })).toMatchObject(NOTHING);
    expect(plan({ ...full, pods: [...pods, parked()] })).toMatchObject({
      create: 1,
      remove: [{ name: pods[0]?.name, reason: "Outdated" }],
    });
  });

  test("removes old Pods that are never claimed at once, which makes room at the maximum", () => {
    const pods = [outdated(), outdated()];
    const more = { warm: 1, demand: 3, maxConcurrent: 2, trusts: (hash: string) => hash !== OLD };
    expect(plan({ ...more, pods })).toMatchObject({
      create: 2,
      remove: pods.map(({ name }) => ({ name, reason: "Outdated" })),
    });
    expect(plan({ ...more, pods: [parked(), parked()] })).toMatchObject(NOTHING);
  });

  test("removes old Pods beyond the wanted number at once", () => {
    expect(plan({ warm: 1, pods: [outdated(), outdated(), outdated()] }).remove).toHaveLength(2);
    expect(plan({ warm: 0, pods: [outdated()] }).remove).toHaveLength(1);
  });

  test("keeps old Pods serving if the new template can't be prepared", () => {
    const pods = [outdated(), preparing(9 * MINUTE), unscheduled(60 * MINUTE)];
    expect(plan({ warm: 2, pods }).remove).toEqual([]);
  });
});

describe("nodes that are being removed", () => {
  const leaving = (state: FreePod["state"] = "warm") => pod(state, { leaving: true });

  test("removes a free Pod there at once and creates another in the same plan, since it could not serve", () => {
    const [lost, kept] = [leaving(), parked()];
    expect(plan({ warm: 2, pods: [lost, kept] })).toMatchObject({
      create: 1,
      remove: [{ name: lost.name, reason: "NodeLeaving" }],
    });
  });

  test("removes also the last Pods and those in preparation", () => {
    const pods = [leaving(), leaving("preparing")];
    const { create, remove } = plan({ warm: 2, pods });
    expect(create).toBe(2);
    expect(remove.map(({ name }) => name).sort()).toEqual(pods.map(({ name }) => name).sort());
  });

  test("gives its room to the successor at the maximum", () => {
    expect(plan({ warm: 1, demand: 5, maxConcurrent: 2, busy: 1, pods: [leaving()] })).toMatchObject({ create: 1 });
  });

  test("removes an unneeded Pod without a replacement", () => {
    expect(plan({ warm: 0, pods: [leaving()] })).toMatchObject({ create: 0, remove: [{ reason: "NodeLeaving" }] });
  });

  test("does not count it as surplus: the remaining Pods are the wanted ones", () => {
    expect(plan({ warm: 1, pods: [leaving(), parked()] })).toMatchObject({ create: 0, surplusSinceMs: null });
  });
});

describe("a Pod that the policy forbids", () => {
  const forbidden = (state: FreePod["state"] = "warm") => pod(state, { forbidden: true });

  test("is removed and replaced in the same plan, even if it is the last or of an older template", () => {
    const pods = [forbidden(), forbidden("preparing"), pod("warm", { forbidden: true, hash: "older" })];
    const { create, remove } = plan({ warm: 3, pods });
    expect(create).toBe(3);
    expect(remove).toEqual(expect.arrayContaining(pods.map(({ name }) => ({ name, reason: "Forbidden" }))));
  });
});

describe("draining", () => {
  test("removes every free Pod and creates none", () => {
    const pods = [parked(), preparing(), unscheduled(), outdated(), aged()];
    expect(plan({ draining: true, warm: 5, demand: 5, pods })).toEqual({
      wanted: 0,
      create: 0,
      remove: expect.arrayContaining(pods.map(({ name }) => ({ name, reason: "Draining" }))),
      surplusSinceMs: null,
      againAtMs: null,
    });
  });
});
