import { type Clock, SECOND_MS } from "../core/clock.ts";
import type { CallOptions, KubeClient } from "../kube/client.ts";
import { isConflict, isNotFound } from "../kube/errors.ts";
import { type Lease, type LeaseSpec, microTime } from "../kube/objects.ts";
import { LEASES } from "../kube/resource.ts";

/** The largest int32 of `coordination.k8s.io/v1`. Any client that can write the Lease may have set it. */
const MAX_TRANSITIONS = 2 ** 31 - 1;

/** The client methods that Leases need. */
export type LeaseClient = Pick<KubeClient, "get" | "list" | "create" | "replace" | "delete">;

export interface LeaseRecordOptions {
  readonly client: LeaseClient;
  readonly namespace: string;
  readonly name: string;
  readonly identity: string;
  readonly leaseDurationMs: number;
  readonly clock: Clock;
  /** Labels of the Lease; every renewal writes them again. */
  readonly labels?: Readonly<Record<string, string>> | undefined;
  /** The ages of Leases, shared with other readers in this process. */
  readonly ages?: LeaseAges | undefined;
}

/**
 * `taken`: the Lease was free or deleted, and this process now holds it. `renewed`: this process held it all along.
 * `others`: another client holds it.
 */
export type LeaseOutcome = "taken" | "renewed" | "others";

/**
 * Reads, acquires, renews and releases the Lease object. Every write carries the resourceVersion that the decision was
 * based on.
 */
export class LeaseRecord {
  readonly #options: LeaseRecordOptions;
  readonly #ages: LeaseAges;
  #lease: Lease | undefined;

  constructor(options: LeaseRecordOptions) {
    this.#options = options;
    this.#ages = options.ages ?? new LeaseAges(options.clock);
  }

  /** Whether this process holds the Lease, as far as it knows. */
  get isOurs(): boolean {
    return this.#lease !== undefined && this.holder === this.#options.identity;
  }

  /** Empty if the Lease has no holder, or none is known. */
  get holder(): string {
    return this.#lease?.spec?.holderIdentity ?? "";
  }

  /**
   * Acquires the Lease, or renews it. The next call finds out the state after an error.
   * @throws KubeApiError when the outcome is unknown: there was no answer, or the Lease changed at the same time
   * (isConflict, isAlreadyExists).
   */
  async acquireOrRenew(o: CallOptions): Promise<LeaseOutcome> {
    // While this process holds the Lease, one request is enough: any change by another client changes its
    // resourceVersion.
    if (this.#lease && this.holder === this.#options.identity) {
      try {
        await this.#write(this.#lease, o);
        return "renewed";
      } catch (error) {
        if (!isConflict(error) && !isNotFound(error)) throw error;
      }
    }
    const current = await this.#read(o);
    if (!current) {
      await this.#create(o);
      return "taken";
    }
    const ours = current.spec?.holderIdentity === this.#options.identity;
    if (!ours && this.#ages.isHeld(current, this.#options.leaseDurationMs)) return "others";
    await this.#write(current, o);
    return ours ? "renewed" : "taken";
  }

  /** Deletes the object if this process holds it. */
  async remove(timeoutMs: number): Promise<void> {
    const { client, namespace, name } = this.#options;
    const { uid } = this.#lease?.metadata ?? {};
    if (!this.isOurs || uid === undefined) return;
    this.#lease = undefined;
    await client.delete(LEASES, { namespace, name }, { uid }, { timeoutMs });
  }

  /** Frees the Lease, so that the next candidate need not wait. Does nothing if another client holds it. */
  async release(timeoutMs: number): Promise<void> {
    if (!this.#lease || this.holder !== this.#options.identity) return;
    try {
      await this.#giveUp(this.#lease, timeoutMs);
    } catch (error) {
      // An aborted renewal has most likely taken effect.
      if (!isConflict(error)) throw error;
      const current = await this.#read({ timeoutMs });
      if (current && this.holder === this.#options.identity) await this.#giveUp(current, timeoutMs);
    } finally {
      this.#lease = undefined;
    }
  }

  async #giveUp(lease: Lease, timeoutMs: number): Promise<void> {
    const renewTime = microTime(this.#options.clock.now());
    // One second, as in client-go: 0 is not valid.
    const spec: LeaseSpec = { ...lease.spec, holderIdentity: "", leaseDurationSeconds: 1, renewTime };
    await this.#options.client.replace(LEASES, { ...lease, spec }, {}, { timeoutMs });
  }

  async #read(o: CallOptions): Promise<Lease | undefined> {
    const { client, namespace, name } = this.#options;
    try {
      const lease = await client.get(LEASES, { namespace, name }, o);
      this.#observe(lease);
      return lease;
    } catch (error) {
      if (!isNotFound(error)) throw error;
      this.#lease = undefined;
      return undefined;
    }
  }

  async #create(o: CallOptions): Promise<void> {
    const { client, namespace, name } = this.#options;
    const { labels } = this.#options;
    const metadata = { namespace, name, ...(labels ? { labels: { ...labels } } : {}) };
    const lease: Lease = { metadata, spec: this.#spec(undefined) };
    this.#observe(await client.create(LEASES, lease, {}, o));
  }

  async #write(lease: Lease, o: CallOptions): Promise<void> {
    const { labels } = this.#options;
    const metadata = labels ? { ...lease.metadata, labels: { ...lease.metadata.labels, ...labels } } : lease.metadata;
    const next: Lease = { ...lease, metadata, spec: { ...lease.spec, ...this.#spec(lease.spec) } };
    this.#observe(await this.#options.client.replace(LEASES, next, {}, o));
  }

  #spec(previous: LeaseSpec | undefined): LeaseSpec {
    const { clock, identity, leaseDurationMs } = this.#options;
    const now = microTime(clock.now());
    const ours = previous?.holderIdentity === identity;
    return {
      holderIdentity: identity,
      leaseDurationSeconds: Math.ceil(leaseDurationMs / 1000),
      acquireTime: (ours ? previous?.acquireTime : undefined) ?? now,
      renewTime: now,
      leaseTransitions: previous === undefined ? 0 : transitionsAfter(previous, ours),
    };
  }

  #observe(lease: Lease): void {
    this.#ages.note(lease);
    this.#lease = lease;
  }
}

/** Wraps to 0 after the largest int32: the API server would reject a larger number, and with it the whole renewal. */
function transitionsAfter({ leaseTransitions = 0 }: LeaseSpec, ours: boolean): number {
  if (ours) return leaseTransitions;
  return leaseTransitions < MAX_TRANSITIONS ? leaseTransitions + 1 : 0;
}

/**
 * When each Lease was first seen in its current state, on this process's monotonic clock. So clocks of two machines are
 * never compared, and the times written in a Lease are not trusted. All readers of Leases in a process share it. Keyed
 * by name, within one namespace.
 */
export class LeaseAges {
  readonly #clock: Clock;
  readonly #seen = new Map<string, { readonly version: string; readonly at: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Records a Lease that was just read or written. */
  note(lease: Lease): void {
    const { name = "", uid, resourceVersion } = lease.metadata;
    const version = `${uid}/${resourceVersion}`;
    if (this.#seen.get(name)?.version !== version) this.#seen.set(name, { version, at: this.#clock.monotonic() });
  }

  /** Forgets all Leases but these. */
  keep(names: ReadonlySet<string>): void {
    for (const name of this.#seen.keys()) if (!names.has(name)) this.#seen.delete(name);
  }

  /** Milliseconds since this state of the Lease was first seen; 0 for a Lease that was never noted. */
  ageMs({ metadata: { name = "", uid, resourceVersion } }: Lease): number {
    const seen = this.#seen.get(name);
    return seen?.version === `${uid}/${resourceVersion}` ? this.#clock.monotonic() - seen.at : 0;
  }

  /** Whether the Lease has a holder that has renewed it within its own duration, as far as this process has seen. */
  isHeld(lease: Lease, defaultDurationMs: number): boolean {
    const { holderIdentity = "", leaseDurationSeconds } = lease.spec ?? {};
    if (holderIdentity === "") return false;
    const durationMs = leaseDurationSeconds === undefined ? defaultDurationMs : leaseDurationSeconds * SECOND_MS;
    return this.ageMs(lease) < durationMs;
  }
}
