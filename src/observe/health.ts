import type { IncomingMessage, ServerResponse } from "node:http";
import type { Registry } from "prom-client";
import { endOfTurn } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { addressText, boundedServer, closerOf, listen, readBindAddress } from "./http-server.ts";
import { type Logger, redact, silentLogger } from "./logger.ts";

/** One condition of health: true, or the reason why it does not hold. A check that throws has failed. */
export type Check = () => boolean | { readonly ok: boolean; readonly message: string };
export type Checks = Readonly<Record<string, Check>>;

export interface HealthServerOptions {
  /** In the syntax of parseBindAddress; "0" disables the server. */
  readonly bindAddress: string;
  /** If set, GET /metrics serves its metrics. */
  readonly registry?: Registry;
  /** If set, GET /healthz runs these checks. Check only what a restart fixes, never another server's health. */
  readonly live?: Checks;
  /** If set, GET /readyz runs these checks. */
  readonly ready?: Checks;
  readonly logger?: Logger;
}

export interface HealthServer extends AsyncDisposable {
  /** `host:port` with the actual port; undefined when the server is disabled. */
  readonly address: string | undefined;
  /** Stops listening and closes open connections. Idempotent. */
  close(): Promise<void>;
}

/** A probe sends a few hundred bytes. A larger request is no probe. */
const MAX_HEADER_BYTES = 8192;
/** Prometheus scrapes every 15 to 30 s: keeping connections open that long would waste sockets. */
const KEEP_ALIVE_MS = 5_000;
/** Room for a few scrapers. More connections mean a leak or an attack, and each may hold a text of over a megabyte. */
const MAX_METRICS_CONNECTIONS = 32;
/** For a server without metrics, whose answers are some hundred bytes. */
const MAX_PROBE_CONNECTIONS = 256;

/**
 * Serves those of /metrics, /healthz and /readyz that are configured, to GET and HEAD.
 * @throws ConfigError when the address is invalid or the server cannot listen on it.
 */
export async function startHealthServer(options: HealthServerOptions): Promise<HealthServer> {
  const { bindAddress } = options;
  const bind = readBindAddress(bindAddress);
  if (bind === undefined) {
    const close = async () => {};
    return { address: undefined, close, [Symbol.asyncDispose]: close };
  }
  const logger = options.logger ?? silentLogger;
  const metrics = options.registry && renderingOf(options.registry);
  const maxConnections = metrics ? MAX_METRICS_CONNECTIONS : MAX_PROBE_CONNECTIONS;
  const server = boundedServer(
    { maxHeaderBytes: MAX_HEADER_BYTES, maxConnections, keepAliveMs: KEEP_ALIVE_MS },
    (request, response) => {
      answer({ ...options, metrics }, request, response).catch((error: unknown) => {
        logger.warn({ err: error, path: request.url }, "a health or metrics request failed");
        if (!response.headersSent) send(request, response, 500, `error: ${errorText(error)}\n`);
        else response.destroy();
      });
    },
  );
  await listen(server, bind, bindAddress);
  server.on("error", (error) => logger.warn({ err: error }, "the health server failed"));
  const close = closerOf(server);
  return { address: addressText(server), close, [Symbol.asyncDispose]: close };
}

/**
 * Starts the two servers of `berth run`: metrics and health probes. One server does both if the addresses are equal.
 * @throws ConfigError like startHealthServer; no server is left running then.
 */
export async function startObserveServers(
  options: Omit<HealthServerOptions, "bindAddress"> & {
    readonly metricsBindAddress: string;
    readonly healthProbeBindAddress: string;
  },
): Promise<{ metrics: HealthServer; health: HealthServer; close(): Promise<void> }> {
  const { metricsBindAddress, healthProbeBindAddress, registry, live = {}, ready = {}, logger } = options;
  const common = logger === undefined ? {} : { logger };
  const metricsPart = registry === undefined ? {} : { registry };
  const fixed = (address: string) => address !== "0" && !address.endsWith(":0");
  if (metricsBindAddress === healthProbeBindAddress && fixed(metricsBindAddress)) {
    const both = await startHealthServer({ bindAddress: metricsBindAddress, ...metricsPart, live, ready, ...common });
    return { metrics: both, health: both, close: both.close };
  }
  const metrics = await startHealthServer({ bindAddress: metricsBindAddress, ...metricsPart, ...common });
  try {
    const health = await startHealthServer({ bindAddress: healthProbeBindAddress, live, ready, ...common });
    const close = async () => {
      await Promise.all([metrics.close(), health.close()]);
    };
    return { metrics, health, close };
  } catch (error) {
    await metrics.close();
    throw error;
  }
}

interface Rendering {
  readonly contentType: string;
  text(): Promise<Buffer>;
}

/**
 * Renders the metrics once for all waiting requests, since rendering blocks the process and takes a while with many
 * Environments. It usually takes one turn of the event loop, so it starts only after all requests of the current turn
 * have arrived.
 */
function renderingOf(registry: Registry): Rendering {
  let underWay: Promise<Buffer> | undefined;
  const render = async () => {
    await endOfTurn();
    try {
      return Buffer.from(await registry.metrics());
    } finally {
      underWay = undefined;
    }
  };
  return {
    contentType: registry.contentType,
    text: () => {
      underWay ??= render();
      return underWay;
    },
  };
}

type Answers = Pick<HealthServerOptions, "live" | "ready"> & { readonly metrics: Rendering | undefined };

async function answer(answers: Answers, request: IncomingMessage, response: ServerResponse): Promise<void> {
  // The body is never read. Closing the connection after the answer keeps Node from parsing the body as the next
  // request.
  if (request.headers["content-length"] !== undefined || request.headers["transfer-encoding"] !== undefined) {
    response.setHeader("connection", "close");
  }
  // A client may send a path that is no URL, such as "//".
  const path = URL.parse(request.url ?? "/", "http://localhost")?.pathname ?? "";
  const { metrics, live, ready } = answers;
  const known = [metrics && "/metrics", live && "/healthz", ready && "/readyz"].filter((text) => text !== undefined);
  if (!known.includes(path)) return send(request, response, 404, `not found; try ${known.join(", ")}\n`);
  if (request.method !== "GET" && request.method !== "HEAD") {
    response.setHeader("allow", "GET, HEAD");
    return send(request, response, 405, "only GET and HEAD\n");
  }
  if (path === "/metrics" && metrics) {
    return send(request, response, 200, await metrics.text(), metrics.contentType);
  }
  const { ok, text } = runChecks((path === "/healthz" ? live : ready) ?? {});
  send(request, response, ok ? 200 : 503, `${text}${path.slice(1)} ${ok ? "ok" : "failed"}\n`);
}

/** One line per check, with the reason of a failure, in the form of the API server's /readyz?verbose. */
function runChecks(checks: Checks): { ok: boolean; text: string } {
  const results = Object.entries(checks).map(([name, check]) => ({ name, ...runCheck(check) }));
  const lines = results.map(({ name, ok, message }) =>
    ok ? `[+]${name} ok\n` : `[-]${name} failed${message ? `: ${message}` : ""}\n`,
  );
  return { ok: results.every(({ ok }) => ok), text: redact(lines.join("")) };
}

function runCheck(check: Check): { ok: boolean; message: string } {
  try {
    const result = check();
    return typeof result === "boolean" ? { ok: result, message: "" } : result;
  } catch (error) {
    return { ok: false, message: errorText(error) };
  }
}

function send(
  request: IncomingMessage,
  response: ServerResponse,
  status: number,
  text: string | Buffer,
  contentType = "text/plain; charset=utf-8",
): void {
  response.writeHead(status, {
    "content-type": contentType,
    "content-length": Buffer.byteLength(text),
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
  });
  response.end(request.method === "HEAD" ? undefined : text);
}
