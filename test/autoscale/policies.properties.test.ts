import fc from "fast-check";
import { expect, test } from "vitest";
import type { BusyView } from "../../src/autoscale/busy-guard.ts";
import { decideScale } from "../../src/autoscale/decide-scale.ts";
import type { Demand } from "../../src/autoscale/demand.ts";
import { recordScale, type ScalingRules, startHistory } from "../../src/autoscale/scale-history.ts";
import { behaviorOf, inputOf } from "./scale-inputs.ts";

const SECOND_MS = 1_000;

const policy = fc.record({
  type: fc.constantFrom("Pods" as const, "Percent" as const),
  value: fc.integer({ min: 1, max: 120 }),
  periodSeconds: fc.integer({ min: 1, max: 120 }),
});
const rules: fc.Arbitrary<ScalingRules> = fc.record({
  stabilizationWindowSeconds: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 200 })),
  selectPolicy: fc.constantFrom("Max" as const, "Min" as const, "Disabled" as const),
  policies: fc.array(policy, { maxLength: 3 }),
});
const behaviors = fc.record({ scaleUp: rules, scaleDown: rules });

const busyViews: fc.Arbitrary<BusyView> = fc.oneof(
  { weight: 3, arbitrary: fc.constant({ kind: "probed" as const, busy: 0, unknown: 0, notReady: 0 }) },
  fc.constant({ kind: "unprobed" as const }),
  fc.record({
    kind: fc.constant("probed" as const),
    busy: fc.nat(30),
    unknown: fc.nat(3),
    notReady: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, fc.nat(2)),
  }),
);
const demands: fc.Arbitrary<Demand> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc
      .record({ queued: fc.nat(80), running: fc.nat(20), pending: fc.nat(2) })
      .map(({ queued, running, pending }) => ({
        kind: "known" as const,
        sessions: queued + running + pending,
        running,
        pending,
      })),
  },
  fc.constant({ kind: "unknown" as const, reason: "DemandStale" as const, message: "stale" }),
);

/** One evaluation. The seconds since the last one may be negative or very large, as with a broken clock. */
const moments = (seconds: fc.Arbitrary<number>) =>
  fc.array(fc.record({ seconds, demand: demands, busy: busyViews }), { minLength: 1, maxLength: 60 });
const steady = fc.oneof({ weight: 4, arbitrary: fc.nat(20) }, fc.nat(300));
const broken = fc.oneof(steady, fc.integer({ min: -100_000, max: 100_000 }));

const bounds = fc.tuple(fc.nat(20), fc.nat(60)).map(([min, more]) => ({ min, max: Math.max(1, min + more) }));

interface Step {
  readonly atMs: number;
  readonly from: number;
  readonly to: number;
  readonly decision: ReturnType<typeof decideScale>;
  readonly demand: Demand;
  readonly busy: BusyView;
}

/** Plays the evaluations and writes every decision at once, as the caller does. */
function play(options: {
  behavior: ReturnType<typeof behaviorOf>;
  min: number;
  max: number;
  current: number;
  moments: { seconds: number; demand: Demand; busy: BusyView }[];
}): Step[] {
  let { current } = options;
  let nowMs = 0;
  let history = startHistory(current, nowMs);
  const steps: Step[] = [];
  for (const { seconds, demand, busy } of options.moments) {
    nowMs += seconds * SECOND_MS;
    const input = inputOf({ ...options, current, sessions: 0, history, nowMs });
    const decision = decideScale({ ...input, demand, busy });
    history = recordScale(decision.history, { from: current, to: decision.replicas, atMs: nowMs }, options.behavior);
    steps.push({ atMs: nowMs, from: current, to: decision.replicas, decision, demand, busy });
    current = decision.replicas;
  }
  return steps;
}

const plays = (seconds: fc.Arbitrary<number>) =>
  fc.record({ behavior: behaviors, bounds, start: fc.nat(80), moments: moments(seconds) }).map((made) => ({
    behavior: behaviorOf(made.behavior),
    ...made.bounds,
    current: made.start,
    moments: made.moments,
  }));

test("a count within its bounds never leaves them, and one outside never moves further out", () => {
  fc.assert(
    fc.property(plays(broken), (options) => {
      for (const { from, to } of play(options)) {
        expect(to).toBeGreaterThanOrEqual(options.min);
        expect(to).toBeLessThanOrEqual(Math.max(options.max, from));
        expect(Number.isSafeInteger(to)).toBe(true);
      }
    }),
  );
});

test("an unknown demand changes nothing but a count below the minimum", () => {
  fc.assert(
    fc.property(plays(broken), (options) => {
      for (const { from, to, demand } of play(options)) {
        if (demand.kind === "unknown") expect(to).toBe(Math.max(from, options.min));
      }
    }),
  );
});

test("no worker that is or may be busy is removed", () => {
  fc.assert(
    fc.property(plays(broken), (options) => {
      for (const { from, to, demand, busy } of play(options)) {
        if (to >= from) continue;
        if (busy.kind === "probed") {
          expect(to).toBeGreaterThanOrEqual(busy.busy + busy.unknown);
          if (busy.busy + busy.unknown > 0) expect(busy.notReady).toBe(0);
        } else {
          expect(demand).toMatchObject({ running: 0, pending: 0 });
        }
      }
    }),
  );
});

test("no period changes more than its policies allow, measured by the actual counts", () => {
  fc.assert(
    fc.property(plays(steady), (options) => {
      const steps = play(options);
      /** The count at a moment, after everything written until then. */
      const countAt = (atMs: number) => steps.findLast((step) => step.atMs <= atMs)?.to ?? options.current;
      const allowed = (rules: ScalingRules, atMs: number, before: number, sign: 1 | -1) => {
        if (rules.selectPolicy === "Disabled") return before;
        if (rules.policies.length === 0) return sign > 0 ? Number.POSITIVE_INFINITY : 0;
        const limits = rules.policies.map(({ type, value, periodSeconds }) => {
          const fromMs = atMs - periodSeconds * SECOND_MS;
          // A step at this moment does not begin a period that ends in it.
          const start = fromMs < atMs ? countAt(fromMs) : before;
          const change = type === "Pods" ? value : (start * value) / 100;
          const least = type === "Percent" ? 1 : 0;
          return sign > 0 ? Math.max(least, Math.ceil(start + change)) : Math.floor(start - change);
        });
        return (rules.selectPolicy === "Max") === sign > 0 ? Math.max(...limits) : Math.min(...limits);
      };
      for (const { atMs, from, to } of steps) {
        if (from < options.min || from > options.max) continue;
        const { scaleUp, scaleDown } = options.behavior;
        if (to > from) expect(to).toBeLessThanOrEqual(allowed(scaleUp, atMs, from, 1));
        if (to < from) expect(to).toBeGreaterThanOrEqual(allowed(scaleDown, atMs, from, -1));
      }
    }),
  );
});

test("every step agrees with all recommendations in its window, including the dropped ones", () => {
  fc.assert(
    fc.property(plays(steady), (options) => {
      const told: { atMs: number; wanted: number }[] = [{ atMs: 0, wanted: options.current }];
      for (const { atMs, from, to, decision } of play(options)) {
        if (decision.wanted === null || from < options.min || from > options.max) continue;
        told.push({ atMs, wanted: decision.wanted });
        const within = (seconds: number) =>
          [...told.filter((entry) => atMs - entry.atMs < seconds * SECOND_MS), told.at(-1)].map(
            (entry) => entry?.wanted ?? 0,
          );
        const { scaleUp, scaleDown } = options.behavior;
        if (to > from) expect(to).toBeLessThanOrEqual(Math.min(...within(scaleUp.stabilizationWindowSeconds)));
        if (to < from) expect(to).toBeGreaterThanOrEqual(Math.max(...within(scaleDown.stabilizationWindowSeconds)));
      }
    }),
  );
});

test("a constant demand is reached after any history", () => {
  fc.assert(
    fc.property(plays(steady), fc.nat(80), (options, sessions) => {
      const idle: BusyView = { kind: "probed", busy: 0, unknown: 0, notReady: 0 };
      const demand: Demand = { kind: "known", sessions, running: 0, pending: 0 };
      // Longer than every window and period, and enough steps for the slowest policy over the largest distance.
      const after = Array.from({ length: 150 }, () => ({ seconds: 301, demand, busy: idle }));
      const last = play({ ...options, moments: [...options.moments, ...after] }).at(-1);
      const goal = Math.min(options.max, Math.max(options.min, sessions));
      const { scaleUp, scaleDown } = options.behavior;
      if (scaleUp.selectPolicy !== "Disabled" && scaleDown.selectPolicy !== "Disabled") {
        expect(last?.to).toBe(goal);
      }
    }),
    { numRuns: 50 },
  );
});
