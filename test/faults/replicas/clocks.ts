import { expect } from "vitest";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { between, type Scenario, scenario, seedOf } from "./scenario.ts";

const MINUTE_MS = 60_000;
const SECOND_MS = 1_000;

/** Durations of the spec for which minutes matter. */
const SESSIONS = { maxDurationSeconds: 300, prepareTimeoutSeconds: 60, parkedMaxAgeSeconds: 300, warm: 2 };

const takeover = scenario({
  name: "the wall clocks of two replicas are twenty minutes apart: nothing is replaced, stopped or kept for that",
  world: { sessions: SESSIONS },
  async act(world, random) {
    const ahead = await world.replica({ wallOffsetMs: between(random, 10, 20) * MINUTE_MS });
    await world.untilHeldBy(ahead);
    const behind = await world.replica({ wallOffsetMs: -between(random, 10, 20) * MINUTE_MS });
    world.load({ ratePerSecond: 0.7, durationSeconds: 30, seed: seedOf(random) });
    await world.untilServing(ahead);
    await ahead.process.kill();
    await world.untilHeldBy(behind);
    await world.untilClaiming(behind);
    const third = await world.replica({ wallOffsetMs: between(random, 10, 20) * MINUTE_MS });
    await behind.process.stop();
    await world.untilHeldBy(third);
    const count = await world.untilServed();
    const stoppedBy = new Set(world.many.items.map((item) => item.stoppedBy?.as));
    expect([...stoppedBy], "who stopped the items: their workers, not a replica with a wrong clock").toEqual([
      "sessions-token",
    ]);
    // One Pod for each item plus the parked ones: none is replaced because it looked too old when created.
    const pods = world.kube.passed.filter(({ call }) => call === "create pods").length;
    expect(pods).toBeLessThanOrEqual(count + SESSIONS.warm * (world.replicas.length + 1));
  },
});

function drain(minutes: number): Scenario {
  const off = minutes > 0 ? "ahead" : "behind";
  const graceSeconds = 8;
  return scenario({
    name: `a replica whose wall clock is minutes ${off} drains a deleted Environment for as long as its spec says`,
    world: { fates: () => ({ kind: "worker", end: "hang" }), spec: { deletionGraceSeconds: graceSeconds } },
    async act(world) {
      const replica = await world.replica({ wallOffsetMs: minutes * MINUTE_MS });
      await world.untilHeldBy(replica);
      const [name = "", id = ""] = [...world.many.ids][0] ?? [];
      const { simulator, kube, namespace } = world.world;
      simulator.enqueue(id);
      await world.until("it runs", () => world.many.items.every(({ state }) => state === "active"));
      const deletedAt = simulator.clock.now();
      await kube.delete(ENVIRONMENTS, { namespace, name });
      await world.until("it is drained", async () => (await kube.list(ENVIRONMENTS, { namespace })).items.length === 0);
      world.expectServedOnce();
      const [item] = world.many.items;
      const lastedMs = (item?.stopRequestedAt ?? item?.stoppedAt ?? 0) - deletedAt;
      // Deletion timestamps are truncated to whole seconds.
      expect(lastedMs).toBeGreaterThan((graceSeconds - 1.5) * SECOND_MS);
      world.many.ids.delete(name);
    },
  });
}

export const CLOCKS: readonly Scenario[] = [takeover, drain(10), drain(-10)];
