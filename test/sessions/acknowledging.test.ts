import { expect, test } from "vitest";
import { NO_POINTS } from "../../src/core/points.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { AckWindow, windowMs } from "../../src/sessions/ack-window.ts";
import { Acknowledging } from "../../src/sessions/acknowledging.ts";
import { ServerTimes } from "../../src/sessions/server-times.ts";
import { DEFAULT_TIMING } from "../../src/sessions/timing.ts";
import { WorkApiError } from "../../src/work/errors.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { claimOf, contextOf, JOURNAL } from "./claims.ts";
import { pod } from "./pods.ts";

/** An acknowledgement that is sent and never answered; every read of the Pod takes `readMs`. */
function unanswered(readMs: number) {
  const clock = new VirtualClock();
  const sentAtMs: number[] = [];
  const context = contextOf({
    clock,
    points: NO_POINTS,
    random: () => 1,
    timing: DEFAULT_TIMING,
    logger: silentLogger,
    metrics: createMetrics(),
    labels: { namespace: "agents", environment: "research" },
    guard: () => {},
    kube: {
      get: async () => {
        clock.pause(readMs);
        return pod({}, { metadata: { uid: JOURNAL.podUid } });
      },
    },
    work: () => ({
      ack: async () => {
        sentAtMs.push(clock.monotonic());
        throw new WorkApiError({ kind: "timeout", call: "ack", message: "no answer", maybeApplied: true });
      },
    }),
  } as Parameters<typeof contextOf>[0]);
  const serverTimes = new ServerTimes((ms) => ms);
  const acknowledging = new Acknowledging({ context, serverTimes, gate: { isClosing: false } });
  const polledMs = clock.monotonic();
  const polled = { sentAtMs: polledMs, sentAtWallMs: clock.now() };
  const window = new AckWindow(clock, polled, windowMs(DEFAULT_TIMING));
  return { clock, sentAtMs, polledMs, window, acknowledge: () => acknowledging.acknowledge(claimOf(), window) };
}

test("an acknowledgement without an answer is repeated while its window is open", async () => {
  const { clock, sentAtMs, acknowledge } = unanswered(1);
  const result = acknowledge();
  await clock.advance(windowMs(DEFAULT_TIMING) + 1_000);
  expect(await result).toBe("unanswered");
  expect(sentAtMs.length).toBeGreaterThan(1);
});

test("none is sent after the window, however long the Pod took to be read", async () => {
  const { clock, sentAtMs, polledMs, acknowledge } = unanswered(30_000);
  const result = acknowledge();
  await clock.advance(windowMs(DEFAULT_TIMING) + 60_000);
  expect(await result).toBe("unanswered");
  for (const sentMs of sentAtMs) expect(sentMs - polledMs).toBeLessThanOrEqual(windowMs(DEFAULT_TIMING));
});
