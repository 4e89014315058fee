import { describe, expect, test } from "vitest";
import { type Client, tokenOf, type Work, workerOf } from "./client.ts";
import { type Rig, startRig } from "./rig.ts";

const CALLS = [
  "poll",
  "ack",
  "heartbeat",
  "stop",
  "stats",
  "list",
  "retrieve",
  "update",
  "session",
  "events",
  "send",
] as const;
type CallName = (typeof CALLS)[number];

/** Sends a call about `work` that is correct except for its credential. */
function send(client: Client, call: CallName, work: Work) {
  const session = `/v1/sessions/${work.data.id}`;
  switch (call) {
    case "poll":
      return client.pollRaw();
    case "ack":
      return client.ack(work.id);
    case "heartbeat":
      return client.beat(work.id, "NO_HEARTBEAT");
    case "stop":
      return client.stop(work.id, true);
    case "stats":
      return client.stats();
    case "list":
      return client.list();
    case "retrieve":
      return client.retrieve(work.id);
    case "update":
      return client.request("POST", client.work(`/${work.id}`), { body: { metadata: {} } });
    case "session":
      return client.request("GET", session);
    case "events":
      return client.request("GET", `${session}/events`);
    case "send":
      return client.request("POST", `${session}/events`, { body: { events: [{ type: "user.interrupt" }] } });
  }
}

async function offered(): Promise<Rig & { work: Work; user: Client; worker: Client }> {
  const rig = await startRig();
  rig.simulator.enqueue(rig.environmentId);
  const work = await rig.client.take();
  const user = rig.client.with({ bearer: undefined, apiKey: rig.simulator.apiKey });
  return { ...rig, work, user, worker: workerOf(rig.client, work) };
}

describe("credentials", () => {
  test.each(CALLS)("%s with a missing or wrong credential is 401 and not a violation", async (call) => {
    await using rig = await offered();
    const wrong: Client[] = [
      rig.client.with({ bearer: undefined }),
      rig.client.with({ bearer: "sk-ant-oat01-wrong" }),
      rig.client.with({ bearer: "" }),
      rig.client.with({ bearer: undefined, apiKey: "sk-ant-api03-wrong" }),
      // An API key isn't a bearer token.
      rig.client.with({ bearer: rig.simulator.apiKey }),
    ];
    for (const client of wrong) expect((await send(client, call, rig.work)).status).toBe(401);
    expect(rig.simulator.item(rig.work.id).state).toBe("queued");
    rig.simulator.assertNoViolations();
  });

  const takes: Record<"key" | "token" | "api", readonly CallName[]> = {
    key: ["poll", "ack", "heartbeat", "stop", "stats", "list", "session", "events", "send"],
    token: ["heartbeat", "stop", "session", "events"],
    api: ["stop", "stats", "retrieve", "update", "session", "events", "send"],
  };
  const kinds = ["key", "token", "api"] as const;

  test.each(kinds.flatMap((kind) => CALLS.map((call) => [kind, call] as const)))(
    "a valid %s on %s",
    async (kind, call) => {
      await using rig = await offered();
      const client = { key: rig.client, token: rig.worker, api: rig.user }[kind];
      const { status } = await send(client, call, rig.work);
      if (takes[kind].includes(call)) expect(status).not.toBeOneOf([401, 403]);
      else expect(status).toBe(403);
    },
  );

  test("a sessions token works only for its own item and session", async () => {
    await using rig = await offered();
    rig.simulator.enqueue(rig.environmentId);
    const other = await rig.client.take();
    for (const call of ["heartbeat", "stop", "session", "events"] as const) {
      expect((await send(rig.worker, call, other)).status).toBe(403);
    }
    expect(rig.simulator.item(other.id).state).toBe("queued");
  });

  test("revoked tokens are 401, and the environment key still works", async () => {
    await using rig = await offered();
    rig.simulator.revokeTokens(rig.work.id);
    expect((await rig.worker.beat(rig.work.id, "NO_HEARTBEAT")).status).toBe(401);
    expect((await rig.client.ack(rig.work.id)).status).toBe(200);
  });

  test("after a rotation, the old key is 401 and the new one works", async () => {
    await using rig = await offered();
    const key = rig.simulator.rotateKey(rig.environmentId);
    expect((await rig.client.stats()).status).toBe(401);
    expect((await rig.client.with({ bearer: key }).stats()).status).toBe(200);
    expect(rig.simulator.environmentKey(rig.environmentId)).toBe(key);
  });

  test("the key of another environment is 403, and an unknown environment is 404", async () => {
    await using rig = await offered();
    const other = rig.simulator.createEnvironment();
    expect((await rig.client.with({ environmentId: other.id }).stats()).status).toBe(403);
    expect((await rig.client.with({ environmentId: "env_none" }).stats()).status).toBe(404);
  });

  test("anthropic-workspace-id must match if the environment has one", async () => {
    await using rig = await startRig();
    const { id, key } = rig.simulator.createEnvironment({ workspaceId: "wrkspc_1" });
    const client = rig.client.with({ environmentId: id, bearer: key });
    const stats = (workspace: string) =>
      client.request("GET", client.work("/stats"), { headers: { "anthropic-workspace-id": workspace } });
    expect((await stats("wrkspc_1")).status).toBe(200);
    expect((await stats("wrkspc_2")).status).toBe(403);
  });

  test("items without a secret have no token", async () => {
    await using rig = await startRig();
    rig.simulator.enqueue(rig.environmentId, { secret: false });
    expect((await rig.client.take()).secret).toBeNull();
    rig.simulator.enqueue(rig.environmentId, { secret: true });
    expect(tokenOf(await rig.client.take())).toMatch(/^sk-ant-req-/);
  });

  test("a secret doesn't contain the API's URL if the switch says so", async () => {
    await using rig = await startRig({ switches: { secretBaseUrl: false } });
    rig.simulator.enqueue(rig.environmentId);
    const { secret } = await rig.client.take();
    expect(Buffer.from(secret ?? "", "base64url").toString()).not.toContain("api_base_url");
  });
});
