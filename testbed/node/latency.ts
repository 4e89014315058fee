import type { Random } from "../../src/core/backoff.ts";
import type { Milliseconds } from "./fate.ts";

/** A distribution of durations: half of the draws are between `min` and `mid`, half between `mid` and `max`. */
export interface Spread {
  readonly min: number;
  readonly mid: number;
  readonly max: number;
}

/**
 * Durations on a node in milliseconds, measured on a real kubelet (1.36, containerd 2.2) with 2 cores. They exclude the
 * API server's share, which a test gets from its real API server.
 */
export const KUBELET_TIMES = {
  /** From a seen Pod to its sandbox and network. A cold Pod is Running after about 515 ms in total. */
  sandbox: { min: 250, mid: 330, max: 450 },
  /**
   * From a look that finds everything to a running container. Touch to Running takes 105 ms (p50), at most 127 ms in
   * total.
   */
  start: { min: 70, mid: 85, max: 105 },
  /**
   * From a seen ephemeral container to its start. The kubelet first waits for a relist that is newer than the Pod's last
   * change. It runs 1.0 to 1.1 s after it was added.
   */
  added: { min: 500, mid: 900, max: 1_000 },
  /** From a container's end until the kubelet sees it. Its PLEG relists every second. 0.65 s on average. */
  exitSeen: { min: 300, mid: 650, max: 1_000 },
  /** From the last container's observed end to the Pod's terminal phase: 1.7 s after the exit in total. */
  terminalPhase: { min: 900, mid: 1_050, max: 1_200 },
  /** From the last container's removal to the removal of the object, for a deleted Pod: 0.4 to 1.1 s in total. */
  finalize: { min: 350, mid: 600, max: 950 },
  /** Between two looks at a Pod that couldn't be started: 10 s plus up to half of that (pkg/kubelet/pod_workers.go). */
  look: { min: 10_000, mid: 12_500, max: 15_000 },
  /** From a look until the files of the Pod's volumes match its Secrets and ConfigMaps: about 0.1 s. */
  volumes: { min: 50, mid: 100, max: 250 },
  /**
   * Between two looks at the volumes of a Pod that lacks nothing: a minute plus up to half of that
   * (pkg/kubelet/kubelet.go).
   */
  resync: { min: 60_000, mid: 75_000, max: 90_000 },
  /** The kubelet checks active deadlines in a sync loop that ticks once a second. */
  deadlineSeen: { min: 0, mid: 500, max: 1_000 },
} as const satisfies Record<string, Spread>;

export type LatencyName = keyof typeof KUBELET_TIMES;
export type Latencies = Readonly<Record<LatencyName, Spread>>;

/** Draws durations for one Pod. The same seed and Pod give the same durations, independent of other Pods. */
export class Latency {
  readonly random: Random;
  readonly #spreads: Latencies;
  readonly #timeScale: number;

  /** @param timeScale how many times faster than real time the node runs */
  constructor(random: Random, timeScale = 1, spreads: Partial<Latencies> = {}) {
    this.random = random;
    this.#timeScale = timeScale;
    this.#spreads = { ...KUBELET_TIMES, ...spreads };
  }

  /** Draws one of the node's own durations, in milliseconds of the clock. */
  draw(name: LatencyName): number {
    const { min, mid, max } = this.#spreads[name];
    const r = this.random() * 2;
    return (r < 1 ? min + (mid - min) * r : mid + (max - mid) * (r - 1)) / this.#timeScale;
  }

  /** Draws a duration of a fate, in milliseconds of the clock. */
  of(time: Milliseconds | undefined): number {
    if (time === undefined) return 0;
    const ms = typeof time === "number" ? time : time.min + (time.max - time.min) * this.random();
    return ms / this.#timeScale;
  }

  /** Scales a fixed duration of the node, in milliseconds of the clock. */
  scaled(ms: number): number {
    return ms / this.#timeScale;
  }
}

/** A small seeded generator (mulberry32). The key makes streams with the same seed independent of each other. */
export function seededRandom(seed: number, key = ""): Random {
  let state = seed >>> 0;
  // FNV-1a over the key, so that each Pod draws from its own stream.
  for (const byte of Buffer.from(key)) state = Math.imul(state ^ byte, 0x01000193) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
