import { describe, expect, it } from "vitest";
import { type Simulator, startSimulator } from "../../simulator/simulator.ts";
import { WorkApiClient } from "../../src/work/client.ts";
import { WorkHttp } from "../../src/work/http.ts";
import { NO_HEARTBEAT } from "../../src/work/types.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { failure, LONG_MS } from "./setup.ts";

/** Connects the client with the simulator, which was written independently from the same contract. */
async function meet() {
  const clock = new VirtualClock();
  const simulator: Simulator = await startSimulator({ clock });
  const { id: environmentId, key } = simulator.createEnvironment();
  const http = new WorkHttp({ clock });
  const options = { environmentId, workerId: "berth-0", http, clock, requestTimeoutMs: LONG_MS };
  const client = new WorkApiClient({ ...options, baseUrl: simulator.url, key: () => key });
  return {
    clock,
    simulator,
    client,
    environmentId,
    async [Symbol.asyncDispose]() {
      await http.destroy();
      await simulator.close();
    },
  };
}

describe("the client against the work simulator", () => {
  it("takes an item through its whole life, and its fence holds", async () => {
    await using met = await meet();
    const { client, simulator, environmentId, clock } = met;
    expect((await client.poll()).value).toBeNull();
    const { id } = simulator.enqueue(environmentId);
    expect((await client.stats()).value).toMatchObject({ depth: 1, pending: 0 });

    const polled = (await client.poll({ reclaimOlderThanMs: 15_000 })).value;
    expect(polled).toMatchObject({ id, state: "queued", acknowledged_at: null });
    const secret: unknown = JSON.parse(Buffer.from(polled?.secret ?? "", "base64url").toString());
    expect(secret).toMatchObject({ sessions_token: expect.stringMatching(/^sk-ant-req-/) });
    expect((await client.stats()).value).toMatchObject({ depth: 0, pending: 1 });

    const acked = await client.ack(id);
    expect(acked.value.state).toBe("starting");
    const ackedAt = Date.parse(acked.value.acknowledged_at ?? "");
    expect(Math.abs(ackedAt - (acked.serverDateMs ?? 0))).toBeLessThanOrEqual(1_000);

    const first = (await client.heartbeat(id, { expected: NO_HEARTBEAT })).value;
    if (first.kind !== "beat") throw new Error("the first heartbeat was refused");
    expect(first.beat).toMatchObject({ lease_extended: true, state: "active" });
    await clock.advance(1_000);
    const { found, complete } = await client.find([id, "work_gone"], { urgent: true });
    expect(complete).toBe(true);
    expect([...found.keys()]).toEqual([id]);
    expect(Date.parse(found.get(id)?.latest_heartbeat_at ?? "")).toBe(Date.parse(first.beat.last_heartbeat));

    const stranger = (await client.heartbeat(id, { expected: NO_HEARTBEAT })).value;
    expect(stranger).toMatchObject({
      kind: "refused",
      current: { state: "active", last_heartbeat: first.beat.last_heartbeat },
    });
    // The listed value must work as the next echo, because the fence depends on it.
    const listed = found.get(id)?.latest_heartbeat_at ?? "";
    expect((await client.heartbeat(id, { expected: listed })).value.kind).toBe("beat");

    expect((await client.stop(id, { force: false })).value).toEqual({ alreadyStopped: false });
    expect((await client.find([id])).found.get(id)?.state).toBe("stopping");
    expect((await client.stop(id, { force: true })).value).toEqual({ alreadyStopped: false });
    expect((await client.stop(id, { force: true })).value).toEqual({ alreadyStopped: true });
  });

  it("uses the right credential for each call", async () => {
    await using met = await meet();
    const { client, simulator, environmentId } = met;
    const { id } = simulator.enqueue(environmentId);
    const { apiKey } = simulator;
    expect((await client.retrieve(id, { apiKey })).value).toMatchObject({ id, state: "queued" });
    const updated = await client.update(id, { pod: "a" }, { apiKey });
    expect(updated.value.metadata).toEqual({ pod: "a" });
    expect((await client.update(id, { pod: null }, { apiKey })).value.metadata).toEqual({});
    simulator.rotateKey(environmentId);
    expect(await failure(client.poll())).toMatchObject({ kind: "auth", status: 401 });
    expect(await failure(client.ack(id))).toMatchObject({ kind: "auth" });
  });

  it("finds many items page by page", async () => {
    await using met = await meet();
    const { client, simulator, environmentId } = met;
    const ids = Array.from({ length: 250 }, () => simulator.enqueue(environmentId).id);
    const { found } = await client.find(ids);
    expect([...found.keys()].sort()).toEqual([...ids].sort());
  });
});
