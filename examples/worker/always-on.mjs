// The stock worker as an always-on poller: serves one session after another. On SIGTERM it finishes its session, and
// takes no more.
// It reads ANTHROPIC_ENVIRONMENT_ID, ANTHROPIC_ENVIRONMENT_KEY, ANTHROPIC_WORKER_ID and ANTHROPIC_BASE_URL, which Berth
// sets. Optional:
// - WORKSPACE: the working directory; default: the current one
// - BERTH_WORKER_MAX_IDLE_MS: how long it keeps an idle session; default: 60000
// - BERTH_WORKER_BUSY_PORT: the port of the busy probe; default: no probe
// - BERTH_WORKER_BUSY_HOST: the address of the busy probe; default: all addresses
import { createServer } from "node:http";

// A worker serves one item at a time. It is busy from the acknowledgement of an item until it polls for the next one, so
// its requests show whether it is busy.
let isBusy = false;
let isEnding = false;
const stopPolling = new AbortController();

function end() {
  isEnding = true;
  // While it is busy, this would stop its session by force. The next poll stops instead.
  if (!isBusy) stopPolling.abort();
}
// The first process of a container only gets signals that it has a handler for, so the SDK is loaded after this.
process.once("SIGTERM", end);
process.once("SIGINT", end);
const { default: Anthropic } = await import("@anthropic-ai/sdk");
const { EnvironmentWorker } = await import("@anthropic-ai/sdk/lib/environments/worker");

async function watchedFetch(url, init) {
  const path = new URL(url instanceof Request ? url.url : url).pathname;
  if (/\/work\/[^/]+\/ack$/.test(path)) isBusy = true;
  else if (path.endsWith("/work/poll")) {
    isBusy = false;
    if (isEnding) stopPolling.abort();
  }
  return fetch(url, init);
}

/** A whole number from the environment, or undefined. */
function integerFrom(name) {
  const text = process.env[name];
  if (text === undefined || text === "") return undefined;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new Error(`${name} must be a whole number, 0 or more`);
  return value;
}

/** A required variable from the environment. */
function required(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

const busyPort = integerFrom("BERTH_WORKER_BUSY_PORT");
if (busyPort !== undefined) {
  const server = createServer((request, response) => {
    const code = request.url !== "/busy" ? 404 : isBusy ? 200 : 204;
    response.writeHead(code).end();
  });
  server.listen(busyPort, process.env.BERTH_WORKER_BUSY_HOST);
}

const maxIdleMs = integerFrom("BERTH_WORKER_MAX_IDLE_MS");

// The client requires a credential; the worker replaces it with its own in every call.
const worker = new EnvironmentWorker({
  client: new Anthropic({ apiKey: null, authToken: "unused", fetch: watchedFetch }),
  environmentId: required("ANTHROPIC_ENVIRONMENT_ID"),
  environmentKey: required("ANTHROPIC_ENVIRONMENT_KEY"),
  workerId: required("ANTHROPIC_WORKER_ID"),
  workdir: process.env.WORKSPACE || process.cwd(),
  ...(maxIdleMs !== undefined && { maxIdleMs }),
});
await worker.run(stopPolling.signal).catch((error) => {
  if (!stopPolling.signal.aborted) throw error;
});
// The server for the busy probe would keep the process running.
process.exit(0);
