import { randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { KubeClient } from "../../src/kube/client.ts";
import { type ClusterAccess, loadKubeConfig } from "../../src/kube/config.ts";
import {
  hasStatus,
  isAlreadyExists,
  isBadRequest,
  isConflict,
  isForbidden,
  isInvalid,
  isNotFound,
  isQuotaExceeded,
  isUnauthorized,
  KubeApiError,
} from "../../src/kube/errors.ts";
import { CONFIG_MAPS, CRDS, type KubeObject, PODS, type Pod, type Resource, SECRETS } from "../../src/kube/resource.ts";
import { useCluster } from "../support/cluster.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";

const cluster = useCluster();
const access = (): ClusterAccess => loadKubeConfig(cluster.kubeconfig);
let client: KubeClient;
let namespace: string;

beforeAll(async () => {
  client = new KubeClient({ access: access() });
  namespace = await cluster.createNamespace("kube-client");
});

afterAll(() => client.close());

const pod = (name: string, spec: Partial<Pod["spec"]> = {}): Pod => ({
  metadata: { name, namespace },
  // No scheduler handles it: only the API server matters here.
  spec: { schedulerName: "nobody", containers: [{ name: "main", image: "example.invalid/image" }], ...spec },
});

const configMap = (name: string, data: Record<string, string> = {}): KubeObject => ({
  metadata: { name, namespace },
  data,
});

async function caught(work: Promise<unknown>): Promise<KubeApiError> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof KubeApiError) return error;
  throw new Error(`expected a KubeApiError, got ${String(error)}`);
}

describe("objects", () => {
  test("a Pod keeps all its fields through create, get, replace, patch and delete", async () => {
    const created = await client.create(PODS, pod("crud", { hostname: "h", shareProcessNamespace: true }));
    const ref = { namespace, name: "crud" };
    const read = await client.get(PODS, ref);
    expect(read.metadata.uid).toBe(created.metadata.uid);
    expect(read.spec).toMatchObject({ hostname: "h", shareProcessNamespace: true, dnsPolicy: "ClusterFirst" });
    const replaced = await client.replace(PODS, { ...read, metadata: { ...read.metadata, labels: { a: "1" } } });
    expect(replaced.spec).toEqual(read.spec);
    const patched = await client.patch(PODS, ref, { metadata: { labels: { b: "2" } } }, { type: "merge" });
    expect(patched.metadata.labels).toEqual({ a: "1", b: "2" });
    await client.delete(PODS, ref, { uid: created.metadata.uid ?? "", gracePeriodSeconds: 0 });
    expect(isNotFound(await caught(client.get(PODS, ref)))).toBe(true);
  });

  test("fields that the API server does not know survive in a preserved template", async () => {
    const plural = `templates${randomBytes(3).toString("hex")}`;
    const resource: Resource = { group: "berth.test", version: "v1", plural, kind: "Template", namespaced: true };
    const names = { plural, singular: `${plural}x`, kind: "Template" };
    const schema = {
      openAPIV3Schema: {
        type: "object",
        properties: { spec: { type: "object", "x-kubernetes-preserve-unknown-fields": true } },
      },
    };
    await client.create(CRDS, {
      metadata: { name: `${plural}.berth.test` },
      spec: {
        group: "berth.test",
        scope: "Namespaced",
        names,
        versions: [{ name: "v1", served: true, storage: true, schema }],
      },
    });
    const spec = { containers: [{ name: "x", fieldOfTheFuture: { deep: [1, "é", null] } }] };
    let created: KubeObject | undefined;
    while (!created) {
      try {
        created = await client.create(resource, { metadata: { name: "t", namespace }, spec });
      } catch (error) {
        // The server takes a moment to serve a new resource. That 404 is not about an object.
        if (!(error instanceof KubeApiError && error.status === 404)) throw error;
        expect(isNotFound(error)).toBe(false);
      }
    }
    const list = await client.list(resource, { namespace });
    expect(list.items.map((item) => [item.kind, item.apiVersion, item.spec])).toEqual([
      ["Template", "berth.test/v1", spec],
    ]);
    await client.delete(CRDS, { name: `${plural}.berth.test` });
  });

  test("a dry run with strict validation names a mistyped field and creates nothing", async () => {
    const mistyped = pod("typo", { containres: [] });
    const error = await caught(client.create(PODS, mistyped, { dryRun: true, fieldValidation: "Strict" }));
    expect(isBadRequest(error)).toBe(true);
    expect(error.message).toContain('unknown field "spec.containres"');
    await client.create(PODS, pod("dry"), { dryRun: true, fieldValidation: "Strict" });
    expect(isNotFound(await caught(client.get(PODS, { namespace, name: "dry" })))).toBe(true);
  });

  test("supports all patch types", async () => {
    const ref = { namespace, name: "patched" };
    await client.create(CONFIG_MAPS, configMap("patched", { a: "1", b: "2" }));
    await client.patch(CONFIG_MAPS, ref, { data: { b: null } }, { type: "merge" });
    await client.patch(CONFIG_MAPS, ref, [{ op: "add", path: "/data/c", value: "3" }], { type: "json" });
    await client.patch(CONFIG_MAPS, ref, { data: { d: "4" } }, { type: "strategic" });
    const applied = { apiVersion: "v1", kind: "ConfigMap", ...configMap("patched", { e: "5" }) };
    const q = { type: "apply", fieldManager: "berth-test", force: true } as const;
    expect((await client.patch(CONFIG_MAPS, ref, applied, q)).data).toEqual({ a: "1", c: "3", d: "4", e: "5" });
  });

  test("patches the status of a Pod through its subresource", async () => {
    await client.create(PODS, pod("status"));
    const patch = { status: { phase: "Running", message: "by hand" } };
    const q = { type: "merge", subresource: "status" } as const;
    const patched = await client.patch(PODS, { namespace, name: "status" }, patch, q);
    expect([patched.status?.phase, patched.status?.message]).toEqual(["Running", "by hand"]);
  });

  test("lists all objects by pages of one snapshot", async () => {
    const names = Array.from({ length: 23 }, (_, i) => `page-${String(i).padStart(2, "0")}`);
    const labels = { test: "pages" };
    await Promise.all(
      names.map((name) => client.create(CONFIG_MAPS, { ...configMap(name), metadata: { name, namespace, labels } })),
    );
    const list = await client.listAll(CONFIG_MAPS, { namespace, labelSelector: "test=pages" }, {}, 5);
    expect(list.items.map(({ metadata }) => metadata.name)).toEqual(names);
    expect(list.metadata.resourceVersion).toMatch(/^\d+$/);
    expect(list.metadata.continue).toBeUndefined();
  });

  test("raw reaches the version, readiness and subresources", async () => {
    expect(await client.raw("GET", "/version")).toMatchObject({ major: "1" });
    expect(await client.raw("GET", "/readyz")).toBe("ok");
    await client.create(PODS, pod("evicted"));
    const eviction = { apiVersion: "policy/v1", kind: "Eviction", metadata: { name: "evicted", namespace } };
    await client.raw("POST", `/api/v1/namespaces/${namespace}/pods/evicted/eviction`, eviction);
    expect(isNotFound(await caught(client.get(PODS, { namespace, name: "evicted" })))).toBe(true);
  });
});

describe("errors", () => {
  test("classifies existing, missing, stale and foreign objects", async () => {
    const ref = { namespace, name: "errors" };
    const first = await client.create(CONFIG_MAPS, configMap("errors"));
    expect(isAlreadyExists(await caught(client.create(CONFIG_MAPS, configMap("errors"))))).toBe(true);
    expect(isNotFound(await caught(client.get(CONFIG_MAPS, { namespace, name: "none" })))).toBe(true);
    const second = await client.replace(CONFIG_MAPS, { ...first, data: { x: "1" } });
    expect(isConflict(await caught(client.replace(CONFIG_MAPS, { ...first, data: { x: "2" } })))).toBe(true);
    const stale = { metadata: { resourceVersion: first.metadata.resourceVersion }, data: { x: "3" } };
    expect(isConflict(await caught(client.patch(CONFIG_MAPS, ref, stale, { type: "merge" })))).toBe(true);
    expect(isConflict(await caught(client.delete(CONFIG_MAPS, ref, { uid: "another" })))).toBe(true);
    const { resourceVersion: old = "" } = first.metadata;
    expect(isConflict(await caught(client.delete(CONFIG_MAPS, ref, { resourceVersion: old })))).toBe(true);
    expect((await client.get(CONFIG_MAPS, ref)).data).toEqual({ x: "1" });
    await client.delete(CONFIG_MAPS, ref, {
      uid: second.metadata.uid ?? "",
      resourceVersion: second.metadata.resourceVersion ?? "",
    });
  });

  test("names the invalid field of an object", async () => {
    const error = await caught(client.create(PODS, pod("Bad_Name")));
    expect(isInvalid(error)).toBe(true);
    expect(error.details?.causes?.map(({ field }) => field)).toContain("metadata.name");
  });

  test("a user without permissions is forbidden, and an unknown user is unauthorized", async () => {
    const nobody = new KubeClient({ access: loadKubeConfig(await cluster.kubeconfigFor("nobody")) });
    expect(isForbidden(await caught(nobody.list(SECRETS, { namespace })))).toBe(true);
    await nobody.close();
    const { ca = "" } = access();
    const unknown = new KubeClient({
      access: { server: cluster.server, ca, auth: { token: "wrong" }, currentNamespace: "x" },
    });
    expect(isUnauthorized(await caught(unknown.list(SECRETS, { namespace })))).toBe(true);
    await unknown.close();
  });

  test("distinguishes a full quota from other refusals", async () => {
    const tight = await cluster.createNamespace("kube-quota");
    const path = `/api/v1/namespaces/${tight}/resourcequotas`;
    await client.raw("POST", path, {
      apiVersion: "v1",
      kind: "ResourceQuota",
      metadata: { name: "q" },
      spec: { hard: { "count/secrets": "0" } },
    });
    const create = () => client.create(SECRETS, { metadata: { generateName: "s-", namespace: tight } });
    // The quota applies once its controller has processed it.
    let error: KubeApiError | undefined;
    while (!error || !isQuotaExceeded(error)) {
      error = await create().then(
        () => undefined,
        (reason: KubeApiError) => reason,
      );
    }
    expect([error.status, error.maybeApplied]).toEqual([403, false]);
  });

  test("sends nothing to a server whose certificate the given authority did not sign", async () => {
    const { auth } = access();
    // Without a given authority, Node's authorities are used, which do not include this one.
    const stranger = new KubeClient({ access: { server: cluster.server, auth, currentNamespace: "x" } });
    const error = await caught(stranger.create(CONFIG_MAPS, configMap("leak")));
    expect([hasStatus(error, 0), error.maybeApplied]).toEqual([true, false]);
    expect(error.message).toMatch(/certificate/);
    await stranger.close();
    const misnamed = new KubeClient({ access: { ...access(), tlsServerName: "elsewhere.invalid" } });
    expect((await caught(misnamed.list(PODS))).message).toMatch(/altname|elsewhere/i);
    await misnamed.close();
  });
});

describe("connections", () => {
  test("are shared and limited, for tokens and client certificates alike", async () => {
    const certificate = loadKubeConfig(await cluster.kubeconfigFor("many", ["system:masters"]));
    for (const one of [access(), certificate]) {
      await using proxy = await TcpProxy.start(cluster.server);
      const many = new KubeClient({ access: { ...one, server: proxy.url(cluster.server) } });
      await Promise.all(
        Array.from({ length: 300 }, () => many.get(CONFIG_MAPS, { namespace, name: "kube-root-ca.crt" })),
      );
      for (let i = 0; i < 20; i += 1) await many.get(CONFIG_MAPS, { namespace, name: "kube-root-ca.crt" });
      expect(proxy.accepted).toBeLessThanOrEqual(64);
      await many.close();
      await proxy.until(() => proxy.open === 0);
    }
  });

  test("requests and watches use the proxy of the kubeconfig", async () => {
    const tunnels: string[] = [];
    const proxy = createServer().on("connect", (request, socket: Socket) => {
      tunnels.push(request.url ?? "");
      const { hostname, port } = new URL(`http://${request.url}`);
      const upstream = connect(Number(port), hostname, () => {
        socket.write("HTTP/1.1 200 Connection Established\r\n\r\n");
        upstream.pipe(socket);
        socket.pipe(upstream);
      });
      for (const one of [upstream, socket]) one.on("error", () => {});
      upstream.on("close", () => socket.destroy());
      socket.on("close", () => upstream.destroy());
    });
    await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
    const proxyUrl = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
    const proxied = new KubeClient({ access: { ...access(), proxyUrl } });
    const { metadata } = await proxied.list(CONFIG_MAPS, { namespace });
    const stop = new AbortController();
    const query = { namespace, resourceVersion: metadata.resourceVersion ?? "" };
    const watch = proxied.watch(CONFIG_MAPS, query, { signal: stop.signal });
    const first = watch.next();
    await proxied.create(CONFIG_MAPS, configMap("proxied"));
    expect((await first).value?.object.metadata.name).toBe("proxied");
    expect(new Set(tunnels)).toEqual(new Set([new URL(cluster.server).host]));
    stop.abort();
    await watch.return();
    await proxied.close();
    await new Promise((resolve) => proxy.close(resolve));
  });

  test("retries reads on broken connections, and reports that the effect of a write is unknown", async () => {
    await using proxy = await TcpProxy.start(cluster.server);
    const cutOff = new KubeClient({ access: { ...access(), server: proxy.url(cluster.server) } });
    await cutOff.get(CONFIG_MAPS, { namespace, name: "kube-root-ca.crt" });
    const reads = Array.from({ length: 50 }, () => cutOff.list(CONFIG_MAPS, { namespace }));
    await proxy.until(() => proxy.open > 5);
    proxy.cut();
    expect(await Promise.all(reads)).toHaveLength(50);
    proxy.stall();
    const write = caught(cutOff.create(CONFIG_MAPS, configMap("cut"), {}, { timeoutMs: 500 }));
    expect(hasStatus(await write, 0)).toBe(true);
    await cutOff.close();
  });
});
