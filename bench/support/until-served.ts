import type { Simulator } from "../../simulator/simulator.ts";

/**
 * Waits until every item of an environment is stopped; all of them must be in its queue by now. It counts by what it is told
 * of each: looking at all of them again at every event took the simulator more time than serving them.
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
