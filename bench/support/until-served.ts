import type { Simulator } from "../../simulator/simulator.ts";

/**
 * Waits until every item of an environment is stopped. All items must already be in the queue. It counts item events,
 * because scanning all items at every event took the simulator longer than serving them.
 * @throws {Error} not within `patienceMs`
 */
export async function untilServed(simulator: Simulator, environmentId: string, patienceMs: number): Promise<void> {
  const items = simulator.items(environmentId).filter(({ state }) => state !== "stopped");
  const live = new Set(items.map(({ id }) => id));
  const off = simulator.on("item", ({ id, state }) => {
    if (state === "stopped") live.delete(id);
  });
  try {
    await simulator.waitFor(() => live.size === 0, { what: "every item to be served", timeoutMs: patienceMs });
  } finally {
    off();
  }
}
