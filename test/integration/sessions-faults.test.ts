import { randomInt } from "node:crypto";
import { describe, expect, test } from "vitest";
import type { FaultInput } from "../../simulator/faults.ts";
import type { ItemRecord } from "../../simulator/item.ts";
import { useCluster } from "../support/cluster.ts";
import { SHORT_LEASE } from "../support/session-life.ts";
import { type SimulatorSwitches, startWorld, type World, type WorldOptions } from "../support/world.ts";

const cluster = useCluster();

/** The operator's calls; `heartbeat` and `stop` are also the worker's. */
const CALLS = ["poll", "ack", "stop", "stats", "list", "heartbeat"] as const;

/** What a Work API, or a proxy in front of it, can do to a request. */
const FAULTS: Record<string, FaultInput[]> = {
  "429 with Retry-After": [{ kind: "status", status: 429, retryAfterSeconds: 1 }],
  "500, 503 and 529": [500, 503, 529].map((status) => ({ kind: "status", status })),
  "resets before and after the effect": [{ kind: "reset" }, { kind: "lost-reply" }],
  "a proxy's error page with 502 and with 200": [{ kind: "html" }, { kind: "html", status: 200 }],
  "replies that are cut, of wrong types, or endless": [
    { kind: "truncated" },
    { kind: "wrong-types" },
    { kind: "endless" },
  ],
  "requests that hang before and after the effect": [{ kind: "hang" }, { kind: "hang", after: true }],
};

function expectNothingTwice(world: World): void {
  world.simulator.assertNoViolations();
  for (const { id, acks, generation } of world.simulator.items(world.environmentId)) {
    const generations = acks.map((ack) => ack.generation);
    expect(new Set(generations).size, `acknowledgements of ${id}`).toBe(generations.length);
    expect(generations.length).toBeLessThanOrEqual(generation);
  }
}

/** Far more than the sequence of lapsing leases, fences and reclaimed offers takes. */
const PATIENCE_MS = 180_000;
const LONG = 300_000;

describe.concurrent("every call with each fault", () => {
  test.each(Object.entries(FAULTS))(
    "%s",
    async (_what, faults) => {
      await using world = await startWorld(cluster, { ...SHORT_LEASE, sessions: { warm: 2 } });
      await world.createEnvironment();
      world.startOperator();
      await world.untilParked(2);
      for (const call of CALLS) for (const fault of faults) world.simulator.inject({ ...fault, call, times: 1 });
      for (let item = 0; item < 4; item += 1) world.simulator.enqueue(world.environmentId);
      // If a worker did not stop its item, the operator lists, fences and stops it.
      await world.untilServed(4, PATIENCE_MS);
      await world.until("all faults were applied, or their call is no longer made", () => {
        return world.simulator.faults().every(({ fault }) => fault.call !== "poll" && fault.call !== "stats");
      });
      await world.untilCondition("Ready", "Ready");
      expectNothingTwice(world);
    },
    LONG,
  );
});

describe("two operators on one queue by mistake", () => {
  const variants: Record<string, SimulatorSwitches> = {
    "a second acknowledgement is refused": {},
    "a second acknowledgement is accepted and changes nothing": { secondAck: "unchanged" },
    "a lapsed item is stopped": { lapse: "stop" },
    "an item without a first heartbeat waits forever": { starting: "never" },
    "a lapsed item returns under a new id, and stopping items stay": { requeueId: "new", lapsedStopping: "stays" },
    "lists are unordered, with reformatted times": { listOrder: "shuffled", listedHeartbeat: "reformatted" },
  };

  test.each(Object.entries(variants))(
    "%s: every item is served once, despite lost answers and killed workers",
    async (_what, switches) => {
      const seed = randomInt(2 ** 31 - 1);
      console.log(`seed: ${seed}`);
      const options: WorldOptions = {
        ...SHORT_LEASE,
        simulator: { ...SHORT_LEASE.simulator, seed, switches },
        sessions: { warm: 3, maxConcurrent: 8 },
      };
      const ends = ["stop", "stop", "stop", "oom", "exit-without-stop"] as const;
      let started = 0;
      const node = {
        seed,
        fates: () => ({ kind: "worker", workMs: { min: 50, max: 800 }, end: ends[started++ % ends.length] }) as const,
      };
      await using one = await startWorld(cluster, { ...options, node });
      await using other = await startWorld(cluster, { ...options, node, beside: one });
      for (const world of [one, other]) await world.createEnvironment();
      one.startOperator();
      other.startOperator();
      await Promise.all([one.untilParked(3), other.untilParked(3)]);
      const faults = [
        one.simulator.inject({ kind: "lost-reply", call: "ack", probability: 0.1 }),
        one.simulator.inject({ kind: "reset", call: "ack", probability: 0.1 }),
        one.simulator.inject({ kind: "lost-reply", call: "poll", probability: 0.05 }),
        one.simulator.inject({ kind: "latency", call: "ack", ms: 700, probability: 0.2 }),
      ];
      one.simulator.arrivals(one.environmentId, { kind: "burst", size: 24 });
      await one.until(
        "all items are stopped",
        () => {
          const items = one.simulator.items(one.environmentId);
          return items.length >= 24 && items.every(({ state }) => state === "stopped");
        },
        PATIENCE_MS,
      );
      await one.until("no claim is left", () => one.claims.length === 0 && other.claims.length === 0);
      expect(faults.some(({ struck }) => struck > 0)).toBe(true);
      expectNothingTwice(one);
      const served = one.simulator.items(one.environmentId);
      // If the list reformats times, a fence is first refused. Otherwise only a second container is refused, or one that
      // was slow to extend its lease.
      if (switches.listedHeartbeat !== "reformatted") {
        const hasLapsed = ({ history }: ItemRecord) => history.some(({ event }) => event === "lease lapsed");
        const refused = served.filter((item) => item.refusedBeats > 0 && !hasLapsed(item));
        expect(refused, "items with heartbeats of second containers").toEqual([]);
      }
      const pollers = new Set(served.flatMap(({ acks }) => acks.map(({ workerId }) => workerId)));
      expect(pollers.size, "both had their share").toBe(2);
    },
    LONG,
  );
});
