import type { Environment } from "../api/environment.ts";
import type { Clock } from "../core/clock.ts";
import type { Points } from "../core/points.ts";
import type { Timing } from "../core/timing.ts";
import type { KubeClient } from "../kube/client.ts";
import type { Verdict } from "../queue/api-health.ts";
import { type KeyReading, readEnvironmentKey } from "./environment-key.ts";
import type { EnvironmentRuntime } from "./environment-runtime.ts";
import { KeyInUse } from "./key-in-use.ts";
import type { ReconcilePoint } from "./points.ts";

export interface KeyKeeperOptions {
  readonly kube: KubeClient;
  readonly points: Points<ReconcilePoint>;
  readonly clock: Clock;
  readonly timing: Pick<Timing, "keyRefreshMs" | "keyRetryMs">;
  /** The loops that send the key, and hear whether it is taken. */
  readonly loops: () => Pick<EnvironmentRuntime, "keyChanged" | "keyRejected" | "retryKey">;
  /** The addresses that the status has. */
  readonly recorded: () => readonly string[];
}

/** Keeps the key that one Environment's loops send in step with its Secret, which is read by the clock and never watched. */
export class KeyKeeper {
  readonly #options: KeyKeeperOptions;
  #key: KeyReading | null = null;
  /** The last reading failed and the key in use may still be right: one failure is no news. */
  #inDoubt = false;
  /** Monotonic time of the last reading. */
  #readMs = Number.NEGATIVE_INFINITY;
  /** The key that is sent, and where. */
  readonly inUse = new KeyInUse();

  constructor(options: KeyKeeperOptions) {
    this.#options = options;
  }

  /** What is wrong with the Secret, or with reading it; null: nothing, or it was not read yet. */
  get problem(): Verdict | null {
    return this.#key && !this.#key.ok ? this.#key.verdict : null;
  }

  /** Whether the Secret has been read, so that a missing key is no longer news to come. */
  get isRead(): boolean {
    return this.#key !== null && (this.#key.ok || this.#key.lasting);
  }

  /** Milliseconds until it is to be read again. */
  nextLookMs(nowMs: number): number {
    return this.#readMs + this.#paceMs - nowMs;
  }

  /** Has the next `read` read, whatever the time. */
  lookAgain(): void {
    this.#readMs = Number.NEGATIVE_INFINITY;
  }

  /** Reads the Secret, where it is time to, and tells the loops what they should know. */
  async read(environment: Environment): Promise<void> {
    const { kube, clock, points } = this.#options;
    const nowMs = clock.monotonic();
    if (nowMs < this.#readMs + this.#paceMs) return;
    const { namespace } = environment.metadata;
    const ref = environment.spec.api.keySecretRef;
    const usable = ({ ok }: KeyReading) => ({ usable: ok });
    const reading = await points.run("reconcile.read-key", {}, () => readEnvironmentKey(kube, namespace, ref), usable);
    this.#readMs = nowMs;
    if (!reading.ok && !reading.lasting && this.#key?.ok && !this.#inDoubt) {
      this.#inDoubt = true;
      return;
    }
    this.#inDoubt = false;
    const before = this.#key;
    this.#key = reading;
    const keyBefore = this.inUse.key;
    const next = keyToUse(environment, reading);
    if (next !== null) this.inUse.take(next, environment.spec.api, this.#options.recorded());
    const loops = this.#options.loops();
    // Whoever touches the Secret of a rejected key wants to see it tried again, also with the same key.
    const touched = reading.ok && before?.ok && reading.version !== before.version && loops.keyRejected;
    const { key } = this.inUse;
    if (key === keyBefore && !touched) return loops.retryKey();
    if (key !== "") loops.keyChanged();
  }

  get #paceMs(): number {
    const { keyRefreshMs, keyRetryMs } = this.#options.timing;
    return this.#key?.ok && !this.#inDoubt && !this.#options.loops().keyRejected ? keyRefreshMs : keyRetryMs;
  }
}

/**
 * A Secret that could not be read says nothing: the key in use stays (null). One that went with its Environment (`kubectl
 * delete -f`) is not needed for anything but the end of what still runs.
 */
function keyToUse(environment: Environment, reading: KeyReading): string | null {
  if (reading.ok) return reading.key;
  const deleting = environment.metadata.deletionTimestamp !== undefined;
  return reading.lasting && !deleting ? "" : null;
}
