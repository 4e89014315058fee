import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type CapacityPlan, type FreePod, planCapacity } from "../../src/pool/capacity.ts";

const SECOND = 1_000;
const MINUTE = 60_000;
const MAX_AGE = 10 * MINUTE;
/** Maximum ages vary over the last fifth of their span. */
const YOUNGEST_OLD = 0.8;
const SCALE_DOWN = 5 * MINUTE;
const STEP = 5 * SECOND;
/** The pool's pause after an abandoned replacement: five times its patience. */
const SURGE_BLOCK = 5 * MINUTE;

interface World {
  nowMs: number;
  hash: string;
  maxConcurrent: number;
  warm: number;
  demand: number;
  busy: number;
  pods: (FreePod & { readyAtMs: number; scheduledInMs: number })[];
  creating: { hash: string; shownAtMs: number }[];
  surplusSinceMs: number | null;
  surgeBlockedUntilMs: number;
  draining: boolean;
  /** Whether the cluster is full: no new Pod gets a node. */
  full: boolean;
  made: number;
}

/** A change of the world between two plans. */
type Change =
  | { readonly is: "pass"; readonly steps: number }
  | { readonly is: "demand"; readonly to: number }
  | { readonly is: "warm"; readonly to: number }
  | { readonly is: "max"; readonly to: number }
  | { readonly is: "template"; readonly to: string }
  | { readonly is: "claim" }
  | { readonly is: "end" }
  | { readonly is: "lose" }
  /** A node is cordoned: affects every second Pod that has a node. */
  | { readonly is: "cordon" }
  | { readonly is: "full"; readonly to: boolean };

const change: fc.Arbitrary<Change> = fc.oneof(
  { weight: 6, arbitrary: fc.nat(30).map((steps) => ({ is: "pass" as const, steps })) },
  { weight: 3, arbitrary: fc.nat(6).map((to) => ({ is: "demand" as const, to })) },
  { weight: 1, arbitrary: fc.nat(4).map((to) => ({ is: "warm" as const, to })) },
  { weight: 1, arbitrary: fc.integer({ min: 1, max: 6 }).map((to) => ({ is: "max" as const, to })) },
  { weight: 1, arbitrary: fc.constantFrom("a", "b").map((to) => ({ is: "template" as const, to })) },
  { weight: 4, arbitrary: fc.constant({ is: "claim" as const }) },
  { weight: 2, arbitrary: fc.constant({ is: "end" as const }) },
  { weight: 1, arbitrary: fc.constant({ is: "lose" as const }) },
  { weight: 1, arbitrary: fc.constant({ is: "cordon" as const }) },
  { weight: 1, arbitrary: fc.boolean().map((to) => ({ is: "full" as const, to })) },
);
const changes = fc.array(change, { maxLength: 60 });

const newWorld = (): World => ({
  nowMs: 100 * 60 * MINUTE,
  hash: "a",
  maxConcurrent: 4,
  warm: 2,
  demand: 0,
  busy: 0,
  pods: [],
  creating: [],
  surplusSinceMs: null,
  surgeBlockedUntilMs: 0,
  draining: false,
  full: false,
  made: 0,
});

const planFor = (world: World, parkedMaxAgeMs: number): CapacityPlan =>
  planCapacity({
    ...world,
    creating: world.creating.length,
    trusts: () => true,
    parkedMaxAgeMs,
    prepareTimeoutMs: 10 * MINUTE,
    warmScaleDownMs: SCALE_DOWN,
  });

const parkedOf = (world: World) => world.pods.filter(({ state, leaving }) => state === "warm" && !leaving);
const total = (world: World) => world.pods.length + world.creating.length + world.busy;

/** Carries a plan out like the pool: removed Pods are gone at once, and created ones appear a little later. */
function carryOut(world: World, plan: CapacityPlan): void {
  world.surplusSinceMs = plan.surplusSinceMs;
  if (plan.remove.some(({ reason }) => reason === "SurgeGivenUp"))
    world.surgeBlockedUntilMs = world.nowMs + SURGE_BLOCK;
  const gone = new Set(plan.remove.map(({ name }) => name));
  world.pods = world.pods.filter(({ name }) => !gone.has(name));
  for (let n = 0; n < plan.create; n += 1) {
    world.creating.push({ hash: world.hash, shownAtMs: world.nowMs + ((world.made + n) % 3) * STEP });
  }
}

/** Lets time pass: created Pods appear, get nodes while there is room, and get parked. */
function pass(world: World): void {
  world.nowMs += STEP;
  for (const { hash } of world.creating.filter(({ shownAtMs }) => shownAtMs <= world.nowMs)) {
    world.made += 1;
    world.pods.push({
      name: `pod-${world.made}`,
      hash,
      state: "unscheduled",
      createdAtMs: world.nowMs,
      scheduledAtMs: null,
      leaving: false,
      forbidden: false,
      scheduledInMs: (world.made % 4) * STEP,
      readyAtMs: 0,
    });
  }
  world.creating = world.creating.filter(({ shownAtMs }) => shownAtMs > world.nowMs);
  world.pods = world.pods.map((pod) => {
    if (pod.state === "unscheduled" && !world.full && world.nowMs - pod.createdAtMs >= pod.scheduledInMs) {
      return { ...pod, state: "preparing", scheduledAtMs: world.nowMs, readyAtMs: world.nowMs + pod.scheduledInMs };
    }
    if (pod.state === "preparing" && world.nowMs >= pod.readyAtMs) return { ...pod, state: "warm" };
    return pod;
  });
}

function apply(world: World, what: Change): void {
  switch (what.is) {
    case "pass":
      return;
    case "demand":
      world.demand = what.to;
      return;
    case "warm":
      world.warm = what.to;
      return;
    case "max":
      world.maxConcurrent = what.to;
      world.warm = Math.min(world.warm, what.to);
      return;
    case "template":
      world.hash = what.to;
      return;
    case "claim": {
      const [taken] = parkedOf(world);
      if (!taken) return;
      world.pods = world.pods.filter((pod) => pod !== taken);
      world.busy += 1;
      world.demand = Math.max(0, world.demand - 1);
      return;
    }
    case "end":
      world.busy = Math.max(0, world.busy - 1);
      return;
    case "lose":
      world.pods = world.pods.slice(1);
      return;
    case "cordon":
      world.pods = world.pods.map((pod, n) => ({ ...pod, leaving: n % 2 === 0 && pod.state !== "unscheduled" }));
      return;
    case "full":
      world.full = what.to;
      return;
    default:
      what satisfies never;
  }
}

/** Makes a plan, checks what must hold for every plan, and carries it out. */
function planAndCheck(world: World, parkedMaxAgeMs: number): CapacityPlan {
  const plan = planFor(world, parkedMaxAgeMs);
  const names = plan.remove.map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
  for (const name of names) expect(world.pods.some((pod) => pod.name === name)).toBe(true);
  expect(plan.create).toBeGreaterThanOrEqual(0);
  if (plan.againAtMs !== null) expect(plan.againAtMs).toBeGreaterThan(world.nowMs);

  const before = { parked: parkedOf(world), total: total(world) };
  carryOut(world, plan);
  const kept = parkedOf(world);
  expect(world.pods.filter(({ leaving }) => leaving)).toEqual([]);
  if (world.draining) {
    expect(plan.create).toBe(0);
    expect(world.pods).toEqual([]);
    return plan;
  }
  // A replacement may exceed the maximum by one; no other creation may, and existing excess is removed.
  const isOld = ({ createdAtMs }: FreePod) =>
    parkedMaxAgeMs > 0 && world.nowMs - createdAtMs >= YOUNGEST_OLD * parkedMaxAgeMs;
  const replaceable = kept.some((pod) => pod.hash !== world.hash || isOld(pod));
  const over = total(world) - world.maxConcurrent;
  if (plan.create > 0) expect(over).toBeLessThanOrEqual(replaceable ? 1 : 0);
  if (world.pods.length > 0) expect(over).toBeLessThanOrEqual(1 + Math.max(0, world.creating.length - plan.create));
  // No needed Pod that could serve now is removed; all but one are removed only for the maximum.
  const voluntary = plan.remove.filter(({ reason }) => reason !== "OverMaximum");
  const lost = voluntary.filter(({ name }) => before.parked.some((pod) => pod.name === name));
  if (lost.length > 0 && plan.wanted > 0) expect(kept.length).toBeGreaterThanOrEqual(1);
  const agedOut = lost.filter(({ reason }) => reason === "Aged").length;
  if (plan.wanted > 0) expect(agedOut).toBeLessThanOrEqual(1);
  if (lost.length > 0)
    expect(kept.length + agedOut).toBeGreaterThanOrEqual(Math.min(plan.wanted, before.parked.length));
  return plan;
}

function run(world: World, story: readonly Change[], parkedMaxAgeMs: number): void {
  for (const what of story) {
    apply(world, what);
    planAndCheck(world, parkedMaxAgeMs);
    for (let n = 0; what.is === "pass" && n < what.steps; n += 1) {
      pass(world);
      planAndCheck(world, parkedMaxAgeMs);
    }
  }
}

/** Long enough to create every Pod, remove surplus, and retry an abandoned replacement. */
const QUIET_STEPS = (4 * (SCALE_DOWN + SURGE_BLOCK)) / STEP;

describe("under random demand, claims, losses and spec changes", () => {
  test("settles at the wanted number of Pods when nothing changes any more", () => {
    fc.assert(
      fc.property(changes, (story) => {
        const world = newWorld();
        run(world, story, 0);
        world.full = false;
        for (let n = 0; n < QUIET_STEPS; n += 1) {
          pass(world);
          planAndCheck(world, 0);
        }
        for (let n = 0; n < 20; n += 1) {
          pass(world);
          const plan = planAndCheck(world, 0);
          expect(plan).toMatchObject({ create: 0, remove: [], surplusSinceMs: null });
          expect(world.pods.filter(({ hash, state }) => hash === world.hash && state === "warm")).toHaveLength(
            plan.wanted,
          );
          expect(world.pods).toHaveLength(plan.wanted);
        }
      }),
      { numRuns: 150 },
    );
  });

  test("lets no Pod exceed its age while there is room for a replacement", () => {
    fc.assert(
      fc.property(changes, (story) => {
        const world = newWorld();
        run(world, story, MAX_AGE);
        world.full = false;
        const bound = MAX_AGE + 2 * SURGE_BLOCK + 5 * MINUTE;
        for (let n = 0; n < (2 * bound) / STEP; n += 1) {
          pass(world);
          planAndCheck(world, MAX_AGE);
          if (n < bound / STEP) continue;
          for (const pod of world.pods) {
            expect(world.nowMs - (pod.scheduledAtMs ?? pod.createdAtMs)).toBeLessThanOrEqual(MAX_AGE + 5 * MINUTE);
          }
        }
      }),
      { numRuns: 100 },
    );
  });

  test("keeps one Pod ready once it had one, as long as one is wanted and none is claimed", () => {
    const quiet = fc.array(
      fc.oneof(
        fc.nat(40).map((steps) => ({ is: "pass" as const, steps })),
        fc.constantFrom("a", "b").map((to) => ({ is: "template" as const, to })),
        fc.integer({ min: 1, max: 4 }).map((to) => ({ is: "warm" as const, to })),
        fc.nat(4).map((to) => ({ is: "demand" as const, to })),
        fc.integer({ min: 1, max: 5 }).map((to) => ({ is: "max" as const, to })),
        fc.boolean().map((to) => ({ is: "full" as const, to })),
      ),
      { maxLength: 60 },
    );
    fc.assert(
      fc.property(quiet, fc.constantFrom(0, MAX_AGE), (story, maxAge) => {
        const world = newWorld();
        run(world, [{ is: "pass", steps: 30 }], maxAge);
        expect(parkedOf(world).length).toBeGreaterThan(0);
        for (const what of story) {
          run(world, [what], maxAge);
          if (world.warm > 0) expect(parkedOf(world).length).toBeGreaterThan(0);
        }
      }),
      { numRuns: 150 },
    );
  });

  test("removes all Pods when the Environment is deleted, whatever was in flight", () => {
    fc.assert(
      fc.property(changes, (story) => {
        const world = newWorld();
        run(world, story, MAX_AGE);
        world.draining = true;
        for (let n = 0; n < 10; n += 1) {
          planAndCheck(world, MAX_AGE);
          pass(world);
        }
        planAndCheck(world, MAX_AGE);
        expect([world.pods, world.creating]).toEqual([[], []]);
      }),
      { numRuns: 50 },
    );
  });
});
