// Loads the SDK, waits for one frame on its standard input, and serves the frame's item (`parking: Program`).
import { createInterface } from "node:readline";
import Anthropic from "@anthropic-ai/sdk";
import { EnvironmentWorker } from "@anthropic-ai/sdk/lib/environments/worker";

const shutdown = new AbortController();
process.once("SIGTERM", () => shutdown.abort());
const worker = new EnvironmentWorker({
  client: new Anthropic({ apiKey: null, authToken: "unused" }),
  workdir: process.env.WORKSPACE,
  maxIdleMs: Number(process.env.BERTH_WORKER_MAX_IDLE_MS),
  signal: shutdown.signal,
});
for await (const line of createInterface({ input: process.stdin })) {
  const [, length, body] = /^berth1 (\d+) (.*) #end$/.exec(line) ?? [];
  if (body?.length !== Number(length)) continue;
  Object.assign(process.env, JSON.parse(body));
  break;
}
console.log("berth1 started");
process.stdin.destroy();
await worker.handleItem({});
