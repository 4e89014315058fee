import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import Anthropic from "@anthropic-ai/sdk";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { bashScript } from "../../simulator/script.ts";
import { type Simulator, startSimulator } from "../../simulator/simulator.ts";
import { bundleWorker } from "../../testbed/workers/programs.ts";
import { type Client, newClient, type Work } from "./client.ts";

const WORKER = fileURLToPath(new URL("../../examples/worker/worker.mjs", import.meta.url));
const ALWAYS_ON = fileURLToPath(new URL("../../examples/worker/always-on.mjs", import.meta.url));

let simulator: Simulator;
let client: Client;
let folder: string;
const children: ChildProcess[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "berth-worker-"));
  simulator = await startSimulator();
  client = newClient(simulator);
});

afterEach(async () => {
  for (const child of children.splice(0)) if (child.exitCode === null) child.kill("SIGKILL");
  await simulator.close();
  await rm(folder, { recursive: true, force: true });
});

/** Replaces the simulator with one whose leases lapse after 2 s, so the worker sends a heartbeat every second. */
async function shortLeases(): Promise<void> {
  await simulator.close();
  simulator = await startSimulator({ limits: { ttlSeconds: 2, minTtlSeconds: 1 } });
  client = newClient(simulator);
}

interface Exit {
  readonly code: number | null;
  readonly output: string;
}

/** Starts the example worker with the environment that its container would have. */
function startWorker(
  work: Pick<Work, "environment_id"> & Partial<Work>,
  env: Record<string, string> = {},
  program: string = WORKER,
): { child: ChildProcess; exit: Promise<Exit> } {
  const child = spawn(process.execPath, [program], {
    env: {
      PATH: process.env.PATH ?? "",
      HOME: folder,
      WORKSPACE: folder,
      BERTH_WORKER_MAX_IDLE_MS: "100",
      ANTHROPIC_BASE_URL: simulator.url,
      ANTHROPIC_ENVIRONMENT_ID: work.environment_id,
      ANTHROPIC_WORK_ID: work.id ?? "",
      ANTHROPIC_SESSION_ID: work.data?.id ?? "",
      ANTHROPIC_WORK_SECRET: work.secret ?? "",
      ...env,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  children.push(child);
  let output = "";
  child.stdout?.on("data", (chunk) => (output += chunk));
  child.stderr?.on("data", (chunk) => (output += chunk));
  const exit = new Promise<Exit>((resolve) => child.once("close", (code) => resolve({ code, output })));
  return { child, exit };
}

/** Polls and acknowledges, as an operator would. */
async function claim(): Promise<Work> {
  const work = await client.take();
  expect((await client.ack(work.id)).status).toBe(200);
  return work;
}

describe("the stock worker in its own process", () => {
  test("executes the tool calls, sends heartbeats, and leaves the item stopped", async () => {
    simulator.enqueue(client.options.environmentId, {
      script: bashScript("echo hello > file; pwd", "echo $HOME; false"),
    });
    const work = await claim();
    const exit = await startWorker(work).exit;
    expect(exit).toEqual({ code: 0, output: "" });
    const item = simulator.item(work.id);
    expect(item).toMatchObject({ state: "stopped", beats: 1, stoppedBy: { as: "sessions-token" } });
    const calls = simulator.session(work.data.id).toolCalls;
    expect(calls.map((call) => [call.output, call.isError])).toEqual([
      [folder, false],
      [folder, true],
    ]);
    expect(calls.map((call) => call.answeredBy)).toEqual([work.id, work.id]);
    expect(await readFile(join(folder, "file"), "utf8")).toBe("hello\n");
    simulator.assertNoViolations();
    expect(simulator.excused).toEqual([]);
  });

  test("serves a session when it is bundled for an image, without any packages", async () => {
    const bundle = join(folder, "bundle.mjs");
    await writeFile(bundle, await bundleWorker(WORKER));
    simulator.enqueue(client.options.environmentId, { script: bashScript("echo hello") });
    const work = await claim();
    expect(await startWorker(work, {}, bundle).exit).toEqual({ code: 0, output: "" });
    expect(simulator.item(work.id)).toMatchObject({ state: "stopped", stoppedBy: { as: "sessions-token" } });
    expect(simulator.session(work.data.id).toolCalls[0]?.output).toBe("hello");
    simulator.assertNoViolations();
  });

  test("exits when the user stops the item, and sends its stop", async () => {
    await shortLeases();
    simulator.enqueue(client.options.environmentId, { script: bashScript("echo hello") });
    const work = await claim();
    const { exit } = startWorker(work, { BERTH_WORKER_MAX_IDLE_MS: "60000" });
    await simulator.waitFor(() => simulator.item(work.id).state === "active");
    simulator.stopItem(work.id);
    expect(simulator.item(work.id).state).toBe("stopping");
    expect((await exit).code).toBe(0);
    expect(simulator.item(work.id)).toMatchObject({ state: "stopped", stoppedBy: { as: "sessions-token" } });
    simulator.assertNoViolations();
  });

  test("makes the calls that the documentation lists, in that order", async () => {
    const asked: { call: string | undefined; at: number }[] = [];
    simulator.enqueue(client.options.environmentId, { script: bashScript("echo hello") });
    const work = await claim();
    simulator.on("request", ({ call, at }) => asked.push({ call, at }));
    await startWorker(work).exit;
    await simulator.waitFor(() => asked.length === 6);
    const calls = asked.sort((a, b) => a.at - b.at).map((request) => request.call);
    // The first two calls are sent at the same time.
    expect(calls.slice(0, 2).sort()).toEqual(["heartbeat", "session"]);
    expect(calls.slice(2)).toEqual(["events-stream", "events-list", "events-send", "stop"]);
  });

  test("that is killed sends nothing: the item comes back when its lease lapses", async () => {
    await shortLeases();
    simulator.enqueue(client.options.environmentId, { script: bashScript("echo hello") });
    const work = await claim();
    const { child, exit } = startWorker(work, { BERTH_WORKER_MAX_IDLE_MS: "60000" });
    await simulator.waitFor(() => simulator.item(work.id).state === "active");
    child.kill("SIGKILL");
    await exit;
    await simulator.waitFor(() => simulator.item(work.id).state === "queued");
    expect(simulator.item(work.id)).toMatchObject({ generation: 2, stoppedBy: undefined });
    simulator.assertNoViolations();
  });

  test("whose lease was taken exits at its next heartbeat without a stop", async () => {
    await shortLeases();
    simulator.enqueue(client.options.environmentId, { script: bashScript("echo hello") });
    const work = await claim();
    const { exit } = startWorker(work, { BERTH_WORKER_MAX_IDLE_MS: "60000" });
    await simulator.waitFor(() => simulator.item(work.id).state === "active");
    const [listed] = await client.listAll();
    await client.mustBeat(work.id, listed?.latest_heartbeat_at ?? "");
    // This takes the lease from a live holder, so it's a violation.
    expect(simulator.violations).toMatchObject([{ kind: "two-holders" }]);
    expect((await exit).code).toBe(0);
    expect(simulator.item(work.id).stoppedBy).toBeUndefined();
    expect(simulator.item(work.id).refusedBeats).toBe(1);
  });

  test("whose token is revoked exits with 0 after its stop was rejected", async () => {
    await shortLeases();
    simulator.enqueue(client.options.environmentId, { script: bashScript("echo hello") });
    const work = await claim();
    const { exit } = startWorker(work, { BERTH_WORKER_MAX_IDLE_MS: "60000" });
    await simulator.waitFor(() => simulator.session(work.data.id).toolCalls[0]?.answeredAt);
    simulator.revokeTokens(work.id);
    expect((await exit).code).toBe(0);
    expect(simulator.report().requests).toMatchObject({ "heartbeat 401": 1, "stop 401": 1 });
    simulator.assertNoViolations();
  });

  test("sends a result again until it's accepted, and the agent gets it once", async () => {
    simulator.inject({ call: "events-send", kind: "status", status: 503, times: 1 });
    simulator.inject({ call: "events-send", kind: "lost-reply", times: 1 });
    simulator.enqueue(client.options.environmentId, { script: bashScript("echo once >> count; cat count") });
    const work = await claim();
    expect((await startWorker(work).exit).code).toBe(0);
    expect(simulator.session(work.data.id).toolCalls).toMatchObject([{ output: "once", isError: false }]);
    simulator.assertNoViolations();
  });

  test("drains on SIGTERM and force-stops its item", async () => {
    simulator.enqueue(client.options.environmentId, { script: bashScript("echo hello") });
    const work = await claim();
    const { child, exit } = startWorker(work, { BERTH_WORKER_MAX_IDLE_MS: "60000" });
    await simulator.waitFor(() => simulator.session(work.data.id).toolCalls[0]?.answeredAt);
    child.kill("SIGTERM");
    expect((await exit).code).toBe(0);
    expect(simulator.item(work.id)).toMatchObject({ state: "stopped", stoppedBy: { as: "sessions-token" } });
    simulator.assertNoViolations();
  });

  test("exits without a stop if another holder sent a heartbeat before it", async () => {
    simulator.enqueue(client.options.environmentId);
    const work = await claim();
    await client.mustBeat(work.id, "NO_HEARTBEAT");
    expect((await startWorker(work).exit).code).toBe(0);
    expect(simulator.item(work.id)).toMatchObject({ state: "active", refusedBeats: 1 });
    simulator.assertNoViolations();
  });

  test("stops the item of a deleted session and exits with 1", async () => {
    const { sessionId = "" } = simulator.enqueue(client.options.environmentId);
    const work = await claim();
    simulator.deleteSession(sessionId);
    expect((await startWorker(work).exit).code).toBe(1);
    expect(simulator.item(work.id).state).toBe("stopped");
    simulator.assertNoViolations();
  });

  test("holds a call with `ask` until a person allows it", async () => {
    const tools = [{ name: "bash", input: { command: "echo allowed" }, ask: true }];
    const { sessionId = "" } = simulator.enqueue(client.options.environmentId, { script: { turns: [{ tools }] } });
    const work = await claim();
    const { exit } = startWorker(work);
    await simulator.waitFor(() => simulator.session(sessionId).streams > 0);
    const [call] = simulator.session(sessionId).toolCalls;
    expect(call?.answeredAt).toBeUndefined();
    expect(simulator.confirm(sessionId, call?.id ?? "", true)).toBe(true);
    expect((await exit).code).toBe(0);
    expect(simulator.session(sessionId).toolCalls[0]?.output).toBe("allowed");
    simulator.assertNoViolations();
  });

  test("works with the environment key if no secret was issued", async () => {
    simulator.setSwitches({ secrets: "none" });
    simulator.enqueue(client.options.environmentId, { script: bashScript("echo hello") });
    const work = await claim();
    expect(work.secret).toBeNull();
    const key = simulator.environmentKey(client.options.environmentId);
    expect((await startWorker(work, { ANTHROPIC_ENVIRONMENT_KEY: key }).exit).code).toBe(0);
    expect(simulator.item(work.id)).toMatchObject({ state: "stopped", stoppedBy: { as: "environment-key" } });
    expect(simulator.session(work.data.id).toolCalls[0]?.output).toBe("hello");
    simulator.assertNoViolations();
  });
});

describe("the always-on example", () => {
  /** Starts it as an image does, bundled. */
  async function startAlwaysOn() {
    const { environmentId } = client.options;
    const bundle = join(folder, "bundle.mjs");
    await writeFile(bundle, await bundleWorker(ALWAYS_ON));
    const key = simulator.environmentKey(environmentId);
    const env = { ANTHROPIC_ENVIRONMENT_KEY: key, ANTHROPIC_WORKER_ID: "always-on" };
    return startWorker({ environment_id: environmentId }, env, bundle);
  }

  test("on SIGTERM finishes the session that it serves, takes no other, and exits with 0", async () => {
    const script = bashScript("until [ -e go ]; do sleep 0.1; done; echo done");
    const [first, second] = [1, 2].map(() => simulator.enqueue(client.options.environmentId, { script }));
    const { child, exit } = await startAlwaysOn();
    await simulator.waitFor(() => simulator.item(first?.id ?? "").state === "active");
    child.kill("SIGTERM");
    await simulator.waitFor(() => simulator.session(first?.sessionId ?? "").streams > 0);
    await writeFile(join(folder, "go"), "");
    expect(await exit).toEqual({ code: 0, output: "" });
    expect(simulator.session(first?.sessionId ?? "").toolCalls).toMatchObject([{ output: "done", isError: false }]);
    expect(simulator.items().map(({ state }) => state)).toEqual(["stopped", "queued"]);
    expect(second).toMatchObject({ state: "queued" });
    simulator.assertNoViolations();
  });

  test("exits with 0 on SIGTERM while it waits for work", async () => {
    const { child, exit } = await startAlwaysOn();
    await simulator.waitFor(() => simulator.stats(client.options.environmentId).workers_polling === 1);
    child.kill("SIGTERM");
    expect(await exit).toEqual({ code: 0, output: "" });
    simulator.assertNoViolations();
  });
});

describe("the SDK's own loop", () => {
  test("polls, acknowledges, serves, and stops one item after the other, and skips a health check", async () => {
    const environmentId = client.options.environmentId;
    simulator.enqueue(environmentId, { type: "healthcheck" });
    simulator.enqueue(environmentId, { script: bashScript("echo one") });
    simulator.enqueue(environmentId, { script: bashScript("echo two") });
    const stop = new AbortController();
    const sdk = new Anthropic({ apiKey: null, authToken: "unused", baseURL: simulator.url });
    const worker = sdk.beta.environments.work.worker({
      environmentId,
      environmentKey: simulator.environmentKey(environmentId),
      workdir: folder,
      workerId: "sdk-worker",
      maxIdleMs: 50,
    });
    const run = worker.run(stop.signal);
    await simulator.waitFor(() => simulator.items().every((item) => item.state === "stopped"));
    expect(simulator.stats(environmentId)).toMatchObject({ depth: 0, pending: 0, workers_polling: 1 });
    stop.abort();
    await run;
    expect(simulator.sessions().flatMap((session) => session.toolCalls.map((call) => call.output))).toEqual([
      "one",
      "two",
    ]);
    expect(simulator.report()).toMatchObject({ total: 3, toolCalls: 2, violations: 0 });
    simulator.assertNoViolations();
  });
});
