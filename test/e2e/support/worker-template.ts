import { IS_GVISOR } from "./isolation.ts";
import type { E2eImages } from "./provided.ts";
import { USER_NAMESPACES } from "./settings.ts";

/** The stock worker that a session runs. */
export type StockWorker = "typescript" | "python" | "go";

/** The commands of the stock workers in their images. With one, a Pod can wait in a shell. */
export const WORKER_COMMANDS: Record<StockWorker, readonly string[]> = {
  typescript: ["node", "/app/worker.mjs"],
  python: ["python3", "/app/worker.py"],
  go: ["worker"],
};

/** Milliseconds for which a worker waits with an idle session. */
export const SOON = 300;
export const NEVER = 600_000;

/**
 * With this TTL a worker sends a heartbeat every 10 s, and so receives a stop soon. It is long enough that no lease
 * lapses on an overloaded node.
 */
export const LIVELY_SECONDS = 20;

export interface TemplateOptions {
  readonly worker: StockWorker;
  /** BERTH_WORKER_MAX_IDLE_MS. */
  readonly maxIdleMs: number;
  /** Overrides fields of the session container. */
  readonly container?: Record<string, unknown>;
  /** Parts of the Pod's spec. */
  readonly podSpec?: Record<string, unknown>;
}

/** The Pod template of an Environment whose sessions a stock worker serves, as short as a user would write it. */
export function workerTemplate(images: E2eImages, options: TemplateOptions): Record<string, unknown> {
  const { env = [], ...container } = (options.container ?? {}) as { env?: readonly unknown[] };
  return {
    spec: {
      // Long enough for a worker to drain, short enough for tests that wait for one that ignores the signal.
      terminationGracePeriodSeconds: 30,
      ...(process.env[USER_NAMESPACES] && !IS_GVISOR ? { hostUsers: false } : {}),
      ...options.podSpec,
      containers: [
        {
          name: "worker",
          image: images[options.worker],
          // Many tests share a small node.
          resources: { requests: { cpu: "10m", memory: "64Mi" } },
          ...container,
          env: [{ name: "BERTH_WORKER_MAX_IDLE_MS", value: String(options.maxIdleMs) }, ...env],
        },
      ],
    },
  };
}

/** The line that `DEAF` prints once it ignores SIGTERM. */
export const IS_DEAF = "deaf";

/**
 * A program that ignores SIGTERM once it has printed `IS_DEAF`. Before the container's runtime has handed over to it, a
 * signal ends the runtime with exit code 2 (Go's code for a signal that does not end a process with PID 1), although
 * the kubelet reports the container as running.
 */
export const DEAF: readonly string[] = ["sh", "-c", `trap '' TERM; echo ${IS_DEAF}; exec sleep 1000000`];
