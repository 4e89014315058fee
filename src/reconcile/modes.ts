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
import { EnvironmentFinalizer } from "./finalizer.ts";

/** What both modes need, and the caches of each. */
export type ModeContext = Omit<RuntimeContext, "template" | "points"> & {
  /** Why Pods can't wait in a shell now; null: they can. */
  readonly shellRefused: () => string | null;
  readonly points: Points;
  readonly workers: WorkersCaches;
};

/** An Environment's mode, and its maximum number of Pods or workers. */
export function modeOf({ spec }: Environment): { readonly mode: "Sessions" | "Workers"; readonly max: number } {
  return spec.workers
    ? { mode: "Workers", max: spec.workers.maxReplicas }
    : { mode: "Sessions", max: spec.sessions?.maxConcurrent ?? 0 };
}

/**
 * The template that the Environment's spec has now.
 * @param shellRefused why Pods can't wait in a shell, see pods/parking.ts. By default as the status says: commands
 * don't find it out.
 */
export function templateOf(
  environment: Environment,
  shellRefused: string | null = refusedByStatus(environment),
): CheckedTemplate {
  return environment.spec.workers
    ? workerTemplateOf(environment)
    : { ...sessionTemplateOf(environment, shellRefused), field: "spec.sessions.template" };
}

function refusedByStatus({ status }: Environment): string | null {
  return status?.parking?.mode === "Key" ? status.parking.message : null;
}

/** The loops of an Environment, for the mode that its spec names. The mode never changes. */
export function runtimeOf(environment: Environment, context: ModeContext, onChange: () => void): EnvironmentRuntime {
  return environment.spec.workers
    ? workersRuntime(context, onChange)
    : new SessionsRuntime(
        { ...context, template: () => sessionTemplateOf(context.environment(), context.shellRefused()) },
        new EnvironmentFinalizer(context),
        onChange,
      );
}

function workersRuntime(context: ModeContext, onChange: () => void): EnvironmentRuntime {
  return new WorkersRuntime({
    context: { ...context, ...context.workers, template: () => workerTemplateOf(context.environment()) },
    sources: (changed) => workSources(context, changed),
    hold: new EnvironmentFinalizer(context),
    prober: createBusyProber(context.clock),
    onChange,
  });
}

const workerTemplateOf = oncePerEnvironment(workerTemplate);
const sessionTemplatesOf = oncePerEnvironment(() => new Map<string | null, SessionTemplate>());

function sessionTemplateOf(environment: Environment, shellRefused: string | null): SessionTemplate {
  const made = sessionTemplatesOf(environment);
  const template = made.get(shellRefused) ?? sessionTemplate(environment, shellRefused);
  made.set(shellRefused, template);
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
