import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { KubeClient } from "../../src/kube/client.ts";
import { isConflict, isGone, KubeApiError } from "../../src/kube/errors.ts";
import { PODS, SECRETS } from "../../src/kube/resource.ts";
import { FakeApiServer } from "../kube/api-server.ts";
import { KubeProxy } from "./kube-proxy.ts";

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** A server that records its requests and answers all of them; watches stay open. */
async function behindProxy() {
  const arrived: string[] = [];
  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    arrived.push(`${request.method} ${request.url?.split("?")[0]}`);
    response.writeHead(200, { "content-type": "application/json" });
    if (request.url?.includes("watch=")) response.flushHeaders();
    else response.end(JSON.stringify({ metadata: { name: "one" }, items: [] }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const struck: string[] = [];
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const proxy = await KubeProxy.start({ server: url }, (kind) => struck.push(kind));
  const client = new KubeClient({ access: { server: proxy.url, auth: {}, currentNamespace: "default" } });
  closing.push(
    () => server.close(),
    () => server.closeAllConnections(),
    () => proxy[Symbol.asyncDispose](),
    () => client.close(),
  );
  return { arrived, struck, proxy, client };
}

/** Far longer than any step takes. */
const PATIENCE_MS = 15_000;

const REF = { namespace: "a", name: "one" };
const CREATE = "POST /api/v1/namespaces/a/secrets";
const secret = { metadata: REF };

async function failure(write: Promise<unknown>): Promise<KubeApiError> {
  const error = await write.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof KubeApiError)) throw new Error(`no KubeApiError: ${error}`);
  return error;
}

describe("a proxy in front of the API server", () => {
  test("passes requests on without a fault", async () => {
    const { arrived, client } = await behindProxy();
    await client.create(SECRETS, secret);
    expect(arrived).toEqual([CREATE]);
  });

  test("loses the reply after a request's effect, or the request before it, as often as configured", async () => {
    const { arrived, struck, proxy, client } = await behindProxy();
    proxy.add({ kind: "lost-reply", method: "POST", plural: "secrets", times: 1 });
    proxy.add({ kind: "reset", method: "DELETE", times: 1 });
    expect((await failure(client.create(SECRETS, secret))).maybeApplied).toBe(true);
    expect((await failure(client.delete(SECRETS, REF))).maybeApplied).toBe(true);
    await client.create(SECRETS, secret);
    expect(arrived).toEqual([CREATE, CREATE]);
    expect(struck).toEqual(["kube:lost-reply", "kube:reset"]);
    expect(proxy.hasFaults).toBe(false);
  });

  test("refuses changes with a conflict, but not reads and creations", async () => {
    const { arrived, proxy, client } = await behindProxy();
    proxy.add({ kind: "conflict", plural: "pods", times: 1 });
    await client.list(PODS, { namespace: "a" });
    expect(isConflict(await failure(client.patch(PODS, REF, {}, { type: "merge" })))).toBe(true);
    expect(arrived).toEqual(["GET /api/v1/namespaces/a/pods"]);
  });

  test("ends open watches, and tells the next ones that their version is too old", async () => {
    const { struck, proxy, client } = await behindProxy();
    const ending = new AbortController();
    const watch = () =>
      client.watch(PODS, { namespace: "a", resourceVersion: "1" }, { signal: ending.signal })[Symbol.asyncIterator]();
    const open = watch().next();
    await expect.poll(() => proxy.openWatches, { timeout: PATIENCE_MS }).toBe(1);
    expect(proxy.expireWatches()).toBe(1);
    await open.catch(() => {});
    expect(isGone(await failure(watch().next()))).toBe(true);
    expect(struck).toEqual(["watch:gone"]);
    ending.abort();
  });

  test("passes streams to containers on, cuts them, and refuses new ones or loses their answers", async () => {
    await using server = await FakeApiServer.start();
    await using proxy = await KubeProxy.start(server.access);
    const client = new KubeClient({ access: { ...server.access, server: proxy.url } });
    closing.push(() => client.close());
    const attach = () => client.attach(REF, { container: "main" });
    const stream = await attach();
    stream.send("a line\n");
    await server.until(() => server.attached[0]?.stdin.join("") === "a line\n");
    expect(proxy.dropStreams()).toBe(1);
    await stream.closed;
    proxy.add({ kind: "5xx", plural: "pods", times: 1 });
    expect((await failure(attach())).status).toBe(500);
    expect(server.attached).toHaveLength(1);
    proxy.add({ kind: "lost-reply", plural: "pods", times: 1 });
    // The client tries a second time.
    expect((await attach()).isOpen).toBe(true);
    expect(server.attached).toHaveLength(3);
  });

  test("holds requests while it stalls, and cuts all connections while it refuses", async () => {
    const { arrived, proxy, client } = await behindProxy();
    proxy.stall();
    const held = client.create(SECRETS, secret);
    await expect.poll(() => proxy.held, { timeout: PATIENCE_MS }).toBe(1);
    expect(arrived).toEqual([]);
    proxy.clear();
    await held;
    proxy.refuse();
    expect((await failure(client.create(SECRETS, secret))).status).toBe(0);
    expect(arrived).toEqual([CREATE]);
  });
});
