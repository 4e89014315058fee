import type { E2eImages } from "./provided.ts";

/** Which stock worker a session runs. */
export type StockWorker = "typescript" | "python";

/** How long a worker stays with an idle session, in milliseconds. */
export const SOON = 300;
export const NEVER = 600_000;

/**
 * A TTL with which a worker beats every 10 s, and so hears soon that its item is to stop; long enough that a node with
 * far too much to do does not let a lease lapse.
 */
export const LIVELY_SECONDS = 20;

export interface TemplateOptions {
  readonly worker: StockWorker;
  /** BERTH_WORKER_MAX_IDLE_MS. */
  readonly maxIdleMs: number;
  /** The session container, over the usual one. */
  readonly container?: Record<string, unknown>;
  /** Parts of the Pod's spec. */
  readonly podSpec?: Record<string, unknown>;
}

/** The Pod template of an Environment whose sessions a stock worker serves: as little as a user would write. */
export function workerTemplate(images: E2eImages, options: TemplateOptions): Record<string, unknown> {
  const { env = [], ...container } = (options.container ?? {}) as { env?: readonly unknown[] };
  return {
    spec: {
      // Long enough for a worker that drains, short enough for tests that wait for one that does not.
      terminationGracePeriodSeconds: 30,
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

/** What `DEAF` says when it has begun. */
export const IS_DEAF = "deaf";

/**
 * A program that hears no SIGTERM, once it has said so. Until the container's runtime has handed over to it a signal ends that
 * one instead, with exit code 2 (Go's, for a signal that does not end a process with PID 1), though kubelet calls it running.
 */
export const DEAF: readonly string[] = ["sh", "-c", `trap '' TERM; echo ${IS_DEAF}; exec sleep 1000000`];
