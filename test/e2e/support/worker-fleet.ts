import { AT_ONCE } from "../../support/workers-world.ts";
import { SOON, workerTemplate } from "./worker-template.ts";
import type { E2eWorld } from "./world.ts";

export { deploymentsOf, untilWorkers, workersOf } from "../../support/workers-world.ts";

/** Where the worker answers the busy probe. */
const BUSY_PORT = 9000;

export interface FleetOptions {
  /** Fields over those of a plain `spec.workers`: up to 4 workers, as many as are wanted now. */
  readonly workers?: Record<string, unknown>;
  /** Environment variables of the worker, over those of a plain one. */
  readonly env?: Readonly<Record<string, string>>;
  /** How long a worker stays with an idle session, in milliseconds: SOON unless given. */
  readonly maxIdleMs?: number;
  /** False: nobody can ask whether a worker is busy. */
  readonly probed?: boolean;
}

/** What makes an Environment one with always-on stock workers: hand it to `createEnvironment` or `patchSpec`. */
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
      ...workers,
    },
  };
}
