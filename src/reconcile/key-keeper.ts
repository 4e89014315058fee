import type { Verdict } from "../api/conditions.ts";
import type { Environment } from "../api/environment.ts";
import type { Clock } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import type { Points } from "../core/points.ts";
import type { Timing } from "../core/timing.ts";
import type { KubeClient } from "../kube/client.ts";
import { isForbidden, isNotFound } from "../kube/errors.ts";
import { SECRETS } from "../kube/resource.ts";
import type { EnvironmentRuntime } from "./environment-runtime.ts";
import type { ReconcilePoint } from "./reconciler-options.ts";

export interface KeyKeeperOptions {
  readonly kube: KubeClient;
  readonly points: Points<ReconcilePoint>;
  readonly clock: Clock;
  readonly timing: Pick<Timing, "keyRefreshMs" | "keyRetryMs">;
  /** The loops that send the key and learn whether the Work API accepts it. */
  readonly loops: () => Pick<EnvironmentRuntime, "keyChanged" | "keyRejected" | "retryKey">;
}

/**
 * Keeps the key that one Environment's loops send in sync with its Secret. The Secret is read on a schedule and never
 * watched.
 */
export class KeyKeeper {
  readonly #options: KeyKeeperOptions;
  #key: KeyReading | null = null;
  /** The last read failed, but the key in use may still be right: a single failure is not reported. */
  #inDoubt = false;
  /** When the Secret was last read (monotonic). */
  #readMs = Number.NEGATIVE_INFINITY;
  #inUse = "";

  constructor(options: KeyKeeperOptions) {
    this.#options = options;
  }

  /** The key that requests are sent with; empty if there is none. */
  get inUse(): string {
    return this.#inUse;
  }

  /** What is wrong with the Secret or with reading it; null if nothing is, or if it was not read yet. */
  get problem(): Verdict | null {
    return this.#key && !this.#key.ok ? this.#key.verdict : null;
  }

  /** Whether a read of the Secret has given an answer, so that a missing key is final. */
  get isRead(): boolean {
    return this.#key !== null && (this.#key.ok || this.#key.lasting);
  }

  /** Milliseconds until the next read. */
  nextLookMs(nowMs: number): number {
    return this.#readMs + this.#paceMs - nowMs;
  }

  /** Makes the next `read` read at once. */
  lookAgain(): void {
    this.#readMs = Number.NEGATIVE_INFINITY;
  }

  /** Reads the Secret if it is time, and tells the loops about a changed key. */
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
    const keyBefore = this.#inUse;
    this.#inUse = keyToUse(environment, reading) ?? keyBefore;
    const loops = this.#options.loops();
    // A person who touches the Secret of a rejected key wants a retry, even if the key is the same.
    const touched = reading.ok && before?.ok && reading.version !== before.version && loops.keyRejected;
    if (this.#inUse === keyBefore && !touched) return loops.retryKey();
    if (this.#inUse !== "") loops.keyChanged();
  }

  get #paceMs(): number {
    const { keyRefreshMs, keyRetryMs } = this.#options.timing;
    return this.#key?.ok && !this.#inDoubt && !this.#options.loops().keyRejected ? keyRefreshMs : keyRetryMs;
  }
}

/**
 * A failed read leaves the key in use (null). If the Secret was deleted together with its Environment (`kubectl delete
 * -f`), the last key is still needed to end what runs.
 */
function keyToUse(environment: Environment, reading: KeyReading): string | null {
  if (reading.ok) return reading.key;
  const deleting = environment.metadata.deletionTimestamp !== undefined;
  return reading.lasting && !deleting ? "" : null;
}

/** Characters that a header value can have: visible ASCII. */
const HEADER_VALUE = /^[\x21-\x7e]+$/;

/** The environment key that the Secret has now. */
export type KeyReading =
  /** `version` changes with every change of the Secret, even if the key stays the same. */
  | { readonly ok: true; readonly key: string; readonly version: string }
  /** No usable key. `lasting`: the Secret has none, as opposed to a failed read. */
  | { readonly ok: false; readonly verdict: Verdict; readonly lasting: boolean };

/** Reads the key by the Secret's name: Secrets are never watched. Never throws, and never repeats a value. */
export async function readEnvironmentKey(
  kube: KubeClient,
  namespace: string,
  ref: { readonly name: string; readonly key: string },
): Promise<KeyReading> {
  try {
    const { data, metadata } = await kube.get(SECRETS, { namespace, name: ref.name });
    const value = data?.[ref.key];
    if (value === undefined) {
      // Do not name the Secret's other keys: a user who can edit an Environment may not have permission to read
      // Secrets.
      return lasting(
        "KeyMissing",
        `spec.api.keySecretRef.key: Secret ${ref.name} has no key ${ref.key}; add it, or correct the field`,
      );
    }
    // Files that `kubectl create secret --from-file` reads often end with a line break.
    const key = Buffer.from(value, "base64").toString("utf8").trim();
    if (key === "") return lasting("KeyEmpty", `${placeOf(ref)} is empty; put the environment key there`);
    if (!HEADER_VALUE.test(key)) {
      return lasting(
        "KeyEmpty",
        `${placeOf(ref)} has spaces, line breaks or other characters that a key cannot have; put only the environment key there`,
      );
    }
    return { ok: true, key, version: `${metadata.uid}/${metadata.resourceVersion}` };
  } catch (error) {
    if (isNotFound(error)) {
      return lasting(
        "KeySecretMissing",
        `spec.api.keySecretRef.name: Secret ${ref.name} does not exist in namespace ${namespace}; create it, or correct the field`,
      );
    }
    const fix = isForbidden(error)
      ? `give the operator permission to get Secrets in namespace ${namespace}`
      : "Berth tries again";
    const message = `spec.api.keySecretRef.name: cannot read Secret ${ref.name}: ${errorText(error)}; ${fix}`;
    return { ok: false, lasting: false, verdict: { reason: "KeySecretUnreadable", message } };
  }
}

/** Where a key is, for messages. */
function placeOf(ref: { readonly name: string; readonly key: string }): string {
  return `key ${ref.key} of Secret ${ref.name}`;
}

function lasting(reason: "KeyMissing" | "KeyEmpty" | "KeySecretMissing", message: string): KeyReading {
  return { ok: false, lasting: true, verdict: { reason, message } };
}
