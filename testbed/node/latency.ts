import type { Random } from "../../src/core/backoff.ts";
import type { Milliseconds } from "./fate.ts";

/** How long something takes: half of the draws lie between `min` and `mid`, half between `mid` and `max`. */
export interface Spread {
  readonly min: number;
  readonly mid: number;
  readonly max: number;
}

/**
 * Times of a node in milliseconds, measured on a real kubelet (1.36, containerd 2.2) with 2 cores. The API server's
 * own share of each is not in them: it is there by itself.
 */
export const KUBELET_TIMES = {
  /** From a Pod seen to its sandbox and network. A cold Pod is Running after about 515 ms in all. */
  sandbox: { min: 250, mid: 330, max: 450 },
  /** From a look that finds everything to a running container: touch to Running is p50 105, max 127 in all. */
  start: { min: 70, mid: 85, max: 105 },
  /** From a container's end to kubelet seeing it: its PLEG relists every second. 0.65 s on average. */
  exitSeen: { min: 300, mid: 650, max: 1_000 },
  /** From the end of the last container seen to the Pod's terminal phase: 1.7 s after the exit in all. */
  terminalPhase: { min: 900, mid: 1_050, max: 1_200 },
  /** From the last container gone to the object removed, for a Pod that is being deleted: 0.4 to 1.1 s in all. */
  finalize: { min: 350, mid: 600, max: 950 },
  /** Between two looks at a Pod that could not be started: 10 s and up to half more (pkg/kubelet/pod_workers.go). */
  look: { min: 10_000, mid: 12_500, max: 15_000 },
  /** From a look to the files of the Pod's volumes being what its Secrets and ConfigMaps are: about 0.1 s. */
  volumes: { min: 50, mid: 100, max: 250 },
  /** Between two looks at a Pod that lacks nothing, for its volumes: a minute and up to half more (pkg/kubelet/kubelet.go). */
  resync: { min: 60_000, mid: 75_000, max: 90_000 },
  /** kubelet compares active deadlines in a sync loop that ticks once a second. */
  deadlineSeen: { min: 0, mid: 500, max: 1_000 },
} as const satisfies Record<string, Spread>;

export type LatencyName = keyof typeof KUBELET_TIMES;
export type Latencies = Readonly<Record<LatencyName, Spread>>;

/** Draws times for one Pod: the same seed and Pod give the same times, whatever other Pods do. */
export class Latency {
  readonly random: Random;
  readonly #spreads: Latencies;
  readonly #timeScale: number;

  /** @param timeScale how many times faster than life the node is. */
  constructor(random: Random, timeScale = 1, spreads: Partial<Latencies> = {}) {
    this.random = random;
    this.#timeScale = timeScale;
    this.#spreads = { ...KUBELET_TIMES, ...spreads };
  }

  /** A draw of one of the node's own times, in milliseconds of the clock. */
  draw(name: LatencyName): number {
    const { min, mid, max } = this.#spreads[name];
    const r = this.random() * 2;
    return (r < 1 ? min + (mid - min) * r : mid + (max - mid) * (r - 1)) / this.#timeScale;
  }

  /** A time of a fate, in milliseconds of the clock. */
  of(time: Milliseconds | undefined): number {
    if (time === undefined) return 0;
    const ms = typeof time === "number" ? time : time.min + (time.max - time.min) * this.random();
    return ms / this.#timeScale;
  }

  /** A fixed time of the node, in milliseconds of the clock. */
  scaled(ms: number): number {
    return ms / this.#timeScale;
  }
}

/** A small seeded generator (mulberry32); the key makes streams of one seed independent of each other. */
export function seededRandom(seed: number, key = ""): Random {
  let state = seed >>> 0;
  // FNV-1a over the key, so that Pods draw from streams of their own.
  for (const byte of Buffer.from(key)) state = Math.imul(state ^ byte, 0x01000193) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
