import type { Environment } from "../api/environment.ts";
import { Backoff } from "../core/backoff.ts";
import type { Points } from "../core/points.ts";
import { sessionTemplate } from "../pods/pod-render.ts";
import type { RuntimeContext } from "../protocol/context.ts";
import { ApiHealth } from "../queue/api-health.ts";
import { IdlePace } from "../queue/idle-pace.ts";
import { countLiveItems } from "../queue/live-items.ts";
import { QueueWatch } from "../queue/queue-watch.ts";
import { EnvironmentHold } from "../sessions/environment-hold.ts";
import { SessionsRuntime } from "../sessions/runtime.ts";
import { createBusyProber } from "../workers/busy-probe.ts";
import type { WorkersPoint } from "../workers/points.ts";
import { WorkersRuntime, type WorkSources } from "../workers/runtime.ts";
import { workerTemplate } from "../workers/template.ts";
import type { CheckedTemplate, EnvironmentRuntime } from "./environment-runtime.ts";
import type { WorkersCaches } from "./worker-caches.ts";

/** Pages of one count of running sessions; a walk that runs out says nothing. */
const MAX_PAGES = 50;

/** What both modes work with, and the caches of each. */
export type ModeContext = Omit<RuntimeContext, "template" | "points"> & {
  readonly points: Points;
  readonly workers: WorkersCaches;
};

/** An Environment's mode, and how many Pods or workers it may have at most. */
export function modeOf({ spec }: Environment): { readonly mode: "Sessions" | "Workers"; readonly max: number } {
  return spec.workers
    ? { mode: "Workers", max: spec.workers.maxReplicas }
    : { mode: "Sessions", max: spec.sessions?.maxConcurrent ?? 0 };
}

/** The template of an Environment as its spec has it now. */
export function templateOf(environment: Environment): CheckedTemplate {
  return environment.spec.workers
    ? workerTemplateOf(environment)
    : { ...sessionTemplateOf(environment), field: "spec.sessions.template" };
}

/** The loops of an Environment, for the mode that its spec names. The mode of an Environment never changes. */
export function runtimeOf(environment: Environment, context: ModeContext, onChange: () => void): EnvironmentRuntime {
  return environment.spec.workers
    ? workersRuntime(context, onChange)
    : new SessionsRuntime({ ...context, template: () => sessionTemplateOf(context.environment()) }, onChange);
}

function workersRuntime(context: ModeContext, onChange: () => void): EnvironmentRuntime {
  return new WorkersRuntime({
    context: { ...context, ...context.workers, template: () => workerTemplateOf(context.environment()) },
    sources: (changed) => workSources(context, changed),
    hold: new EnvironmentHold(context),
    prober: createBusyProber(context.clock),
    onChange,
  });
}

/** What the workers' room may not know itself: the Work API and what is read of it. */
function workSources(context: ModeContext, onChange: () => void): WorkSources {
  const { timing, random, work, points } = context;
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

const sessionTemplateOf = oncePerEnvironment(sessionTemplate);
const workerTemplateOf = oncePerEnvironment(workerTemplate);

/** A template is made, and hashed, once for each state of an Environment: it is asked for at every turn. */
function oncePerEnvironment<T>(make: (environment: Environment) => T): (environment: Environment) => T {
  const made = new WeakMap<Environment, T>();
  return (environment) => {
    const known = made.get(environment);
    if (known !== undefined) return known;
    const template = make(environment);
    made.set(environment, template);
    return template;
  };
}
