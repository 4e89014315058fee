import type { Clock } from "../core/clock.ts";
import type { CallOptions, KubeClient } from "./client.ts";
import { isConflict, isNotFound } from "./errors.ts";
import { microTime } from "./micro-time.ts";
import type { Lease, LeaseSpec } from "./objects.ts";
import { LEASES } from "./resource.ts";

export interface LeaseRecordOptions {
  readonly client: KubeClient;
  readonly namespace: string;
  readonly name: string;
  readonly identity: string;
  readonly leaseDurationMs: number;
  readonly clock: Clock;
}

/** The Lease object: reading, taking, renewing and releasing it. Every write has the resourceVersion it was decided on. */
export class LeaseRecord {
  readonly #options: LeaseRecordOptions;
  #lease: Lease | undefined;
  /** When the Lease was last seen to change, on our own monotonic clock: no two clocks are ever compared. */
  #changedAt = 0;

  constructor(options: LeaseRecordOptions) {
    this.#options = options;
  }

  /** Empty for nobody, or nobody known. */
  get holder(): string {
    return this.#lease?.spec?.holderIdentity ?? "";
  }

  /**
   * Makes the Lease ours, or renews it. False when it is somebody else's. Throws KubeApiError when that can not be told
   * (no answer, or it was changed at the same time: isConflict, isAlreadyExists); the next call finds out.
   */
  async acquireOrRenew(o: CallOptions): Promise<boolean> {
    // While we hold it, one request is enough: nobody changes it without changing its resourceVersion.
    if (this.#lease && this.holder === this.#options.identity) {
      try {
        await this.#write(this.#lease, o);
        return true;
      } catch (error) {
        if (!isConflict(error) && !isNotFound(error)) throw error;
      }
    }
    const current = await this.#read(o);
    if (!current) {
      await this.#create(o);
      return true;
    }
    if (!this.#free(current)) return false;
    await this.#write(current, o);
    return true;
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
    const lease: Lease = { metadata: { namespace, name }, spec: this.#spec(undefined) };
    this.#observe(await client.create(LEASES, lease, {}, o));
  }

  async #write(lease: Lease, o: CallOptions): Promise<void> {
    const next: Lease = { ...lease, spec: { ...lease.spec, ...this.#spec(lease.spec) } };
    this.#observe(await this.#options.client.replace(LEASES, next, {}, o));
  }

  #free(lease: Lease): boolean {
    const { holderIdentity = "", leaseDurationSeconds } = lease.spec ?? {};
    if (holderIdentity === "" || holderIdentity === this.#options.identity) return true;
    const durationMs = leaseDurationSeconds === undefined ? this.#options.leaseDurationMs : leaseDurationSeconds * 1000;
    return this.#options.clock.monotonic() - this.#changedAt >= durationMs;
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
      leaseTransitions: previous === undefined ? 0 : (previous.leaseTransitions ?? 0) + (ours ? 0 : 1),
    };
  }

  #observe(lease: Lease): void {
    if (lease.metadata.resourceVersion !== this.#lease?.metadata.resourceVersion) {
      this.#changedAt = this.#options.clock.monotonic();
    }
    this.#lease = lease;
  }
}
