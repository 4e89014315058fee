import { expect, test } from "vitest";
import { seededRandom } from "../../simulator/ids.ts";
import { FleetWorld } from "./fleet-world.ts";

const SECOND_MS = 1_000;
const MINUTE_MS = 60 * SECOND_MS;

const total = (world: FleetWorld) => Object.values(world.replicas).reduce((sum, each) => sum + each, 0);

const sized = { maxReplicas: 8, behavior: { scaleUp: { policies: [{ type: "Pods", value: 8, periodSeconds: 5 }] } } };

test.each<[string, Record<string, unknown>]>([
  ["with a probe", { ...sized, busyProbe: { httpGet: { path: "/busy", port: 9000 } } }],
  ["without one", sized],
])(
  "who takes over knows nothing of the last minutes, and takes no worker away for as long as the window is: %s",
  async (_how, workers) => {
    const world = new FleetWorld(seededRandom(7), workers);
    world.start();
    world.enqueue(8);
    for (let waited = 0; total(world) < 8 && waited < 60; waited += 1) await world.run(SECOND_MS);
    expect(total(world)).toBe(8);
    // Their sessions are over; the default window of 300 s keeps the workers.
    for (let waited = 0; (world.busy > 0 || world.queued > 0) && waited < 240; waited += 1) await world.run(SECOND_MS);
    expect(world.busy).toBe(0);
    await world.restart();
    for (let second = 0; second < 295; second += 1) {
      await world.run(SECOND_MS);
      expect(total(world), `${second} s after the take-over`).toBe(8);
    }
    await world.run(MINUTE_MS);
    expect(total(world)).toBe(0);
    expect(world.faults).toEqual([]);
    await world.stop();
  },
);
