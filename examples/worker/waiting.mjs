// The stock worker for one session, loaded before there is a session (`parking: Program`, docs/program-parking.md). It
// waits for its work item on standard input, serves it, then exits. ANTHROPIC_WORK_ID, ANTHROPIC_SESSION_ID and
// ANTHROPIC_WORK_SECRET (or ANTHROPIC_ENVIRONMENT_KEY) come with the item. ANTHROPIC_ENVIRONMENT_ID, ANTHROPIC_BASE_URL,
// WORKSPACE and BERTH_WORKER_MAX_IDLE_MS are environment variables, as in worker.mjs.
import { closeSync, openSync, writeSync } from "node:fs";
import { createInterface } from "node:readline";
import Anthropic from "@anthropic-ai/sdk";
import { EnvironmentWorker } from "@anthropic-ai/sdk/lib/environments/worker";
import { betaAgentToolset20260401 } from "@anthropic-ai/sdk/tools/agent-toolset/node";

const EXIT_NO_ITEM = 75;
const EXIT_SIGTERM = 143;

// The first process of a container only gets signals that it has a handler for. While it waits, there is nothing to
// finish. Later, the worker drains, sends its stop and returns.
let item;
const shutdown = new AbortController();
process.on("SIGTERM", () => (item ? shutdown.abort() : process.exit(EXIT_SIGTERM)));

const idle = process.env.BERTH_WORKER_MAX_IDLE_MS;
const worker = new EnvironmentWorker({
  // The client requires a credential; the worker replaces it with the item's in every call.
  client: new Anthropic({ apiKey: null, authToken: "unused" }),
  workdir: process.env.WORKSPACE || process.cwd(),
  // These are the default tools. Naming them loads them now instead of with the item.
  tools: betaAgentToolset20260401,
  signal: shutdown.signal,
  ...(idle && { maxIdleMs: Number(idle) }),
});
// Node loads its HTTP client at the first request. This one opens no connection.
await fetch("data:,");

item = await readItem();
// Tells Berth that the item has arrived. writeSync returns when the line is written.
writeSync(1, "berth1 started\n");
// A repeated line must not reach this program's tools, which inherit its standard input. The lowest free number is 0.
closeSync(0);
openSync("/dev/null", "r");

await worker.handleItem({
  workId: item.ANTHROPIC_WORK_ID,
  sessionId: item.ANTHROPIC_SESSION_ID,
  workSecret: item.ANTHROPIC_WORK_SECRET,
  environmentKey: item.ANTHROPIC_ENVIRONMENT_KEY,
});

/** Reads standard input up to the first line that is an item. */
async function readItem() {
  const lines = createInterface({ input: process.stdin });
  for await (const line of lines) {
    const found = itemIn(line);
    if (!found) continue;
    process.stdin.destroy();
    return found;
  }
  process.exit(EXIT_NO_ITEM);
}

/** The variables in a line `berth1 <length> <JSON> #end`, or undefined for any other or incomplete line. */
function itemIn(line) {
  const [, length, json] = /^berth1 (\d+) (\{.*\}) #end$/.exec(line) ?? [];
  if (json === undefined || json.length !== Number(length)) return undefined;
  try {
    const variables = JSON.parse(json);
    return variables.ANTHROPIC_WORK_ID ? variables : undefined;
  } catch {
    return undefined;
  }
}
