import { createHash } from "node:crypto";
import { jitter, type Random } from "../core/backoff.ts";
import { type Clock, sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import type { Logger } from "../observe/logger.ts";
import { type LeaseClient, LeaseRecord } from "./lease-record.ts";
import { replicaLeaseLabels } from "./shard-leases.ts";

/** A third of the lease duration and less: two renewals may fail before others count us out. */
const RENEW_PERIOD_MS = 4_000;
const RENEW_JITTER = 0.2;
const RETRY_PERIOD_MS = 2_000;
const REQUEST_TIMEOUT_MS = 5_000;
/** To leave in order is a courtesy: others would find out by themselves. */
const LEAVE_TIMEOUT_MS = 2_000;
const NAME_BYTES = 5;

export interface ReplicaLeaseOptions {
  readonly client: LeaseClient;
  readonly namespace: string;
  /** What the names of all Leases begin with. */
  readonly base: string;
  readonly identity: string;
  readonly shards: number;
  readonly leaseDurationMs: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

/**
 * The Lease by which a replica says that it wants its part of the shards. It decides how many each replica takes, and
 * nothing else: no safety rests on it.
 */
export class ReplicaLease {
  readonly #options: ReplicaLeaseOptions;
  readonly #record: LeaseRecord;

  constructor(options: ReplicaLeaseOptions) {
    this.#options = options;
    const { base, identity, shards } = options;
    const suffix = createHash("sha256")
      .update(identity)
      .digest("hex")
      .slice(0, 2 * NAME_BYTES);
    this.#record = new LeaseRecord({
      ...options,
      name: `${base}-replica-${suffix}`,
      labels: replicaLeaseLabels(shards),
    });
  }

  /** Takes part until the signal aborts, then takes the Lease away. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#options;
    while (!signal.aborted) {
      const pauseMs = (await this.#renew(signal)) ? RENEW_PERIOD_MS : RETRY_PERIOD_MS;
      await sleep(clock, jitter(pauseMs, RENEW_JITTER, random), signal);
    }
    await this.#record.remove(LEAVE_TIMEOUT_MS).catch((error: unknown) => this.#say(error, "was not taken away"));
  }

  async #renew(signal: AbortSignal): Promise<boolean> {
    try {
      return (await this.#record.acquireOrRenew({ signal, timeoutMs: REQUEST_TIMEOUT_MS })) !== "others";
    } catch (error) {
      if (!signal.aborted) this.#say(error, "was not renewed");
      return false;
    }
  }

  #say(error: unknown, what: string): void {
    this.#options.logger.warn({ error: errorText(error) }, `the Lease of this replica ${what}`);
  }
}
