// The stock worker for one session: serves the work item in the environment variables, then exits.
// It reads ANTHROPIC_WORK_ID, ANTHROPIC_ENVIRONMENT_ID, ANTHROPIC_SESSION_ID, ANTHROPIC_WORK_SECRET (or
// ANTHROPIC_ENVIRONMENT_KEY) and ANTHROPIC_BASE_URL, as the SDK does. Optional:
// - WORKSPACE: the working directory; default: the current one
// - BERTH_WORKER_MAX_IDLE_MS: how long it keeps an idle session; default: 60000
import Anthropic from "@anthropic-ai/sdk";
import { EnvironmentWorker } from "@anthropic-ai/sdk/lib/environments/worker";

/** A whole number from the environment, or undefined. */
function integerFrom(name) {
  const text = process.env[name];
  if (text === undefined || text === "") return undefined;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new Error(`${name} must be a whole number, 0 or more`);
  return value;
}

// Without a handler, SIGTERM would kill the process at once. With one, the worker drains, sends its stop and returns.
const shutdown = new AbortController();
process.once("SIGTERM", () => shutdown.abort());
process.once("SIGINT", () => shutdown.abort());

const maxIdleMs = integerFrom("BERTH_WORKER_MAX_IDLE_MS");

// The client requires a credential; the worker replaces it with the item's in every call.
const client = new Anthropic({ apiKey: null, authToken: "unused" });
const worker = new EnvironmentWorker({
  client,
  workdir: process.env.WORKSPACE || process.cwd(),
  signal: shutdown.signal,
  ...(maxIdleMs !== undefined && { maxIdleMs }),
});
await worker.handleItem({});
