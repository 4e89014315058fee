import fc from "fast-check";
import { expect, test } from "vitest";
import { seededRandom } from "../../simulator/ids.ts";
import type { Json } from "../api/environments.ts";
import { CI_SEED } from "../support/ci-seed.ts";
import { FleetWorld, type Weather } from "./fleet-world.ts";

const SECOND_MS = 1_000;
const MINUTE_MS = 60 * SECOND_MS;

const FAIR: Weather = { stats: 0, list: 0, kube: 0, probe: 0 };

const behavior = (windowSeconds: number): Json => ({ scaleDown: { stabilizationWindowSeconds: windowSeconds } });

type Happening = { readonly afterMs: number } & (
  | { readonly kind: "enqueue"; readonly count: number }
  | { readonly kind: "template" | "crash" | "evict" | "delete" | "unready" | "restart" }
  | { readonly kind: "pause"; readonly paused: boolean }
  | { readonly kind: "hand"; readonly replicas: number }
  | { readonly kind: "weather"; readonly weather: Partial<Weather> }
);

const share = fc.constantFrom(0, 0, 0.3, 1);
const happening: fc.Arbitrary<Happening> = fc
  .tuple(
    fc.integer({ min: 500, max: 20_000 }),
    fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({ kind: fc.constant("enqueue" as const), count: fc.integer({ min: 1, max: 8 }) }),
      },
      {
        weight: 2,
        arbitrary: fc.record({ kind: fc.constantFrom("template", "crash", "evict", "delete", "unready", "restart") }),
      },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("pause" as const), paused: fc.boolean() }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("hand" as const), replicas: fc.nat(12) }) },
      {
        weight: 2,
        arbitrary: fc.record({
          kind: fc.constant("weather" as const),
          weather: fc.record({
            stats: share,
            list: share,
            kube: fc.constantFrom(0, 0.2),
            probe: fc.constantFrom(0, 0.3),
          }),
        }),
      },
    ),
  )
  .map(([afterMs, what]) => ({ afterMs, ...what }) as Happening);

async function happen(world: FleetWorld, what: Happening): Promise<void> {
  switch (what.kind) {
    case "enqueue":
      return world.enqueue(what.count);
    case "template":
      return world.changeTemplate();
    case "crash":
      return world.crash();
    case "evict":
      return world.evict();
    case "delete":
      return world.deleteBusy();
    case "unready":
      return world.makeUnready();
    case "restart":
      return world.restart();
    case "pause":
      return world.pause(what.paused);
    case "hand":
      return world.scaleByHand(what.replicas);
    case "weather":
      Object.assign(world.weather, what.weather);
      return;
    default:
      return what satisfies never;
  }
}

/** A busy worker that fails its readiness probe during a scale-down. */
const UNREADY_IN_A_SHRINK: Happening[] = [
  { afterMs: 17_157, kind: "enqueue", count: 4 },
  { afterMs: 1_133, kind: "restart" },
  { afterMs: 5_016, kind: "hand", replicas: 10 },
  { afterMs: 3_065, kind: "unready" },
];

const PROBE: Json = { httpGet: { path: "/busy", port: 9000 } };

test.each([
  ["with a probe", { busyProbe: PROBE }],
  ["without a probe", {}],
])(
  "ends no busy worker by scaling, and finally serves everything and becomes idle: %s",
  async (_how, probe) => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer(),
        fc.constantFrom(0, 30),
        fc.nat(2),
        fc.integer({ min: 3, max: 8 }),
        fc.array(happening, { minLength: 3, maxLength: 14 }),
        async (seed, windowSeconds, minReplicas, maxReplicas, happenings) => {
          const workers = { ...probe, minReplicas, maxReplicas, behavior: behavior(windowSeconds) };
          const world = new FleetWorld(seededRandom(seed), workers);
          world.start();
          for (const what of happenings) {
            await world.run(what.afterMs);
            await happen(world, what);
          }
          Object.assign(world.weather, FAIR);
          world.pause(false);
          let minutes = 0;
          do await world.run(MINUTE_MS);
          while (++minutes < 8 && !isSettled(world, minReplicas));
          const end = { queued: world.queued, busy: world.busy, pods: world.pods, verdicts: world.verdicts };
          await world.stop();
          expect(world.faults).toEqual([]);
          expect(end).toMatchObject({ queued: 0, busy: 0, pods: minReplicas });
          expect(end.verdicts).toContain("ScalingFollowsDemand");
        },
      ),
      {
        numRuns: Number(process.env.FLEET_RUNS ?? 6),
        examples: [[22, 30, 2, 3, UNREADY_IN_A_SHRINK]],
        endOnFailure: true,
        ...CI_SEED,
      },
    );
  },
  120_000,
);

function isSettled(world: FleetWorld, minReplicas: number): boolean {
  const counts = Object.values(world.replicas);
  return world.queued === 0 && world.busy === 0 && world.pods === minReplicas && counts.length <= 1;
}
