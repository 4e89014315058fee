import type { IncomingMessage, ServerResponse } from "node:http";
import type { Clock } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { addressText, boundedServer, closerOf, listen, readBindAddress } from "../observe/http-server.ts";
import type { Logger } from "../observe/logger.ts";
import type { Metrics } from "../observe/metrics.ts";
import { type RateLimit, SeenDeliveries, SenderRates } from "./deliveries.ts";
import { parseEvent, type WebhookEvent } from "./event.ts";
import { type Delivery, PASSED_ON_BY, WEBHOOK_PATH } from "./peers.ts";
import type { SigningSecrets } from "./secrets.ts";
import { isWellFormed, type SignatureVerdict, verify } from "./signature.ts";

/** An event has some 300 bytes. */
export const MAX_BODY_BYTES = 64 * 1024;
const MAX_HEADER_BYTES = 16 * 1024;
const KEEP_ALIVE_MS = 15_000;
/** Anyone can connect. A sender whose connection was dropped tries again. */
const MAX_CONNECTIONS = 256;
/**
 * Checking a signature takes 0.1 ms, and this process must send heartbeats in time: a flood can take a few percent of
 * its CPU. An organization creates 300 sessions a minute, and each starts to run some tens of times in its life.
 */
export const RATE = { perSecond: 200, burst: 1_000 };

/** The outcome of a delivery; the values of the metric's label. */
export type DeliveryResult =
  | "hint"
  | "other-event"
  | "duplicate"
  | "forged"
  | "stale"
  | "malformed"
  | "too-large"
  | "too-many"
  | "cut-off";

/**
 * The HTTP status of each outcome. Every verified delivery gets a 204, even a useless one, because the sender would
 * otherwise send it again.
 */
const STATUS: Readonly<Record<DeliveryResult, number>> = {
  hint: 204,
  "other-event": 204,
  duplicate: 204,
  forged: 401,
  stale: 401,
  malformed: 400,
  "too-large": 413,
  "too-many": 429,
  "cut-off": 408,
};

export interface ReceiverOptions {
  /** In the form that parseBindAddress reads. */
  readonly bindAddress: string;
  readonly secrets: Pick<SigningSecrets, "keys">;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly logger: Logger;
  /** The limit of requests per sender, see SenderRates; any more are refused. */
  readonly rate?: RateLimit;
  /** Called once for each verified delivery; must not throw. */
  readonly onEvent: (event: WebhookEvent) => void;
  /** The other replicas; undefined if there are none. */
  readonly peers?: {
    /** The identity that this replica sends to its peers. */
    readonly identity: string;
    /** Called after `onEvent` for each new hint that did not come from a peer. */
    readonly passOn: (delivery: Delivery, event: WebhookEvent) => void;
  };
}

export interface Receiver extends AsyncDisposable {
  /** `host:port`; undefined when switched off. */
  readonly address: string | undefined;
  close(): Promise<void>;
}

/**
 * Receives the platform's webhook deliveries. They may arrive repeatedly, late, in any order, or not at all, and only
 * the signature proves the sender. So nothing depends on them; they only make the operator poll sooner.
 * @throws ConfigError if the address is invalid or can't be listened on.
 */
export async function startReceiver(options: ReceiverOptions): Promise<Receiver> {
  const bind = readBindAddress(options.bindAddress);
  if (bind === undefined) {
    const close = async () => {};
    return { address: undefined, close, [Symbol.asyncDispose]: close };
  }
  const { logger } = options;
  const intake = new Intake(options);
  const server = boundedServer(
    { maxHeaderBytes: MAX_HEADER_BYTES, maxConnections: MAX_CONNECTIONS, keepAliveMs: KEEP_ALIVE_MS },
    (request, response) => {
      intake.take(request, response).catch((error: unknown) => {
        logger.warn({ error: errorText(error) }, "cannot handle a webhook delivery");
        response.destroy();
      });
    },
  );
  await listen(server, bind, options.bindAddress);
  server.on("error", (error) => logger.warn({ error: errorText(error) }, "the webhook receiver failed"));
  const close = closerOf(server);
  return { address: addressText(server), close, [Symbol.asyncDispose]: close };
}

class Intake {
  readonly #options: ReceiverOptions;
  readonly #seen: SeenDeliveries;
  readonly #rates: SenderRates;

  constructor(options: ReceiverOptions) {
    this.#options = options;
    this.#seen = new SeenDeliveries(options.clock);
    this.#rates = new SenderRates({ clock: options.clock, limit: options.rate ?? RATE });
  }

  async take(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = URL.parse(request.url ?? "/", "http://localhost")?.pathname;
    if (path !== WEBHOOK_PATH) return answer(response, 404);
    if (request.method !== "POST") {
      response.setHeader("allow", "POST");
      return answer(response, 405);
    }
    const sender = headerOf(request, PASSED_ON_BY);
    // This replica forwarded the delivery to all replicas, including itself.
    if (sender !== "" && sender === this.#options.peers?.identity) return answer(response, NO_CONTENT);
    const result = await this.#resultOf(request, sender !== "");
    this.#options.metrics.webhookDeliveries.inc({ result });
    answer(response, STATUS[result]);
  }

  async #resultOf(request: IncomingMessage, isPassedOn: boolean): Promise<DeliveryResult> {
    const headers = {
      id: headerOf(request, "webhook-id"),
      timestamp: headerOf(request, "webhook-timestamp"),
      signature: headerOf(request, "webhook-signature"),
    };
    // Refusing it unread is as cheap as refusing it for the rate, so unsigned requests use up no sender's limit.
    if (!isWellFormed(headers)) return "malformed";
    // Read the address before the body: a closed connection no longer has one.
    const address = request.socket.remoteAddress ?? "";
    if (!this.#rates.take(address)) return "too-many";
    const body = await bodyOf(request);
    if (!Buffer.isBuffer(body)) return body;
    const { secrets, clock, onEvent } = this.#options;
    const verdict: SignatureVerdict = verify(headers, body, await secrets.keys(), clock.now());
    if (verdict !== "good") return verdict;
    if (!this.#seen.isNew(headers.id)) return "duplicate";
    this.#rates.prove(address);
    const event = parseEvent(body.toString("utf8"));
    if (event === undefined) return "malformed";
    onEvent(event);
    if (event.type !== "run-started") return "other-event";
    if (!isPassedOn) this.#options.peers?.passOn({ headers, body }, event);
    return "hint";
  }
}

/** Never buffers more than the limit, whatever the content-length says. */
async function bodyOf(request: IncomingMessage): Promise<Buffer | "too-large" | "cut-off"> {
  if (Number(request.headers["content-length"] ?? 0) > MAX_BODY_BYTES) return "too-large";
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > MAX_BODY_BYTES) return "too-large";
      chunks.push(chunk);
    }
  } catch {
    // The sender disconnected, or took too long.
    return "cut-off";
  }
  return Buffer.concat(chunks);
}

function headerOf(request: IncomingMessage, name: string): string {
  const value = request.headers[name];
  return typeof value === "string" ? value : "";
}

function answer(response: ServerResponse, status: number): void {
  // Close the connection: the unread rest of a body must not be parsed as the next request.
  if (status >= FIRST_FAILURE) response.setHeader("connection", "close");
  if (status === TOO_MANY) response.setHeader("retry-after", "1");
  response.writeHead(status, { "cache-control": "no-store" });
  response.end();
}

const NO_CONTENT = 204;
const FIRST_FAILURE = 400;
const TOO_MANY = 429;
