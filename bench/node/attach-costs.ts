/** What attach-main.ts measures. */
export interface AttachOptions {
  /** Pods whose shell waits. */
  readonly pods: number;
  /** Open connections, one level after the other. */
  readonly levels: readonly number[];
  /** How long each level is watched. */
  readonly seconds: number;
}

/** The programs that a connection passes. */
export const PASSED = ["client", "kube-apiserver", "kubelet", "containerd"] as const;
export type Passed = (typeof PASSED)[number];

/** The costs of one number of connections. */
export interface Level {
  readonly connections: number;
  readonly load: number;
  readonly openedMs: readonly number[];
  readonly lost: readonly string[];
  readonly goroutines: number;
  /** Cores, over the level's time. */
  readonly cores: Readonly<Record<Passed, number>>;
  /** At the end of the level's time. */
  readonly rssBytes: Readonly<Record<Passed, number>>;
}

/** How a session gets its line over attach. */
export const DELIVERIES = ["opened before", "opened when needed"] as const;

/** One delivery, in milliseconds. */
export interface Delivery {
  readonly how: (typeof DELIVERIES)[number];
  /** From the start to the open connection. Zero if it was open. */
  readonly openMs: number;
  /** From the write to the line that the shell prints when it has read the frame. */
  readonly startedMs: number;
}

export interface AttachResult {
  readonly levels: readonly Level[];
  readonly deliveries: readonly Delivery[];
}
