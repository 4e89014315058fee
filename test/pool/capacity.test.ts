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
/** A free Pod, bound to its node as soon as it was created. */
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
const parked = (ageMs = MINUTE) => pod("parked", { ageMs });
const preparing = (ageMs = MINUTE) => pod("preparing", { ageMs });
const unscheduled = (ageMs = MINUTE) => pod("unscheduled", { ageMs });
const outdated = (state: FreePod["state"] = "parked") => pod(state, { hash: OLD });
/** Past its age, jitter and all. */
const aged = () => parked(11 * MINUTE);
const NOTHING = { create: 0, remove: [] };

describe("how many", () => {
  test.each<[string, Partial<CapacityInput>, number]>([
    ["nothing asked for", {}, 0],
    ["warm ones alone", { warm: 2 }, 2],
    ["the queue's on top of warm", { warm: 2, demand: 3 }, 5],
    ["no more than maxConcurrent", { warm: 2, demand: 30 }, 10],
    ["running sessions are part of maxConcurrent", { warm: 2, demand: 30, busy: 7 }, 3],
    ["warm ones are replaced while sessions run", { warm: 2, busy: 3 }, 2],
    ["more sessions than the maximum, lowered meanwhile", { warm: 2, busy: 12 }, 0],
  ])("%s", (_, more, wanted) => {
    expect(plan(more)).toMatchObject({ wanted, create: wanted, remove: [] });
  });

  test("Pods that are being made count, shown by the cache or not", () => {
    const pods = [parked(), preparing(), unscheduled()];
    expect(plan({ warm: 5, creating: 1, pods })).toMatchObject({ create: 1, remove: [] });
    expect(plan({ warm: 4, creating: 1, pods })).toMatchObject(NOTHING);
  });

  test("a maximum that was lowered takes the least useful away: no node yet, then preparing, then the youngest", () => {
    const [old, young, getting, waiting] = [parked(3 * MINUTE), parked(2 * MINUTE), preparing(), unscheduled()];
    const names = (maxConcurrent: number) =>
      plan({ maxConcurrent, warm: 4, pods: [young, getting, waiting, old] }).remove.map(({ name }) => name);
    expect(names(3)).toEqual([waiting.name]);
    expect(names(2)).toEqual([waiting.name, getting.name]);
    expect(names(1)).toEqual([waiting.name, getting.name, young.name]);
  });

  test("Pods in the making beyond the maximum take the room of those that are there", () => {
    const pods = [unscheduled()];
    expect(plan({ maxConcurrent: 1, warm: 1, creating: 1, pods })).toMatchObject({
      create: 0,
      remove: [{ reason: "OverMaximum" }],
    });
  });
});

describe("surplus", () => {
  const pods = [parked(3 * MINUTE), parked(2 * MINUTE), preparing()];

  test("is kept for warmScaleDownSeconds, since the queue may fill again", () => {
    expect(plan({ warm: 1, pods })).toMatchObject({ ...NOTHING, surplusSinceMs: NOW, againAtMs: NOW + 5 * MINUTE });
    const since = NOW - 4 * MINUTE;
    expect(plan({ warm: 1, pods, surplusSinceMs: since })).toMatchObject({
      ...NOTHING,
      surplusSinceMs: since,
      againAtMs: NOW + MINUTE,
    });
  });

  test("goes then, those that are not ready first", () => {
    const { remove, surplusSinceMs } = plan({ warm: 1, pods, surplusSinceMs: NOW - 5 * MINUTE });
    expect(remove).toEqual([
      { name: pods[2]?.name, reason: "Surplus" },
      { name: pods[1]?.name, reason: "Surplus" },
    ]);
    expect(surplusSinceMs).toBeNull();
  });

  test("a surplus that was needed meanwhile begins anew", () => {
    expect(plan({ warm: 3, pods, surplusSinceMs: NOW - 4 * MINUTE })).toMatchObject({ surplusSinceMs: null });
  });

  test("with warm 0 the last one goes, too: scale to zero", () => {
    const last = parked();
    expect(plan({ pods: [last], surplusSinceMs: NOW - 5 * MINUTE })).toMatchObject({
      remove: [{ name: last.name, reason: "Surplus" }],
    });
  });

  test("warmScaleDownSeconds: 0 lets surplus go at once", () => {
    expect(plan({ pods: [parked()], warmScaleDownMs: 0 }).remove).toHaveLength(1);
  });

  test("an aged Pod that nobody needs goes for its age, and is not kept as if it were being replaced", () => {
    const old = aged();
    expect(plan({ pods: [old] })).toMatchObject({ create: 0, remove: [{ name: old.name, reason: "Aged" }] });
  });

  test("an outdated Pod that still serves does not go for a surplus of new ones that do not", () => {
    const serves = outdated();
    const waiting = [unscheduled(), unscheduled()];
    const { remove } = plan({ warm: 1, pods: [serves, ...waiting], surplusSinceMs: NOW - 5 * MINUTE });
    expect(remove).toEqual([{ name: waiting[0]?.name, reason: "Surplus" }]);
  });

  test("a Pod that is ready does not go for one that is only being made", () => {
    expect(plan({ warm: 1, pods: [parked()], creating: 1, surplusSinceMs: NOW - 5 * MINUTE }).remove).toEqual([]);
  });
});

describe("preparation", () => {
  test("bound to a node and not parked in prepareTimeoutSeconds: replaced", () => {
    const stuck = preparing(10 * MINUTE);
    expect(plan({ warm: 1, pods: [stuck] })).toMatchObject({
      create: 1,
      remove: [{ name: stuck.name, reason: "PrepareTimeout" }],
    });
    expect(plan({ warm: 1, pods: [preparing(10 * MINUTE - 1)] })).toMatchObject({ ...NOTHING, againAtMs: NOW + 1 });
  });

  test("the time counts from the binding, not from the creation", () => {
    const late = pod("preparing", { ageMs: 60 * MINUTE, scheduledAtMs: NOW - MINUTE });
    expect(plan({ warm: 1, pods: [late] })).toMatchObject(NOTHING);
  });

  test("a binding far in the future is not believed: no Pod prepares until then", () => {
    const year9999 = Date.parse("9999-12-31T23:59:59Z");
    const stuck = pod("preparing", { ageMs: 10 * MINUTE, scheduledAtMs: year9999 });
    expect(plan({ warm: 1, pods: [stuck] }).remove).toEqual([{ name: stuck.name, reason: "PrepareTimeout" }]);
    const young = pod("preparing", { ageMs: 9 * MINUTE, scheduledAtMs: year9999 });
    expect(plan({ warm: 1, pods: [young] })).toMatchObject({ ...NOTHING, againAtMs: NOW + MINUTE });
    // A clock may be ahead.
    const ahead = pod("preparing", { ageMs: 60 * MINUTE, scheduledAtMs: NOW + 10 * MINUTE });
    expect(plan({ warm: 1, pods: [ahead] })).toMatchObject({ ...NOTHING, againAtMs: NOW + 20 * MINUTE });
  });

  test("without a node it is never replaced: one may be on its way", () => {
    expect(plan({ warm: 1, pods: [unscheduled(24 * 60 * MINUTE)] })).toMatchObject(NOTHING);
  });
});

describe("age", () => {
  test("none goes while the place of another is empty: its successor comes first", () => {
    const pods = [aged(), aged()];
    expect(plan({ warm: 3, pods })).toMatchObject({ create: 1, remove: [] });
  });

  test("with two or more free, the old one is deleted first, and one at a time", () => {
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

  test("the only free one is replaced first and deleted then, over the maximum by one", () => {
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

  test("no room over the maximum is left to an old Pod that sessions have pushed aside", () => {
    const { remove } = plan({ warm: 1, maxConcurrent: 2, busy: 2, pods: [aged()] });
    expect(remove).toHaveLength(1);
  });

  test("age 0 is never replaced", () => {
    expect(plan({ warm: 1, parkedMaxAgeMs: 0, pods: [parked(24 * 60 * MINUTE)] })).toMatchObject({
      ...NOTHING,
      againAtMs: null,
    });
  });

  test("Pods made together come of age apart, each within a fifth of the span, each always at the same time", () => {
    const pods = Array.from({ length: 50 }, () => parked(0));
    const agedAt = pods.map((one) => plan({ warm: 1, pods: [one] }).againAtMs ?? 0);
    for (const at of agedAt) {
      expect(at).toBeGreaterThanOrEqual(NOW + 8 * MINUTE);
      expect(at).toBeLessThanOrEqual(NOW + 10 * MINUTE);
    }
    expect(new Set(agedAt).size).toBeGreaterThan(40);
    expect(pods.map((one) => plan({ warm: 1, pods: [one] }).againAtMs)).toEqual(agedAt);
  });

  test("time spent waiting for a node makes nothing old", () => {
    const late = pod("parked", { ageMs: 60 * MINUTE, scheduledAtMs: NOW - MINUTE });
    expect(plan({ warm: 1, pods: [late] })).toMatchObject(NOTHING);
  });

  test("a binding far in the future makes nothing young for ever", () => {
    const old = [1, 2].map(() => pod("parked", { ageMs: 11 * MINUTE, scheduledAtMs: Number.MAX_SAFE_INTEGER }));
    expect(plan({ warm: 2, pods: old }).remove).toEqual([{ name: old[0]?.name, reason: "Aged" }]);
  });

  test("a replacement that finds no node in a minute is given up, and not made anew at once", () => {
    const pods = [aged(), unscheduled(SURGE_PATIENCE_MS)];
    expect(plan({ warm: 1, pods })).toMatchObject({
      create: 0,
      remove: [{ name: pods[1]?.name, reason: "SurgeGivenUp" }],
    });
    const young = [aged(), unscheduled(SURGE_PATIENCE_MS - 1)];
    expect(plan({ warm: 1, pods: young })).toMatchObject({ ...NOTHING, againAtMs: NOW + 1 });
  });

  test("after one was given up, the next is tried when it may be", () => {
    const pods = [aged()];
    const until = NOW + 5 * MINUTE;
    expect(plan({ warm: 1, pods, surgeBlockedUntilMs: until })).toMatchObject({ ...NOTHING, againAtMs: until });
    expect(plan({ warm: 1, pods, surgeBlockedUntilMs: NOW })).toMatchObject({ create: 1 });
  });

  test("a Pod without a node that is needed is no replacement, and is not given up", () => {
    expect(plan({ warm: 2, pods: [aged(), unscheduled(SURGE_PATIENCE_MS)] })).toMatchObject(NOTHING);
    const rolling = [outdated(), aged(), unscheduled(SURGE_PATIENCE_MS)];
    expect(plan({ warm: 2, pods: rolling }).remove).toEqual([]);
  });
});

describe("a change of the template", () => {
  test("Pods that do not serve yet go at once; those that do stay until new ones are parked", () => {
    const pods = [outdated(), outdated(), outdated("preparing"), outdated("unscheduled")];
    expect(plan({ warm: 2, pods })).toMatchObject({
      create: 2,
      remove: pods.slice(2).map(({ name }) => ({ name, reason: "Outdated" })),
    });
  });

  test("each new one that is parked sends an old one away", () => {
    const pods = [outdated(), outdated()];
    expect(plan({ warm: 2, pods: [...pods, parked(), preparing()] })).toMatchObject({
      create: 0,
      remove: [{ reason: "Outdated" }],
    });
    expect(plan({ warm: 2, pods: [...pods, parked(), parked()] }).remove).toHaveLength(2);
  });

  test("at the maximum they are replaced one by one, over it by one", () => {
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

  test("old ones that are not claimed go at once, and make room at the maximum", () => {
    const pods = [outdated(), outdated()];
    const more = { warm: 1, demand: 3, maxConcurrent: 2, trusts: (hash: string) => hash !== OLD };
    expect(plan({ ...more, pods })).toMatchObject({
      create: 2,
      remove: pods.map(({ name }) => ({ name, reason: "Outdated" })),
    });
    expect(plan({ ...more, pods: [parked(), parked()] })).toMatchObject(NOTHING);
  });

  test("old ones beyond what is wanted go at once", () => {
    expect(plan({ warm: 1, pods: [outdated(), outdated(), outdated()] }).remove).toHaveLength(2);
    expect(plan({ warm: 0, pods: [outdated()] }).remove).toHaveLength(1);
  });

  test("a template that cannot be prepared leaves the old ones serving", () => {
    const pods = [outdated(), preparing(9 * MINUTE), unscheduled(60 * MINUTE)];
    expect(plan({ warm: 2, pods }).remove).toEqual([]);
  });
});

describe("nodes that are about to go", () => {
  const leaving = (state: FreePod["state"] = "parked") => pod(state, { leaving: true });

  test("a free Pod there goes at once, and another is made in the same plan: it could serve nobody", () => {
    const [lost, kept] = [leaving(), parked()];
    expect(plan({ warm: 2, pods: [lost, kept] })).toMatchObject({
      create: 1,
      remove: [{ name: lost.name, reason: "NodeLeaving" }],
    });
  });

  test("also the last ones, and those that are being prepared", () => {
    const pods = [leaving(), leaving("preparing")];
    const { create, remove } = plan({ warm: 2, pods });
    expect(create).toBe(2);
    expect(remove.map(({ name }) => name).sort()).toEqual(pods.map(({ name }) => name).sort());
  });

  test("at the maximum, its successor takes its room", () => {
    expect(plan({ warm: 1, demand: 5, maxConcurrent: 2, busy: 1, pods: [leaving()] })).toMatchObject({ create: 1 });
  });

  test("one that nobody needs goes and is not replaced", () => {
    expect(plan({ warm: 0, pods: [leaving()] })).toMatchObject({ create: 0, remove: [{ reason: "NodeLeaving" }] });
  });

  test("its surplus is not counted: what is left is what is wanted", () => {
    expect(plan({ warm: 1, pods: [leaving(), parked()] })).toMatchObject({ create: 0, surplusSinceMs: null });
  });
});

describe("a Pod that the policy forbids", () => {
  const forbidden = (state: FreePod["state"] = "parked") => pod(state, { forbidden: true });

  test("goes at once, also where it is the last, and of an older template, and another is made in the same plan", () => {
    const pods = [forbidden(), forbidden("preparing"), pod("parked", { forbidden: true, hash: "older" })];
    const { create, remove } = plan({ warm: 3, pods });
    expect(create).toBe(3);
    expect(remove).toEqual(expect.arrayContaining(pods.map(({ name }) => ({ name, reason: "Forbidden" }))));
  });
});

describe("draining", () => {
  test("lets every free Pod go and makes none", () => {
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
