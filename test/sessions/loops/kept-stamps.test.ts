import { describe, expect, test } from "vitest";
import type { ContainerFate } from "./container.ts";
import { LoopWorld } from "./loop-world.ts";

const MINUTE = 60_000;

/**
 * A server that keeps the first `acknowledged_at`, and never requeues an item that is acknowledged but has no
 * heartbeat.
 */
const KEPT = { reackStamp: "kept", starting: "never" };

const KILLED: ContainerFate = { startError: false, program: "killed", servesMs: 5_000 };

describe("a server that keeps the first acknowledged_at", () => {
  test.each(["Worker", "Operator"] as const)(
    "lease: %s: an item that returned to the queue is claimed again and served",
    async (lease) => {
      const world = new LoopWorld({
        switches: KEPT,
        sessions: { lease, warm: 2, onPodFailure: "Release", retainFailedSeconds: 3_600 },
      });
      const serves = world.fate;
      let containers = 0;
      world.fate = (...of) => {
        containers += 1;
        return containers === 1 ? KILLED : serves(...of);
      };
      world.createEnvironment();
      world.startOperator();
      await world.until("parked Pods", () => world.parked.length === 2);
      const id = world.enqueue();
      await world.until("the item is acknowledged twice", () => world.item(id).acks.length === 2, 20 * MINUTE);
      await world.until("everything is settled", () => world.isSettled, 20 * MINUTE);
      expect(world.item(id).acks.length).toBe(2);
      expect(containers).toBeGreaterThanOrEqual(2);
      expect([...world.wrongs, ...world.violations]).toEqual([]);
    },
  );
});
