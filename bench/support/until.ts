import { setTimeout as delay } from "node:timers/promises";

const LOOK_AGAIN_MS = 200;
const PATIENCE_MS = 120_000;

/**
 * Waits for what nobody tells.
 * @param missing what is not so yet, in words; null: all is
 * @throws {Error} not within two minutes, or as long as `patienceMs` says
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
