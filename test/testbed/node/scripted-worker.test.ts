import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { realClock } from "../../../src/core/clock.ts";
import { type FateInput, parseFate, type WorkerFate } from "../../../testbed/node/fate.ts";
import { Latency, seededRandom } from "../../../testbed/node/latency.ts";
import type { ContainerExit } from "../../../testbed/node/runtime.ts";
import { ScriptedWorkers } from "../../../testbed/node/scripted-worker.ts";
import type { WorkAnswer, WorkerApi, WorkIdentity } from "../../../testbed/node/work-calls.ts";
import { VirtualClock } from "../../support/virtual-clock.ts";
import { boundPod } from "./pod-bench.ts";

const secret = (payload: unknown) => Buffer.from(JSON.stringify(payload)).toString("base64url");

const ENV = {
  ANTHROPIC_WORK_ID: "work_1",
  ANTHROPIC_ENVIRONMENT_ID: "env_1",
  ANTHROPIC_SESSION_ID: "sesn_1",
  ANTHROPIC_WORK_SECRET: secret({ sessions_token: "token-of-the-session" }),
  ANTHROPIC_ENVIRONMENT_KEY: "key-of-the-environment",
  ANTHROPIC_BASE_URL: "http://127.0.0.1:9",
};

/** A Work API that answers at once, and records the calls. */
class FakeApi implements WorkerApi {
  readonly calls: string[] = [];
  readonly credentials = new Set<string>();
  beats = 0;
  /** The answers to heartbeats, in order. The last one repeats. `hang` never answers, `reset` cuts the connection. */
  beatAnswers: (WorkAnswer | "hang" | "reset")[] = [beatAnswer()];
  sessionStatus = 200;
  stopStatus = 204;

  async heartbeat(who: WorkIdentity, expected: string, signal: AbortSignal): Promise<WorkAnswer> {
    this.credentials.add(who.credential);
    this.calls.push(`beat ${expected}`);
    const answer = this.beatAnswers[Math.min(this.beats, this.beatAnswers.length - 1)];
    this.beats += 1;
    if (answer === "hang") {
      return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }));
    }
    if (answer === undefined || answer === "reset") throw new Error("connection reset");
    return answer;
  }

  async session(): Promise<WorkAnswer> {
    this.calls.push("session");
    return { status: this.sessionStatus, body: {} };
  }

  async stop(): Promise<WorkAnswer> {
    this.calls.push("stop");
    return { status: this.stopStatus, body: undefined };
  }

  async close(): Promise<void> {}

  get stops(): number {
    return this.calls.filter((call) => call === "stop").length;
  }
}

function beatAnswer(change: Record<string, unknown> = {}): WorkAnswer {
  return {
    status: 200,
    body: { last_heartbeat: "t1", lease_extended: true, state: "active", ttl_seconds: 90, ...change },
  };
}

const refusal = (status: number): WorkAnswer => ({ status, body: {} });

/** Starts a worker on its own clock. */
function begin(fate: Omit<Extract<FateInput, { kind: "worker" }>, "kind"> = {}, env: Record<string, string> = ENV) {
  const clock = new VirtualClock();
  const api = new FakeApi();
  const exits: ContainerExit[] = [];
  const pod = boundPod();
  const [container] = pod.spec.containers;
  if (!container) throw new Error("no container");
  const start = () =>
    new ScriptedWorkers(clock, api).start(
      {
        pod,
        container,
        fate: undefined,
        runsToCompletion: false,
        env,
        restartCount: 0,
        latency: new Latency(seededRandom(1)),
        onExit: (exit) => exits.push(exit),
        evict: () => {},
      },
      parseFate({ kind: "worker", firstBeatMs: 200, workMs: 100_000, ...fate }) as WorkerFate,
    );
  return { clock, api, exits, start };
}

describe("a scripted worker", () => {
  test("starts with NO_HEARTBEAT, echoes what it gets, works, force-stops its item, and exits 0", async () => {
    const { clock, api, exits, start } = begin();
    api.beatAnswers = ["t1", "t2", "t3", "t4"].map((last_heartbeat) => beatAnswer({ last_heartbeat }));
    start();
    await clock.advance(101_000);
    expect(api.calls).toEqual(["beat NO_HEARTBEAT", "session", "beat t1", "beat t2", "beat t3", "stop"]);
    expect(exits).toEqual([{ exitCode: 0 }]);
    expect([...api.credentials]).toEqual(["token-of-the-session"]);
  });

  test.each([
    [90, 30_000],
    [20, 10_000],
    [1, 1_000],
    [600, 30_000],
  ])("with a TTL of %i s sends a heartbeat every %i ms", async (ttl_seconds, interval) => {
    const { clock, api, start } = begin({ workMs: 1_000_000 });
    api.beatAnswers = [beatAnswer({ ttl_seconds })];
    start();
    await clock.advance(200);
    expect(api.beats).toBe(1);
    await clock.advance(interval - 1);
    expect(api.beats).toBe(1);
    await clock.advance(1);
    expect(api.beats).toBe(2);
  });

  test.each<[string, WorkAnswer, number]>([
    ["412", refusal(412), 0],
    ["stopping", beatAnswer({ state: "stopping" }), 1],
    ["stopped", beatAnswer({ state: "stopped", lease_extended: false }), 1],
    ["no extension", beatAnswer({ lease_extended: false }), 1],
    ["401", refusal(401), 1],
    ["404", refusal(404), 1],
  ])("that gets %s exits 0 at once, and sends stops as the stock worker does", async (_what, answer, stops) => {
    const { clock, api, exits, start } = begin();
    api.beatAnswers = [beatAnswer(), answer];
    start();
    await clock.advance(30_300);
    expect(exits).toEqual([{ exitCode: 0 }]);
    expect(api.stops).toBe(stops);
    expect(api.beats).toBe(2);
  });

  test.each(["hang", "reset"] as const)("whose heartbeats %s for a TTL exits 0 without a stop", async (fault) => {
    const { clock, api, exits, start } = begin({ workMs: 1_000_000 });
    api.beatAnswers = [beatAnswer(), fault];
    start();
    await clock.advance(89_000);
    expect(exits).toEqual([]);
    await clock.advance(65_000);
    expect(exits).toEqual([{ exitCode: 0 }]);
    expect(api.stops).toBe(0);
  });

  test.each([429, 500, 409])("repeats a heartbeat that is answered %i, with the same echo", async (status) => {
    const { clock, api, exits, start } = begin();
    api.beatAnswers = [beatAnswer(), refusal(status), beatAnswer({ last_heartbeat: "t2" })];
    start();
    await clock.advance(99_000);
    expect(api.calls.filter((call) => call === "beat t1")).toHaveLength(2);
    expect(exits).toEqual([]);
  });

  test("whose session doesn't exist exits 1 and stops its item", async () => {
    const { clock, api, exits, start } = begin();
    api.sessionStatus = 404;
    start();
    await clock.advance(300);
    expect(exits).toMatchObject([{ exitCode: 1 }]);
    expect(api.stops).toBe(1);
  });

  test("whose item is already stopped accepts the 409", async () => {
    const { clock, api, exits, start } = begin({ workMs: 10 });
    api.stopStatus = 409;
    start();
    await clock.advance(5_000);
    expect(exits).toEqual([{ exitCode: 0 }]);
  });

  test.each(["before its first heartbeat", "while it works"])(
    "that gets SIGTERM %s stops its item and exits 0",
    async (when) => {
      const { clock, api, exits, start } = begin();
      const worker = start();
      if (when === "while it works") await clock.advance(1_000);
      worker.signal("SIGTERM");
      await clock.advance(10);
      expect(exits).toEqual([{ exitCode: 0 }]);
      expect(api.stops).toBe(1);
    },
  );

  test("without a handler for SIGTERM ends without a call", async () => {
    const { clock, api, exits, start } = begin({ onTerm: { code: 143 } });
    const worker = start();
    await clock.advance(1_000);
    worker.signal("SIGTERM");
    await clock.advance(10);
    expect(exits).toEqual([{ exitCode: 143 }]);
    expect(api.stops).toBe(0);
  });

  test.each([
    ["oom", { exitCode: 137, reason: "OOMKilled" }],
    ["killed", { exitCode: 137 }],
    ["exit-without-stop", { exitCode: 0 }],
  ] as const)("whose fate is %s ends after its work without a stop, and is never heard of again", async (end, exit) => {
    const { clock, api, exits, start } = begin({ end, workMs: 40_000 });
    start();
    await clock.advance(41_000);
    expect(exits).toEqual([exit]);
    const calls = api.calls.length;
    await clock.advance(600_000);
    expect(api.calls).toHaveLength(calls);
    expect(api.stops).toBe(0);
  });

  test("that is killed with SIGKILL makes no more calls", async () => {
    const { clock, api, exits, start } = begin();
    const worker = start();
    await clock.advance(1_000);
    worker.signal("SIGKILL");
    expect(exits).toEqual([{ exitCode: 137 }]);
    const calls = api.calls.length;
    await clock.advance(600_000);
    expect(api.calls).toHaveLength(calls);
  });

  test("that never sends a heartbeat runs until it's told to end, like a program that isn't a worker", async () => {
    const { clock, api, exits, start } = begin({ neverBeats: true, end: "hang" });
    start();
    await clock.advance(600_000);
    expect([api.calls, exits]).toEqual([[], []]);
  });

  test.each(["ANTHROPIC_WORK_ID", "ANTHROPIC_ENVIRONMENT_ID", "ANTHROPIC_SESSION_ID", "ANTHROPIC_BASE_URL"])(
    "without %s exits 1 and makes no calls",
    async (missing) => {
      const { [missing as keyof typeof ENV]: _left, ...env } = ENV;
      const { clock, api, exits, start } = begin({}, env);
      start();
      await clock.advance(1_000);
      expect(exits).toMatchObject([{ exitCode: 1 }]);
      expect(api.calls).toEqual([]);
    },
  );

  test.each([
    ["a secret without a token falls back to the environment key", secret({}), "key-of-the-environment"],
    ["a secret that isn't JSON falls back to the environment key", "%%%", "key-of-the-environment"],
  ])("%s", async (_what, workSecret, credential) => {
    const { clock, api, start } = begin({}, { ...ENV, ANTHROPIC_WORK_SECRET: workSecret });
    start();
    await clock.advance(300);
    expect([...api.credentials]).toEqual([credential]);
  });
});

test("over HTTP, the calls match those of the stock worker", async () => {
  const seen: Record<string, unknown>[] = [];
  const server = createServer((request, response) => {
    const { method, url, headers } = request;
    let body = "";
    request.on("data", (chunk) => {
      body += chunk;
    });
    request.on("end", () => {
      seen.push({ method, url, body, authorization: headers.authorization, beta: headers["anthropic-beta"] });
      const beat = url?.includes("/heartbeat");
      response.writeHead(beat ? 200 : url?.endsWith("/stop?beta=true") ? 204 : 200, {
        "content-type": "application/json",
      });
      response.end(beat ? JSON.stringify(beatAnswer().body) : undefined);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const workers = new ScriptedWorkers(realClock);
  onTestFinished(async () => {
    await workers.close();
    server.close();
  });
  const env = { ...ENV, ANTHROPIC_BASE_URL: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
  const pod = boundPod();
  const [container] = pod.spec.containers;
  if (!container) throw new Error("no container");
  const exited = Promise.withResolvers<ContainerExit>();
  workers.start(
    {
      pod,
      container,
      fate: undefined,
      runsToCompletion: false,
      env,
      restartCount: 0,
      latency: new Latency(seededRandom(1)),
      onExit: exited.resolve,
      evict: () => {},
    },
    parseFate({ kind: "worker", firstBeatMs: 0, workMs: 50 }) as WorkerFate,
  );
  expect(await exited.promise).toEqual({ exitCode: 0 });
  const authorization = "Bearer token-of-the-session";
  const beta = "managed-agents-2026-04-01";
  const item = "/v1/environments/env_1/work/work_1";
  expect(seen.sort((a, b) => String(a["url"]).localeCompare(String(b["url"])))).toEqual([
    {
      method: "POST",
      url: `${item}/heartbeat?expected_last_heartbeat=NO_HEARTBEAT&beta=true`,
      body: "",
      authorization,
      beta,
    },
    { method: "POST", url: `${item}/stop?beta=true`, body: '{"force":true}', authorization, beta },
    { method: "GET", url: "/v1/sessions/sesn_1?beta=true", body: "", authorization, beta },
  ]);
});
