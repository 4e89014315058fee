import { AT_ONCE } from "../../support/workers-world.ts";
import { isolationOf } from "./settings.ts";
import { SOON, workerTemplate } from "./worker-template.ts";
import type { E2eWorld } from "./world.ts";

export { deploymentsOf, untilWorkers, workersOf } from "../../support/workers-world.ts";

/** The port of the worker's busy probe. */
const BUSY_PORT = 9000;

export interface FleetOptions {
  /** Overrides fields of the default `spec.workers`: up to 4 workers, as many as are needed now. */
  readonly workers?: Record<string, unknown>;
  /** Adds to or overrides the worker's default environment variables. */
  readonly env?: Readonly<Record<string, string>>;
  /** Milliseconds for which a worker waits with an idle session; SOON by default. */
  readonly maxIdleMs?: number;
  /** If false, the operator can't find out whether a worker is busy. */
  readonly probed?: boolean;
}

/** The spec of an Environment with always-on stock workers, for `createEnvironment` or `patchSpec`. */
export function workersSpec(world: E2eWorld, options: FleetOptions = {}): Record<string, unknown> {
  const { workers, env = {}, maxIdleMs = SOON, probed = true } = options;
  const variables = { ...(probed ? { BERTH_WORKER_BUSY_PORT: String(BUSY_PORT) } : {}), ...env };
  const template = workerTemplate(world.cluster.images, {
    worker: "typescript",
    maxIdleMs,
    container: {
      command: ["node", "/app/always-on.mjs"],
      env: Object.entries(variables).map(([name, value]) => ({ name, value })),
    },
  });
  return {
    sessions: undefined,
    workers: {
      maxReplicas: 4,
      behavior: AT_ONCE,
      ...(probed ? { busyProbe: { httpGet: { path: "/busy", port: BUSY_PORT } } } : {}),
      template,
      isolation: isolationOf(),
      ...workers,
    },
  };
}
