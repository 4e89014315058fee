import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { type Simulator, startSimulator } from "../../../simulator/simulator.ts";
import { PodProxy } from "./pod-proxy.ts";
import type { SimulatorPlace } from "./provided.ts";
import { RemoteSimulator } from "./remote-simulator.ts";

const TOKEN = "admin-token";
const PREFIX = "/api/v1/namespaces/ns/pods/http:simulator:80/proxy";

/** A fake API server that only proxies to one Pod. It strips Authorization, and can be made unavailable. */
let away = 0;
let simulator: Simulator;
let proxy: PodProxy;
let place: SimulatorPlace;
const server = createServer((request, response) => {
  void (async () => {
    if (away > 0) {
      away -= 1;
      response.writeHead(503, { "content-type": "application/json" }).end(JSON.stringify({ kind: "Status" }));
      return;
    }
    const { authorization: _stripped, host: _host, ...headers } = request.headers as Record<string, string>;
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const { method = "GET", url = "" } = request;
    const body = chunks.length > 0 ? Buffer.concat(chunks).toString() : undefined;
    const { "content-length": _length, connection: _connection, ...sent } = headers;
    const answer = await fetch(`${simulator.url}${url.replace(PREFIX, "")}`, {
      method,
      headers: sent,
      ...(body && { body }),
    });
    response.writeHead(answer.status).end(await answer.text());
  })();
});
let dir: string;

beforeAll(async () => {
  simulator = await startSimulator({ adminToken: TOKEN });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  dir = await mkdtemp(join(tmpdir(), "berth-proxy-"));
  const kubeconfig = join(dir, "kubeconfig");
  const config = {
    clusters: [{ name: "c", cluster: { server: `http://127.0.0.1:${port}` } }],
    users: [{ name: "u", user: { token: "kube-token" } }],
    contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
    "current-context": "x",
  };
  await writeFile(kubeconfig, JSON.stringify(config));
  proxy = new PodProxy(kubeconfig);
  place = {
    namespace: "ns",
    pod: "simulator",
    port: 80,
    url: "http://10.0.0.1:80",
    tls: { url: "", certificate: "", labels: {} },
    cidrs: [],
    adminToken: TOKEN,
  };
});

afterAll(async () => {
  await proxy.close();
  await simulator.close();
  server.close();
  await rm(dir, { recursive: true });
});

test("offers the simulator's functions through a Pod's proxy", async () => {
  const remote = await RemoteSimulator.create(proxy, place, { ttlSeconds: 12 });
  const { environmentId } = remote;
  expect(await remote.environmentKey()).toBe(simulator.environmentKey(environmentId));
  const item = await remote.enqueue(environmentId, { script: bashScript("echo hi") });
  expect(await remote.item(item.id)).toEqual(JSON.parse(JSON.stringify(simulator.item(item.id))));
  expect((await remote.items()).map(({ id }) => id)).toEqual([item.id]);
  expect(await remote.stats()).toMatchObject({ depth: 1 });
  expect(await remote.pollsWaiting()).toBe(0);
  expect((await remote.session(item.sessionId ?? "")).id).toBe(item.sessionId);
  await remote.sendMessage(item.sessionId ?? "", bashScript("echo more"));
  const { id } = await remote.arrivals(environmentId, { kind: "poisson", ratePerSecond: 0.001 });
  await remote.stopArrivals(id);
  await remote.stopItem(item.id, { force: true });
  expect((await remote.item(item.id)).state).toBe("stopped");
  const key = await remote.rotateKey();
  expect(await remote.credentials()).toContain(key);
  expect(await remote.requests()).toEqual([]);
  await remote.assertNoViolations();
});

test("reads and changes only its own environment of a shared simulator", async () => {
  const [mine, theirs] = await Promise.all([
    RemoteSimulator.create(proxy, place),
    RemoteSimulator.create(proxy, place),
  ]);
  await theirs.enqueue(theirs.environmentId);
  const fault = await theirs.inject({ kind: "status", status: 500, call: "poll" });
  await mine.inject({ kind: "reset", call: "ack" });
  expect(await mine.items()).toEqual([]);
  expect(await mine.sessions()).toEqual([]);
  await mine.clearFaults();
  expect((await mine.faults()).map(({ id }) => id)).toEqual([fault.id]);
  await theirs.clearFaults(fault.id);
  expect(await theirs.faults()).toEqual([]);
});

test("reports all violations except the expected ones", async () => {
  const remote = await RemoteSimulator.create(proxy, place);
  const headers = {
    authorization: `Bearer ${await remote.environmentKey()}`,
    "anthropic-beta": "managed-agents-2026-04-01",
    "anthropic-version": "2023-06-01",
  };
  await fetch(`${simulator.url}/v1/environments/${remote.environmentId}/work/poll?block_ms=0`, { headers });
  await expect(remote.assertNoViolations()).rejects.toThrow("invalid-poll");
  await remote.assertNoViolations(["invalid-poll"]);
  expect(await remote.requests()).toMatchObject([{ call: "poll", status: 400 }]);
});

test("reports the simulator's refusals", async () => {
  const remote = await RemoteSimulator.create(proxy, place);
  await expect(remote.item("work_none")).rejects.toMatchObject({ status: 404 });
  await expect(new RemoteSimulator(proxy, { ...place, adminToken: "wrong" }, "env").items()).rejects.toMatchObject({
    status: 401,
  });
});

test("waits while the API server is unavailable", async () => {
  const remote = await RemoteSimulator.create(proxy, place);
  away = 2;
  expect(await remote.items()).toEqual([]);
  away = 1;
  await remote.enqueue(remote.environmentId);
  expect(await remote.items()).toHaveLength(1);
});
