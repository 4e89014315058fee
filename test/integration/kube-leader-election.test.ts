import { afterAll, beforeAll, expect, test } from "vitest";
import { type Clock, realClock } from "../../src/core/clock.ts";
import { LeaderElector } from "../../src/election/leader-election.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { type ClusterAccess, loadKubeConfig } from "../../src/kube/config.ts";
import { LeadershipLostError } from "../../src/kube/errors.ts";
import { CONFIG_MAPS, LEASES } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { useCluster } from "../support/cluster.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";

const cluster = useCluster();
const access = (): ClusterAccess => loadKubeConfig(cluster.kubeconfig);
let direct: KubeClient;
let namespace: string;

beforeAll(async () => {
  direct = new KubeClient({ access: access() });
  namespace = await cluster.createNamespace("election");
});

afterAll(() => direct.close());

/** A candidate with its own client. Durations are short, but far above what a request takes on a busy machine. */
function candidate(lease: string, identity: string, options: { access?: ClusterAccess; clock?: Clock } = {}) {
  const { clock = realClock } = options;
  const client = new KubeClient({ access: options.access ?? access() });
  const terms: { signal: AbortSignal; ended: boolean }[] = [];
  let wake: (() => void)[] = [];
  const changed = () => {
    for (const one of wake) one();
    wake = [];
  };
  const elector = new LeaderElector({
    client,
    namespace,
    name: lease,
    identity,
    clock,
    logger: silentLogger,
    leaseDurationMs: 6_000,
    renewDeadlineMs: 4_000,
    retryPeriodMs: 500,
    onStartedLeading: (signal) => {
      terms.push({ signal, ended: false });
      changed();
    },
    onStoppedLeading: () => {
      const term = terms.at(-1);
      if (term) term.ended = true;
      changed();
    },
  });
  const stop = new AbortController();
  const run = elector.run(stop.signal);
  return {
    elector,
    client,
    terms,
    stop,
    run,
    async until(condition: () => boolean) {
      while (!condition()) await new Promise<void>((resolve) => wake.push(resolve));
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await run;
      await client.close();
    },
  };
}

test("exactly one of two candidates leads, and the other one follows a clean shutdown", async () => {
  await using a = candidate("turns", "a");
  await using b = candidate("turns", "b");
  await Promise.race([a.until(() => a.terms.length === 1), b.until(() => b.terms.length === 1)]);
  const [first, second] = a.terms.length === 1 ? [a, b] : [b, a];
  expect([first.elector.isLeader, second.elector.isLeader]).toEqual([true, false]);
  const { spec } = await direct.get(LEASES, { namespace, name: "turns" });
  expect(spec).toMatchObject({ holderIdentity: first === a ? "a" : "b", leaseDurationSeconds: 6 });
  expect(spec?.renewTime).toMatch(/\.\d{6}Z$/);
  first.stop.abort();
  await first.run;
  expect(first.terms[0]?.ended).toBe(true);
  expect(() => first.elector.fence()).toThrow(LeadershipLostError);
  await second.until(() => second.terms.length === 1);
  expect(second.elector.isLeader).toBe(true);
});

test("a leader that loses its connection stops before the next one starts", async () => {
  await using proxy = await TcpProxy.start(cluster.server);
  await using a = candidate("cut-off", "a", { access: { ...access(), server: proxy.url(cluster.server) } });
  await a.until(() => a.terms.length === 1);
  await using b = candidate("cut-off", "b");
  proxy.stall();
  await b.until(() => b.terms.length === 1);
  expect(() => a.elector.fence()).toThrow(LeadershipLostError);
  await a.until(() => a.terms[0]?.ended === true);
  expect(a.terms[0]?.signal.aborted).toBe(true);
  b.elector.fence();
  proxy.forward();
});

test("a stolen Lease ends the term", async () => {
  await using a = candidate("stolen", "a");
  await a.until(() => a.terms.length === 1);
  const spec = { holderIdentity: "thief", leaseDurationSeconds: 3_600 };
  await direct.patch(LEASES, { namespace, name: "stolen" }, { spec }, { type: "merge" });
  await a.until(() => a.terms[0]?.ended === true);
  expect(a.terms[0]?.signal.aborted).toBe(true);
  expect(a.elector.holder).toBe("thief");
  await expect(a.client.fenced(() => a.elector.fence()).delete(CONFIG_MAPS, { namespace, name: "x" })).rejects.toThrow(
    LeadershipLostError,
  );
});

test("a process that wakes up from a pause sends no write", async () => {
  let pausedMs = 0;
  const clock: Clock = {
    now: () => realClock.now() + pausedMs,
    monotonic: () => realClock.monotonic() + pausedMs,
    setTimer: realClock.setTimer,
  };
  await using a = candidate("paused", "a", { clock });
  await a.until(() => a.terms.length === 1);
  const fenced = a.client.fenced(() => a.elector.fence());
  const object = (name: string) => ({ metadata: { name, namespace } });
  await fenced.create(CONFIG_MAPS, object("awake"));
  pausedMs = 4_000;
  await expect(fenced.create(CONFIG_MAPS, object("woken"))).rejects.toThrow(LeadershipLostError);
  await a.until(() => a.terms.length === 2);
  await fenced.create(CONFIG_MAPS, object("elected-again"));
  const { items } = await direct.list(CONFIG_MAPS, { namespace });
  const created = items.map(({ metadata }) => metadata.name).filter((name) => name !== "kube-root-ca.crt");
  expect(created).toEqual(["awake", "elected-again"]);
  expect(a.terms[0]?.signal.aborted).toBe(true);
});
