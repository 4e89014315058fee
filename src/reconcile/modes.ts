import type { Environment } from "../api/environment.ts";
import { Backoff } from "../core/backoff.ts";
import { ApiHealth } from "../sessions/api-health.ts";
import type { SessionContext } from "../sessions/context.ts";
import { EnvironmentHold } from "../sessions/environment-hold.ts";
import { IdlePace } from "../sessions/idle-pace.ts";
import { sessionTemplate } from "../sessions/pod-render.ts";
import { QueueWatch } from "../sessions/queue-watch.ts";
import { SessionsRuntime } from "../sessions/runtime.ts";
import { countLiveItems } from "../work/live-items.ts";
import { createBusyProber } from "../workers/busy-probe.ts";
import { WorkersRuntime, type WorkSources } from "../workers/runtime.ts";
import { workerTemplate } from "../workers/template.ts";
import type { CheckedTemplate, EnvironmentRuntime } from "./environment-runtime.ts";
import type { WorkersCaches } from "./worker-caches.ts";

/** Pages of one count of running sessions; a walk that runs out says nothing. */
const MAX_PAGES = 50;

/** What both modes work with, and the caches of each. */
export type ModeContext = Omit<SessionContext, "template"> & { readonly workers: WorkersCaches };

/** The template of an Environment as its spec has it now. */
export function templateOf(environment: Environment): CheckedTemplate {
  return environment.spec.workers
    ? workerTemplate(environment)
    : { ...sessionTemplate(environment), field: "spec.sessions.template" };
}

/** The loops of an Environment, for the mode that its spec names. The mode of an Environment never changes. */
export function runtimeOf(environment: Environment, context: ModeContext, onChange: () => void): EnvironmentRuntime {
  return environment.spec.workers
    ? workersRuntime(context, onChange)
    : new SessionsRuntime({ ...context, template: memoized(context.environment, sessionTemplate) }, onChange);
}

function workersRuntime(context: ModeContext, onChange: () => void): EnvironmentRuntime {
  return new WorkersRuntime({
    context: { ...context, ...context.workers, template: memoized(context.environment, workerTemplate) },
    sources: (changed) => workSources(context, changed),
    hold: new EnvironmentHold(context),
    prober: createBusyProber(context.clock),
    onChange,
  });
}

/** What the workers' room may not know itself: the Work API and what is read of it. */
function workSources(context: ModeContext, onChange: () => void): WorkSources {
  const { timing, random, work } = context;
  const health = new ApiHealth({ ...context, onChange });
  const pace = new IdlePace({ ...context, intervalMs: () => work().idleIntervalMs });
  const backoff = new Backoff({ baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs }, random);
  return {
    health,
    // Nothing is claimed here: what is pending is in the hands of the workers.
    queue: new QueueWatch({ context, health, pace, onStats: onChange, unacknowledged: () => 0 }),
    count: async (signal) => {
      const attempt = health.attempt("list");
      try {
        const live = await countLiveItems(work(), { maxPages: MAX_PAGES, signal });
        attempt.answered();
        backoff.reset();
        return { ok: true, ...live };
      } catch (error) {
        return { ok: false, waitMs: signal.aborted ? 0 : attempt.failed(error, backoff) };
      }
    },
  };
}

/** The template is made anew only when the Environment is: it is asked for at every turn. */
function memoized<T>(environment: () => Environment, make: (environment: Environment) => T): () => T {
  let last: { readonly of: Environment; readonly value: T } | null = null;
  return () => {
    const now = environment();
    if (last?.of !== now) last = { of: now, value: make(now) };
    return last.value;
  };
}
