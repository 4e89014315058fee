import { lookup } from "node:dns/promises";
import { request } from "node:http";
import { aborted, type Clock, deadlineSignal } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import type { Timing } from "../core/timing.ts";
import type { Logger } from "../observe/logger.ts";
import type { Metrics } from "../observe/metrics.ts";
import type { SignedHeaders } from "./signature.ts";

/** Header of a delivery that a replica forwards, with that replica's identity. Receivers don't forward it again. */
export const PASSED_ON_BY = "berth-passed-on-by";

/** Deliveries in flight to peers. Any more are dropped, because nothing depends on them. */
const MAX_IN_FLIGHT = 256;
const NO_CONTENT = 204;

/** The signed data, unchanged: a peer verifies it as if it came from the platform. */
export interface Delivery {
  readonly headers: SignedHeaders;
  readonly body: Buffer;
}

export interface PeersOptions {
  /** The host name of a headless Service, which resolves to all replicas including this one. */
  readonly host: string;
  /** The port of each replica's webhook receiver. */
  readonly port: number;
  /** Identity of this replica, which ignores its own deliveries. */
  readonly identity: string;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly resolve?: (host: string) => Promise<readonly string[]>;
  /** Bounds the DNS lookup, and then each delivery. */
  readonly timing: Pick<Timing, "passTimeoutMs">;
}

/**
 * Forwards deliveries to the other replicas' receivers. A Service routes each delivery to one replica, but another
 * replica may serve its Environment. The delivery is forwarded unchanged, with its signature. So peers need no trust in
 * each other, and this replica needs no permission to find them. At most once, without waiting: a lost hint only means
 * that the item is found by polling.
 */
export class Peers {
  readonly #options: PeersOptions;
  readonly #resolve: (host: string) => Promise<readonly string[]>;
  readonly #ending = new AbortController();
  readonly #inFlight = new Set<Promise<void>>();
  /** The DNS lookup in flight. */
  #resolving: Promise<readonly string[]> | null = null;
  /** Whether the current failure has been logged. */
  #isFailing = false;

  constructor(options: PeersOptions) {
    this.#options = options;
    this.#resolve = options.resolve ?? addressesOf;
  }

  /** Sends a delivery to all current replicas. Never throws. */
  pass(delivery: Delivery): void {
    if (this.#ending.signal.aborted) return;
    if (this.#inFlight.size >= MAX_IN_FLIGHT) {
      this.#count("dropped");
      return;
    }
    const passing = this.#pass(delivery).finally(() => this.#inFlight.delete(passing));
    this.#inFlight.add(passing);
  }

  /** Aborts the deliveries in flight. */
  async close(): Promise<void> {
    this.#ending.abort();
    await Promise.all(this.#inFlight);
  }

  async #pass(delivery: Delivery): Promise<void> {
    try {
      const addresses = await this.#addresses();
      const results = await Promise.allSettled(addresses.map((address) => this.#send(address, delivery)));
      for (const { status } of results) this.#count(status === "fulfilled" ? "passed-on" : "failed");
      const failed = results.find((result) => result.status === "rejected");
      this.#logFailure(failed?.reason);
    } catch (error) {
      this.#count("failed");
      this.#logFailure(error);
    }
  }

  /** A DNS lookup can't be aborted, and a name server may take many seconds, so the wait has a deadline. */
  async #addresses(): Promise<readonly string[]> {
    const { clock, host, timing } = this.#options;
    const deadline = deadlineSignal(clock, timing.passTimeoutMs, this.#ending.signal);
    try {
      const addresses = await Promise.race([this.#resolved(host), aborted(deadline.signal)]);
      if (!addresses) throw new Error(`no answer: where ${host} is`);
      return addresses;
    } finally {
      deadline.cancel();
    }
  }

  /**
   * All callers share one lookup at a time. Each lookup holds a thread of the process until the name server answers,
   * even if nothing waits for it any more, and the operator's own connections need these threads.
   */
  #resolved(host: string): Promise<readonly string[]> {
    this.#resolving ??= this.#resolve(host).finally(() => {
      this.#resolving = null;
    });
    return this.#resolving;
  }

  async #send(address: string, { headers, body }: Delivery): Promise<void> {
    const { clock, port, identity, timing } = this.#options;
    const deadline = deadlineSignal(clock, timing.passTimeoutMs, this.#ending.signal);
    try {
      const status = await new Promise<number | undefined>((resolve, reject) => {
        const sending = request({
          host: address,
          port,
          path: WEBHOOK_PATH,
          method: "POST",
          headers: {
            "webhook-id": headers.id,
            "webhook-timestamp": headers.timestamp,
            "webhook-signature": headers.signature,
            [PASSED_ON_BY]: identity,
          },
          signal: deadline.signal,
        });
        sending.once("error", reject);
        sending.once("response", (response) => {
          response.resume();
          response.once("error", reject);
          response.once("end", () => resolve(response.statusCode));
        });
        sending.end(body);
      });
      if (status !== NO_CONTENT) throw new Error(`${address} answered ${status}`);
    } finally {
      deadline.cancel();
    }
  }

  #count(result: "passed-on" | "failed" | "dropped"): void {
    this.#options.metrics.webhookPassedOn.inc({ result });
  }

  /** Logs one line when failures begin, regardless of the number of deliveries. */
  #logFailure(error: unknown): void {
    const isFailing = error !== undefined && !this.#ending.signal.aborted;
    if (isFailing && !this.#isFailing) {
      const { logger, host } = this.#options;
      logger.warn(
        { host, error: errorText(error) },
        "cannot forward webhooks to all replicas, so they find work by polling",
      );
    }
    this.#isFailing = isFailing;
  }
}

async function addressesOf(host: string): Promise<string[]> {
  return (await lookup(host, { all: true })).map(({ address }) => address);
}

/** The path that deliveries are posted to. */
export const WEBHOOK_PATH = "/webhook";
