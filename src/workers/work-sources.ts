import { Backoff } from "../core/backoff.ts";
import type { Points } from "../core/points.ts";
import { ApiHealth } from "../queue/api-health.ts";
import { countLiveItems } from "../queue/live-items.ts";
import { PollPace, type PollPaceContext } from "../queue/poll-pace.ts";
import type { OwnPollers } from "../queue/pollers.ts";
import { type QueueContext, QueueWatch } from "../queue/queue-watch.ts";
import type { WorkersContext, WorkersPoint } from "./context.ts";
import type { WorkSources } from "./runtime.ts";

type SourcesContext = QueueContext &
  Omit<PollPaceContext, "intervalMs"> &
  Pick<WorkersContext, "environment"> &
  Omit<ConstructorParameters<typeof ApiHealth>[0], "onChange"> & { readonly points: Points };

/** Builds what a workers runtime reads from the Work API: statistics, count of running sessions, and health. */
export function workSources(context: SourcesContext, onChange: () => void, ownPollers: () => OwnPollers): WorkSources {
  const { timing, random, work, points } = context;
  const health = new ApiHealth({ ...context, onChange });
  const pace = new PollPace({ ...context, intervalMs: () => work().idleIntervalMs });
  const backoff = new Backoff({ baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs }, random);
  return {
    health,
    // The operator claims nothing in this mode: workers hold all pending items.
    queue: new QueueWatch({
      ...{ context, health, pace, onStats: onChange, unacknowledged: () => 0 },
      ownPollers,
      expectedPollers: () => context.environment().spec.api.otherPollers,
    }),
    count: async (signal) => {
      const attempt = health.attempt("list");
      try {
        const count = () => countLiveItems(work(), signal);
        const live = await points.run<Awaited<ReturnType<typeof count>>>(
          "workers.count" satisfies WorkersPoint,
          {},
          count,
        );
        attempt.answered();
        if (live.unreadable) health.unreadable(live.unreadable);
        backoff.reset();
        return { ok: true, ...live };
      } catch (error) {
        return { ok: false, waitMs: signal.aborted ? 0 : attempt.failed(error, backoff) };
      }
    },
  };
}
