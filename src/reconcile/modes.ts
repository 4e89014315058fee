import type { Environment } from "../api/environment.ts";
import type { Points } from "../core/points.ts";
import { type SessionTemplate, sessionTemplate } from "../pods/pod-render.ts";
import type { RuntimeContext } from "../protocol/context.ts";
import { SessionsRuntime } from "../sessions/runtime.ts";
import { createBusyProber } from "../workers/busy-probe.ts";
import type { WorkersCaches } from "../workers/context.ts";
import { WorkersRuntime } from "../workers/runtime.ts";
import { workerTemplate } from "../workers/template.ts";
import { workSources } from "../workers/work-sources.ts";
import type { CheckedTemplate, EnvironmentRuntime } from "./environment-runtime.ts";
import type { EnvironmentFinalizer } from "./finalizer.ts";

/** What both modes need, and the caches of each. */
export type ModeContext = Omit<RuntimeContext, "template" | "points"> & {
  readonly refused: () => Refused;
  readonly points: Points;
  readonly workers: WorkersCaches;
};

/** Why Pods can't wait in a shell, and why their sessions can't sleep (pods/parking.ts); null: they can. */
export interface Refused {
  readonly shell: string | null;
  readonly sleep: string | null;
}

/** An Environment's mode, and its maximum number of Pods or workers. */
export function modeOf({ spec }: Environment): { readonly mode: "Sessions" | "Workers"; readonly max: number } {
  return spec.workers
    ? { mode: "Workers", max: spec.workers.maxReplicas }
    : { mode: "Sessions", max: spec.sessions?.maxConcurrent ?? 0 };
}

/**
 * The template that the Environment's spec has now.
 * @param refused by default as the status says: commands don't find it out
 */
export function templateOf(environment: Environment, refused: Refused = refusedByStatus(environment)): CheckedTemplate {
  return environment.spec.workers
    ? workerTemplateOf(environment)
    : { ...sessionTemplateOf(environment, refused), field: "spec.sessions.template" };
}

function refusedByStatus({ status }: Environment): Refused {
  return {
    shell: status?.parking?.mode === "Key" ? status.parking.message : null,
    sleep: status?.sleep?.enabled === false ? status.sleep.message : null,
  };
}

/** The loops of an Environment, for the mode that its spec names. The mode never changes. */
export function runtimeOf(
  environment: Environment,
  context: ModeContext,
  finalizer: EnvironmentFinalizer,
  onChange: () => void,
): EnvironmentRuntime {
  return environment.spec.workers
    ? workersRuntime(context, finalizer, onChange)
    : new SessionsRuntime(
        { ...context, template: () => sessionTemplateOf(context.environment(), context.refused()) },
        finalizer,
        onChange,
      );
}

function workersRuntime(context: ModeContext, hold: EnvironmentFinalizer, onChange: () => void): EnvironmentRuntime {
  return new WorkersRuntime({
    context: { ...context, ...context.workers, template: () => workerTemplateOf(context.environment()) },
    sources: (changed, own) => workSources(context, changed, own),
    hold,
    prober: createBusyProber(context.clock),
    onChange,
  });
}

const workerTemplateOf = oncePerEnvironment(workerTemplate);
const sessionTemplatesOf = oncePerEnvironment(() => new Map<string, SessionTemplate>());

function sessionTemplateOf(environment: Environment, { shell, sleep }: Refused): SessionTemplate {
  const made = sessionTemplatesOf(environment);
  const key = JSON.stringify([shell, sleep]);
  const template = made.get(key) ?? sessionTemplate(environment, shell, sleep);
  made.set(key, template);
  return template;
}

/** Renders and hashes a template once per version of an Environment, because every reconcile needs it. */
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
