import { type Clock, SECOND_MS } from "../core/clock.ts";
import type { CallOptions, KubeClient } from "../kube/client.ts";
import { isConflict, isNotFound } from "../kube/errors.ts";
import { type Lease, type LeaseSpec, microTime } from "../kube/objects.ts";
import { LEASES } from "../kube/resource.ts";

/** An int32 of `coordination.k8s.io/v1`. Anybody who may write the Lease may have put it there. */
const MAX_TRANSITIONS = 2 ** 31 - 1;

/** What Leases need of a client. */
export type LeaseClient = Pick<KubeClient, "get" | "list" | "create" | "replace" | "delete">;

export interface LeaseRecordOptions {
  readonly client: LeaseClient;
  readonly namespace: string;
  readonly name: string;
  readonly identity: string;
  readonly leaseDurationMs: number;
  readonly clock: Clock;
  /** On the object; written again with every renewal. */
  readonly labels?: Readonly<Record<string, string>> | undefined;
  /** What was seen of Leases elsewhere in the process. */
  readonly ages?: LeaseAges | undefined;
}

/** `taken`: it was nobody's, or gone, and is ours from now on; `renewed`: it was ours all the time. */
export type LeaseOutcome = "taken" | "renewed" | "others";

/** The Lease object: reading, taking, renewing and releasing it. Every write has the resourceVersion it was decided on. */
export class LeaseRecord {
  readonly #options: LeaseRecordOptions;
  readonly #ages: LeaseAges;
  #lease: Lease | undefined;

  constructor(options: LeaseRecordOptions) {
    this.#options = options;
    this.#ages = options.ages ?? new LeaseAges(options.clock);
  }

  /** Nobody else holds it, as far as was seen. */
  get isOurs(): boolean {
    return this.#lease !== undefined && this.holder === this.#options.identity;
  }

  /** Empty for nobody, or nobody known. */
  get holder(): string {
    return this.#lease?.spec?.holderIdentity ?? "";
  }

  /**
   * Makes the Lease ours, or renews it. Throws KubeApiError when that can not be told
   * (no answer, or it was changed at the same time: isConflict, isAlreadyExists); the next call finds out.
   */
  async acquireOrRenew(o: CallOptions): Promise<LeaseOutcome> {
    // While we hold it, one request is enough: nobody changes it without changing its resourceVersion.
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

  /** Takes the object away, where it is ours. */
  async remove(timeoutMs: number): Promise<void> {
    const { client, namespace, name } = this.#options;
    const { uid } = this.#lease?.metadata ?? {};
    if (!this.isOurs || uid === undefined) return;
    this.#lease = undefined;
    await client.delete(LEASES, { namespace, name }, { uid }, { timeoutMs });
  }

  /** Leaves the Lease to the next candidate without its having to wait. Does nothing where it is not ours. */
  async release(timeoutMs: number): Promise<void> {
    if (!this.#lease || this.holder !== this.#options.identity) return;
    try {
      await this.#giveUp(this.#lease, timeoutMs);
    } catch (error) {
      // A renewal that was broken off has most likely taken effect.
      if (!isConflict(error)) throw error;
      const current = await this.#read({ timeoutMs });
      if (current && this.holder === this.#options.identity) await this.#giveUp(current, timeoutMs);
    } finally {
      this.#lease = undefined;
    }
  }

  async #giveUp(lease: Lease, timeoutMs: number): Promise<void> {
    const renewTime = microTime(this.#options.clock.now());
    // As client-go does: one second, since 0 is not valid.
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

/** From the beginning again after the last number there is: the API server would refuse the next one, and so the Lease. */
function transitionsAfter({ leaseTransitions = 0 }: LeaseSpec, ours: boolean): number {
  if (ours) return leaseTransitions;
  return leaseTransitions < MAX_TRANSITIONS ? leaseTransitions + 1 : 0;
}

/**
 * Since when each Lease was seen unchanged, on our own monotonic clock: no two clocks are ever compared, and the times
 * written in a Lease are not believed. Shared by all who read Leases in a process; keyed by name, of one namespace.
 */
export class LeaseAges {
  readonly #clock: Clock;
  readonly #seen = new Map<string, { readonly version: string; readonly at: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The Lease as it was just read or written. */
  note(lease: Lease): void {
    const { name = "", uid, resourceVersion } = lease.metadata;
    const version = `${uid}/${resourceVersion}`;
    if (this.#seen.get(name)?.version !== version) this.#seen.set(name, { version, at: this.#clock.monotonic() });
  }

  /** Forgets all but these. */
  keep(names: ReadonlySet<string>): void {
    for (const name of this.#seen.keys()) if (!names.has(name)) this.#seen.delete(name);
  }

  /** Milliseconds since this state of the Lease was first seen; 0 for one that was never noted. */
  ageMs({ metadata: { name = "", uid, resourceVersion } }: Lease): number {
    const seen = this.#seen.get(name);
    return seen?.version === `${uid}/${resourceVersion}` ? this.#clock.monotonic() - seen.at : 0;
  }

  /** Somebody holds it, and has renewed it within its own duration as far as was seen. */
  isHeld(lease: Lease, defaultDurationMs: number): boolean {
    const { holderIdentity = "", leaseDurationSeconds } = lease.spec ?? {};
    if (holderIdentity === "") return false;
    const durationMs = leaseDurationSeconds === undefined ? defaultDurationMs : leaseDurationSeconds * SECOND_MS;
    return this.ageMs(lease) < durationMs;
  }
}
