import type { Environment } from "../api/environment.ts";
import type { Clock } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import type { Points } from "../core/points.ts";
import type { Timing } from "../core/timing.ts";
import type { KubeClient } from "../kube/client.ts";
import { isForbidden, isNotFound } from "../kube/errors.ts";
import { SECRETS } from "../kube/resource.ts";
import type { Verdict } from "../queue/api-health.ts";
import type { EnvironmentRuntime } from "./environment-runtime.ts";
import type { ReconcilePoint } from "./reconciler-options.ts";

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

/** What can stand in a header's value: visible ASCII. */
const HEADER_VALUE = /^[\x21-\x7e]+$/;

/** The environment key as its Secret has it now. */
export type KeyReading =
  /** `version` changes with every change of the Secret, also one that leaves the key as it is. */
  | { readonly ok: true; readonly key: string; readonly version: string }
  /** Nothing usable there; `lasting`: it is so, as opposed to could not be read. */
  | { readonly ok: false; readonly verdict: Verdict; readonly lasting: boolean };

/** Reads the key by name: Secrets are never watched. Never throws, and never repeats a value. */
export async function readEnvironmentKey(
  kube: KubeClient,
  namespace: string,
  ref: { readonly name: string; readonly key: string },
): Promise<KeyReading> {
  try {
    const { data, metadata } = await kube.get(SECRETS, { namespace, name: ref.name });
    const value = data?.[ref.key];
    if (value === undefined) {
      // The Secret's other keys stay unnamed: a user who can edit an Environment may have no right to read Secrets.
      return lasting(
        "KeyMissing",
        `Secret ${ref.name} has no key ${ref.key}: add the key, or fix spec.api.keySecretRef.key`,
      );
    }
    // A line break at the end is what `kubectl create secret --from-file` leaves there.
    const key = Buffer.from(value, "base64").toString("utf8").trim();
    if (key === "") return lasting("KeyEmpty", `${placeOf(ref)} is empty: put the environment key there`);
    if (!HEADER_VALUE.test(key)) {
      return lasting(
        "KeyEmpty",
        `${placeOf(ref)} holds spaces, line breaks or letters that no key has: put the environment key there and nothing else`,
      );
    }
    return { ok: true, key, version: `${metadata.uid}/${metadata.resourceVersion}` };
  } catch (error) {
    if (isNotFound(error)) {
      return lasting(
        "KeySecretMissing",
        `Secret ${ref.name} is not in namespace ${namespace}: create it, or mend spec.api.keySecretRef.name`,
      );
    }
    const mend = isForbidden(error)
      ? `give the operator permission to get Secrets in namespace ${namespace}`
      : "it is tried again";
    const message = `Secret ${ref.name} could not be read: ${mend} (${errorText(error)})`;
    return { ok: false, lasting: false, verdict: { reason: "KeySecretUnreadable", message } };
  }
}

/** Where a key is, in words. */
function placeOf(ref: { readonly name: string; readonly key: string }): string {
  return `key ${ref.key} of Secret ${ref.name}`;
}

function lasting(reason: "KeyMissing" | "KeyEmpty" | "KeySecretMissing", message: string): KeyReading {
  return { ok: false, lasting: true, verdict: { reason, message } };
}

/** The part of a spec that says which key goes where. */
type Api = Pick<Environment["spec"]["api"], "baseUrl" | "keySecretRef">;

/**
 * The environment key that requests are sent with, and where it may be sent. A spec that names another address and another
 * Secret at one stroke must not have either key sent to the other's address: not the old one to the new address until the
 * new Secret was read, nor the new one to sessions that were claimed at the old address. Only a key that is named for both
 * follows, with whatever its Secret holds later.
 */
export class KeyInUse {
  #key = "";
  /** What the spec said when it was read. */
  #from: { readonly secret: string; readonly baseUrl: string } | null = null;
  /** By address that the spec named before, the key of the Secret that it named then. Not kept over a restart: then there is one. */
  readonly #earlier = new Map<string, { readonly secret: string; readonly key: string }>();

  /** As it was read last; empty: there is none. */
  get key(): string {
    return this.#key;
  }

  /** The key for the address of this spec; empty: there is none, or none was read for it yet. */
  for({ baseUrl, keySecretRef }: Api): string {
    const isIts = this.#from?.baseUrl === baseUrl || this.#from?.secret === nameOf(keySecretRef);
    return isIts ? this.#key : "";
  }

  /** The key for an address that an earlier spec named. */
  forEarlier(address: string, { keySecretRef }: Api): string {
    const earlier = this.#earlier.get(address);
    return earlier && earlier.secret !== nameOf(keySecretRef) ? earlier.key : this.#key;
  }

  /**
   * Another one was read; empty: there is none any more.
   * @param addresses all that claims may name
   */
  take(key: string, { baseUrl, keySecretRef }: Api, addresses: readonly string[]): void {
    const secret = nameOf(keySecretRef);
    const before = this.#from;
    for (const address of this.#earlier.keys()) if (!addresses.includes(address)) this.#earlier.delete(address);
    if (before && before.secret !== secret && this.#key !== "") {
      for (const address of new Set([...addresses, before.baseUrl])) {
        if (!this.#earlier.has(address)) this.#earlier.set(address, { secret: before.secret, key: this.#key });
      }
    }
    this.#earlier.delete(baseUrl);
    this.#key = key;
    this.#from = { secret, baseUrl };
  }
}

function nameOf({ name, key }: Api["keySecretRef"]): string {
  return `${name}/${key}`;
}
