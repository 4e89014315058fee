import { setTimeout as delay } from "node:timers/promises";

const LOOK_AGAIN_MS = 200;
const PATIENCE_MS = 120_000;

/**
 * Polls for a condition that emits no event.
 * @param missing describes what isn't true yet, or returns null when everything is
 * @throws {Error} not within `patienceMs`, which defaults to two minutes
 */
export async function until(
  what: string,
  missing: () => Promise<string | null>,
  patienceMs = PATIENCE_MS,
): Promise<void> {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    const words = await missing();
    if (words === null) return;
    if (performance.now() > deadline) throw new Error(`waited ${patienceMs} ms for ${what}: ${words}`);
    await delay(LOOK_AGAIN_MS);
  }
}
