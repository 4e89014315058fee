/** Worlds whose session containers are the unmodified stock worker. */
import { fileURLToPath } from "node:url";
import type { TestCluster } from "./cluster.ts";
import { SHORT_LEASE } from "./session-life.ts";
import { startWorld, type World, type WorldOptions } from "./world.ts";

const WORKER = fileURLToPath(new URL("../../examples/worker/worker.mjs", import.meta.url));

/** How long a worker keeps an idle session, in milliseconds. */
export const SOON = 300;
export const NEVER = 600_000;

/** A world whose node runs containers as processes: the session container is the unmodified stock worker. */
export function stockWorld(cluster: TestCluster, maxIdleMs: number, options: WorldOptions = {}): Promise<World> {
  return startWorld(cluster, {
    ...SHORT_LEASE,
    node: { runtime: "process", fates: () => undefined },
    podSpec: { terminationGracePeriodSeconds: 30 },
    ...options,
    container: {
      command: [process.execPath, WORKER],
      env: [{ name: "BERTH_WORKER_MAX_IDLE_MS", value: String(maxIdleMs) }],
      ...options.container,
    },
  });
}
