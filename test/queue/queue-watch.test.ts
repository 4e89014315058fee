import { expect, test } from "vitest";
import { NO_POINTS } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { ApiHealth } from "../../src/queue/api-health.ts";
import { PollPace } from "../../src/queue/poll-pace.ts";
import { QueueWatch } from "../../src/queue/queue-watch.ts";
import { STATS } from "../work/samples.ts";
import { Setup } from "../work/setup.ts";
import { json } from "../work/strict-server.ts";

test("shows a count too large for the status as the largest possible one", async () => {
  await using setup = await Setup.start();
  const { clock, client } = setup;
  const common = { clock, random: () => 0.5, timing: DEFAULT_TIMING };
  const onChange = () => {};
  const watch = new QueueWatch({
    context: {
      ...common,
      work: () => client,
      metrics: createMetrics(),
      labels: { namespace: "n", environment: "e" },
      points: NO_POINTS,
    },
    health: new ApiHealth({ ...common, onChange }),
    pace: new PollPace({ ...common, intervalMs: () => 0 }),
    expectedPollers: () => 0,
    onStats: onChange,
    unacknowledged: () => 0,
  });
  const most = Number.MAX_SAFE_INTEGER;
  setup.server.next(json(200, { ...STATS, depth: most, pending: most, workers_polling: most }));
  expect(await watch.refresh(AbortSignal.timeout(60_000))).toBe(true);
  expect(watch.stats?.depth).toBe(most);
  const int32 = 2_147_483_647;
  expect(watch.status).toMatchObject({ depth: int32, pending: int32, workersPolling: int32 });
});
