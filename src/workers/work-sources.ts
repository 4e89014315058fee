import { Backoff } from "../core/backoff.ts";
import type { Points } from "../core/points.ts";
import { ApiHealth } from "../queue/api-health.ts";
import { countLiveItems } from "../queue/live-items.ts";
import { PollPace, type PollPaceContext } from "../queue/poll-pace.ts";
import { type QueueContext, QueueWatch } from "../queue/queue-watch.ts";
import type { WorkersPoint } from "./context.ts";
import type { WorkSources } from "./runtime.ts";

type SourcesContext = QueueContext &
  Omit<PollPaceContext, "intervalMs"> &
  Omit<ConstructorParameters<typeof ApiHealth>[0], "onChange"> & { readonly points: Points };

/** Pages of one count of running sessions; a walk that runs out says nothing. */
const MAX_PAGES = 50;

/** What the workers' room may not know itself: the Work API and what is read of it. */
export function workSources(context: SourcesContext, onChange: () => void): WorkSources {
  const { timing, random, work, points } = context;
  const health = new ApiHealth({ ...context, onChange });
  const pace = new PollPace({ ...context, intervalMs: () => work().idleIntervalMs });
  const backoff = new Backoff({ baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs }, random);
  return {
    health,
    // Nothing is claimed here: what is pending is in the hands of the workers.
    queue: new QueueWatch({ context, health, pace, onStats: onChange, unacknowledged: () => 0 }),
    count: async (signal) => {
      const attempt = health.attempt("list");
      try {
        const count = () => countLiveItems(work(), { maxPages: MAX_PAGES, signal });
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
