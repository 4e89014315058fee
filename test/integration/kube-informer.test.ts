import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type Clock, realClock } from "../../src/core/clock.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { type ClusterAccess, loadKubeConfig } from "../../src/kube/config.ts";
import { isGone } from "../../src/kube/errors.ts";
import { CONFIG_MAPS, type ConfigMap } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { type Change, Informer } from "../../src/watch/informer.ts";
import { type Cluster, startCluster } from "../../testbed/cluster/cluster.ts";
import { useCluster } from "../support/cluster.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";

const LABELS = { test: "informer" };

/** An informer behind a proxy, with a way to wait for its changes. */
function watching(access: ClusterAccess, proxy: TcpProxy, namespace: string, clock: Clock = realClock) {
  const metrics = createMetrics();
  const client = new KubeClient({ access: { ...access, server: proxy.url(access.server) }, clock, metrics });
  const informer = new Informer<ConfigMap>({
    client,
    resource: CONFIG_MAPS,
    namespace,
    labelSelector: "test=informer",
    clock: realClock,
    logger: silentLogger,
    metrics,
  });
  const stop = new AbortController();
  const run = informer.run(stop.signal);
  const changes: string[] = [];
  const waiters = new Set<() => void>();
  informer.subscribe(({ type, object }: Change<ConfigMap>) => {
    changes.push(`${type} ${object.metadata.name}`);
    for (const wake of waiters) wake();
  });
  const until = (condition: () => boolean) =>
    new Promise<void>((resolve) => {
      const look = () => {
        if (!condition()) return;
        waiters.delete(look);
        resolve();
      };
      waiters.add(look);
      look();
    });
  const restarts = async (): Promise<Record<string, number>> =>
    Object.fromEntries(
      (await metrics.reflectorRestarts.get()).values.map(({ labels, value }) => [labels.cause, value]),
    );
  const lists = async () => (await metrics.reflectorLists.get()).values[0]?.value ?? 0;
  return {
    informer,
    changes,
    until,
    restarts,
    lists,
    async [Symbol.asyncDispose]() {
      stop.abort();
      await run;
      await client.close();
    },
  };
}

const configMap = (namespace: string, name: string, data = {}): ConfigMap => ({
  metadata: { name, namespace, labels: LABELS },
  data,
});

const names = (informer: Informer<ConfigMap>) =>
  informer
    .list()
    .map(({ metadata }) => metadata.name ?? "")
    .sort();

describe("on a shared API server", () => {
  const cluster = useCluster();
  const access = () => loadKubeConfig(cluster.kubeconfig);
  let direct: KubeClient;
  let namespace: string;

  beforeAll(async () => {
    direct = new KubeClient({ access: access() });
    namespace = await cluster.createNamespace("informer");
  });

  afterEach(async () => {
    const { items } = await direct.listAll(CONFIG_MAPS, { namespace, labelSelector: "test=informer" });
    await Promise.all(
      items.map(({ metadata }) => direct.delete(CONFIG_MAPS, { namespace, name: metadata.name ?? "" })),
    );
  });

  afterAll(() => direct.close());

  test("receives each change once over repeatedly broken connections, without a new list", async () => {
    await using proxy = await TcpProxy.start(cluster.server);
    await using watched = watching(access(), proxy, namespace);
    await watched.informer.synced;
    const wanted: string[] = [];
    for (let i = 0; i < 10; i += 1) {
      const name = `cut-${i}`;
      const created = await direct.create(CONFIG_MAPS, configMap(namespace, name));
      if (i % 2 === 0) proxy.cut();
      await direct.replace(CONFIG_MAPS, { ...created, data: { x: "1" } });
      await watched.until(() => watched.informer.get(namespace, name)?.data?.x === "1");
      if (i % 3 === 0) {
        proxy.cut();
        await direct.delete(CONFIG_MAPS, { namespace, name });
        await watched.until(() => watched.informer.get(namespace, name) === undefined);
      } else wanted.push(name);
    }
    expect(names(watched.informer)).toEqual(wanted);
    expect(watched.changes.filter((change) => change.startsWith("added"))).toHaveLength(10);
    expect(await watched.lists()).toBe(1);
    expect((await watched.restarts()).broken).toBeGreaterThan(0);
  });

  test("detects a silent connection by its missing bookmarks, and replaces it", async () => {
    await using proxy = await TcpProxy.start(cluster.server);
    // The client's clock runs 30 times as fast, so its timeout of 90 s ends after 3 s. The server still sends bookmarks
    // once a minute.
    const fast: Clock = { ...realClock, setTimer: (fn, delayMs) => realClock.setTimer(fn, delayMs / 30) };
    await using watched = watching(access(), proxy, namespace, fast);
    await watched.informer.synced;
    await direct.create(CONFIG_MAPS, configMap(namespace, "before"));
    await watched.until(() => watched.changes.length === 1);
    proxy.freezeOpen();
    await direct.create(CONFIG_MAPS, configMap(namespace, "silent"));
    await watched.until(() => watched.changes.length === 2);
    expect(watched.changes).toEqual(["added before", "added silent"]);
    expect(await watched.lists()).toBe(1);
    expect((await watched.restarts()).broken).toBeGreaterThan(0);
  });

  test("survives a network outage, and reports the changes during it", async () => {
    await direct.create(CONFIG_MAPS, configMap(namespace, "goes"));
    await using proxy = await TcpProxy.start(cluster.server);
    await using watched = watching(access(), proxy, namespace);
    await watched.informer.synced;
    proxy.refuse();
    proxy.cut();
    await direct.delete(CONFIG_MAPS, { namespace, name: "goes" });
    await direct.create(CONFIG_MAPS, configMap(namespace, "comes"));
    await proxy.until(() => proxy.accepted > 5);
    expect(watched.informer.lastError).toBeDefined();
    proxy.forward();
    await watched.until(() => names(watched.informer).join() === "comes");
    expect(watched.changes).toEqual(["added goes", "deleted goes", "added comes"]);
  });
});

describe("on its own API server", () => {
  let cluster: Cluster;

  beforeAll(async () => {
    cluster = await startCluster();
  });

  afterAll(() => cluster.stop());

  test("loses nothing when the API server restarts, and lists again when the history is gone", async () => {
    const access = loadKubeConfig(cluster.kubeconfig);
    const namespace = "default";
    const direct = new KubeClient({ access });
    await using proxy = await TcpProxy.start(cluster.server);
    await using watched = watching(access, proxy, namespace);
    await watched.informer.synced;
    await direct.create(CONFIG_MAPS, configMap(namespace, "first"));
    await watched.until(() => watched.changes.length === 1);
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      // Cuts the connection first, so that changes are missed. The restarted server has no history from before its
      // start.
      proxy.refuse();
      proxy.cut();
      await direct.create(CONFIG_MAPS, configMap(namespace, `unseen-${signal.toLowerCase()}`));
      await cluster.restartApiServer(signal);
      proxy.forward();
      await watched.until(() => watched.informer.get(namespace, `unseen-${signal.toLowerCase()}`) !== undefined);
      await direct.create(CONFIG_MAPS, configMap(namespace, `live-${signal.toLowerCase()}`));
      await watched.until(() => watched.informer.get(namespace, `live-${signal.toLowerCase()}`) !== undefined);
    }
    expect(names(watched.informer)).toEqual([
      "first",
      "live-sigkill",
      "live-sigterm",
      "unseen-sigkill",
      "unseen-sigterm",
    ]);
    expect((await watched.restarts()).gone).toBeGreaterThan(0);
    expect(await watched.lists()).toBeGreaterThan(1);
    const old = direct.watch(
      CONFIG_MAPS,
      { namespace, resourceVersion: "1" },
      { signal: new AbortController().signal },
    );
    await expect(old.next()).rejects.toSatisfy(isGone);
    expect(watched.changes.every((change) => change.startsWith("added"))).toBe(true);
    await direct.close();
  });
});
