// A program that doesn't handle work items: the SDK's session tool runner, for the session in the environment variables.
// It sends no heartbeats and no stop, so its Environment needs `lease: Operator`. It reads ANTHROPIC_SESSION_ID,
// ANTHROPIC_WORK_SECRET and ANTHROPIC_BASE_URL. Optional:
// - WORKSPACE: the working directory; default: the current one
// - MAX_IDLE_MS: how long it keeps an idle session; default: 60000
import Anthropic from "@anthropic-ai/sdk";
import { betaAgentToolset20260401 } from "@anthropic-ai/sdk/tools/agent-toolset/node";

const { ANTHROPIC_SESSION_ID: sessionId, ANTHROPIC_WORK_SECRET: secret, MAX_IDLE_MS, WORKSPACE } = process.env;
if (!sessionId || !secret) throw new Error("ANTHROPIC_SESSION_ID and ANTHROPIC_WORK_SECRET are required");

// On SIGTERM, the runner finishes the running tool calls and returns.
const shutdown = new AbortController();
process.once("SIGTERM", () => shutdown.abort());
process.once("SIGINT", () => shutdown.abort());

// The secret is base64url JSON. Its token is valid only for this session.
const { sessions_token: authToken } = JSON.parse(Buffer.from(secret, "base64url").toString("utf8"));
const client = new Anthropic({ apiKey: null, authToken });

const calls = client.beta.sessions.events.toolRunner(sessionId, {
  tools: betaAgentToolset20260401({ workdir: WORKSPACE || process.cwd() }),
  signal: shutdown.signal,
  ...(MAX_IDLE_MS && { maxIdleMs: Number(MAX_IDLE_MS) }),
});
for await (const { name, isError } of calls) console.log(`${name}: ${isError ? "error" : "ok"}`);
