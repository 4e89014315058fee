import { lookup } from "node:dns/promises";
import { request } from "node:http";
import { aborted, type Clock, deadlineSignal } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import type { Logger } from "../observe/logger.ts";
import type { Metrics } from "../observe/metrics.ts";
import type { SignedHeaders } from "./signature.ts";

/** Marks a delivery that a replica passes on, with that replica's identity: it goes no further. */
export const PASSED_ON_BY = "berth-passed-on-by";

/** A hint that is later than that is hardly one; the peer is a Pod of the same cluster. */
export const PASS_TIMEOUT_MS = 2_000;
/** Deliveries under way to peers. More are dropped: nothing rests on them. */
const MAX_UNDER_WAY = 256;
const NO_CONTENT = 204;

/** What was signed, as it came: a peer verifies it as if the platform had sent it there. */
export interface Delivery {
  readonly headers: SignedHeaders;
  readonly body: Buffer;
}

export interface PeersOptions {
  /** What resolves to all replicas, this one too: a headless Service. */
  readonly host: string;
  /** Where each of them takes webhooks. */
  readonly port: number;
  /** Of this replica; a delivery that comes back to it is none. */
  readonly identity: string;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly resolve?: (host: string) => Promise<readonly string[]>;
}

/**
 * The other replicas' receivers. A Service brings each delivery to one replica, whichever; the Environment that it is
 * about may be served by another. So it is passed on as it came, signature and all: peers trust nobody more than the
 * platform, and need no right to be found. At most once, and without waiting: a hint that gets lost costs a poll.
 */
export class Peers {
  readonly #options: PeersOptions;
  readonly #resolve: (host: string) => Promise<readonly string[]>;
  readonly #ending = new AbortController();
  readonly #underWay = new Set<Promise<void>>();
  /** The look for the name that is under way. */
  #resolving: Promise<readonly string[]> | null = null;
  /** Since a log line said so. */
  #isFailing = false;

  constructor(options: PeersOptions) {
    this.#options = options;
    this.#resolve = options.resolve ?? addressesOf;
  }

  /** Sends it to all replicas that there are now. Never throws. */
  pass(delivery: Delivery): void {
    if (this.#ending.signal.aborted) return;
    if (this.#underWay.size >= MAX_UNDER_WAY) {
      this.#count("dropped");
      return;
    }
    const passing = this.#pass(delivery).finally(() => this.#underWay.delete(passing));
    this.#underWay.add(passing);
  }

  /** Gives up what is under way. */
  async close(): Promise<void> {
    this.#ending.abort();
    await Promise.all(this.#underWay);
  }

  async #pass(delivery: Delivery): Promise<void> {
    try {
      const addresses = await this.#addresses();
      const results = await Promise.allSettled(addresses.map((address) => this.#send(address, delivery)));
      for (const { status } of results) this.#count(status === "fulfilled" ? "passed-on" : "failed");
      const failed = results.find((result) => result.status === "rejected");
      this.#tell(failed?.reason);
    } catch (error) {
      this.#count("failed");
      this.#tell(error);
    }
  }

  /** A look for a name cannot be called off, and a name server may take many seconds. */
  async #addresses(): Promise<readonly string[]> {
    const { clock, host } = this.#options;
    const deadline = deadlineSignal(clock, PASS_TIMEOUT_MS, this.#ending.signal);
    try {
      const addresses = await Promise.race([this.#resolved(host), aborted(deadline.signal)]);
      if (!addresses) throw new Error(`no answer: where ${host} is`);
      return addresses;
    } finally {
      deadline.cancel();
    }
  }

  /**
   * One look at a time, for all who wait: each holds a thread of the process until the name server answers, also when nobody
   * waits for it any more, and the operator's own connections need these threads.
   */
  #resolved(host: string): Promise<readonly string[]> {
    this.#resolving ??= this.#resolve(host).finally(() => {
      this.#resolving = null;
    });
    return this.#resolving;
  }

  async #send(address: string, { headers, body }: Delivery): Promise<void> {
    const { clock, port, identity } = this.#options;
    const deadline = deadlineSignal(clock, PASS_TIMEOUT_MS, this.#ending.signal);
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

  /** One line when it begins, however many deliveries come meanwhile. */
  #tell(error: unknown): void {
    const isFailing = error !== undefined && !this.#ending.signal.aborted;
    if (isFailing && !this.#isFailing) {
      const { logger, host } = this.#options;
      logger.warn(
        { host, error: errorText(error) },
        "webhooks cannot be passed on to all replicas: what those serve is noticed by polling",
      );
    }
    this.#isFailing = isFailing;
  }
}

async function addressesOf(host: string): Promise<string[]> {
  return (await lookup(host, { all: true })).map(({ address }) => address);
}

/** Where deliveries are posted. */
export const WEBHOOK_PATH = "/webhook";
