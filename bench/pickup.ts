import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { parseArgs } from "node:util";
import { seededRandom } from "../simulator/ids.ts";
import { type Simulator, startSimulator } from "../simulator/simulator.ts";
import { parseEnvironment } from "../src/api/environment.ts";
import { API_VERSION, KIND } from "../src/api/names.ts";
import { realClock } from "../src/core/clock.ts";
import { KubeClient } from "../src/kube/client.ts";
import { loadKubeConfig } from "../src/kube/config.ts";
import { Informer } from "../src/kube/informer.ts";
import { NAMESPACES, PODS, type Pod, SECRETS } from "../src/kube/resource.ts";
import { silentLogger } from "../src/observe/logger.ts";
import { ENVIRONMENTS } from "../src/sessions/environment-hold.ts";
import { newPodName, sessionTemplate } from "../src/sessions/pod-render.ts";
import { startOperatorProcess } from "../test/support/operator-process.ts";
import { startCluster } from "../testbed/cluster/cluster.ts";
import { installBerth } from "../testbed/cluster/install.ts";
import { showProgress } from "../testbed/cluster/progress.ts";
import { OPERATOR } from "../testbed/cluster/users.ts";
import { startNode } from "../testbed/node/node.ts";
import { HEADER, quantiles, row } from "./distribution.ts";

/**
 * Pick-up: from an item's arrival in the queue to its Pod touched and to its first heartbeat, for Berth and for a bare
 * loop of the same calls, in one run on one API server. `--seconds 60 --rate 5 --warm 10 [--stock] [--seed 1]`
 */
const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    rate: { type: "string", default: "5" },
    warm: { type: "string", default: "10" },
    seed: { type: "string", default: "1" },
    stock: { type: "boolean", default: false },
  },
});
const seconds = Number(values.seconds);
const ratePerSecond = Number(values.rate);
const warm = Number(values.warm);
const seed = Number(values.seed);

/** What a Pod's watch shows of a touch, by work id: the same eyes for both. */
class Touches {
  readonly at = new Map<string, number>();
  readonly #informer: Informer<Pod>;
  constructor(kube: KubeClient, namespace: string, signal: AbortSignal) {
    this.#informer = new Informer({ client: kube, resource: PODS, namespace, clock: realClock, logger: silentLogger });
    this.#informer.subscribe(({ object }) => {
      const workId = object.metadata.labels?.["berth.dev/work-id"];
      if (workId !== undefined && !this.at.has(workId)) this.at.set(workId, Date.now());
    });
    void this.#informer.run(signal);
  }
  get parked(): string[] {
    return this.#informer
      .list()
      .filter(({ status }) =>
        status?.containerStatuses?.some(({ state }) => state?.waiting?.reason === "CreateContainerConfigError"),
      )
      .map(({ metadata }) => metadata.name ?? "");
  }
}

await using cluster = await startCluster({ progress: showProgress() });
await installBerth(cluster.api);
const kube = new KubeClient({ access: loadKubeConfig(cluster.kubeconfig), clock: realClock });
const worker = new URL("../examples/worker/worker.mjs", import.meta.url).pathname;
await using _node = await startNode({
  client: await cluster.kubeconfigFor("berth-node"),
  name: "bench-node",
  seed,
  ...(values.stock ? { runtime: "process" as const } : { fates: () => ({ kind: "worker" as const, workMs: 1_000 }) }),
});
const container = values.stock
  ? {
      name: "worker",
      image: "worker:1",
      command: [process.execPath, worker],
      env: [{ name: "BERTH_WORKER_MAX_IDLE_MS", value: "500" }],
    }
  : { name: "worker", image: "worker:1" };

console.log(
  `Poisson arrivals, ${ratePerSecond} a second for ${seconds} s, seed ${seed}, ${values.stock ? "stock workers" : "scripted containers"}\n`,
);
console.log(HEADER);
const bare = await measure("bare", bareLoop);
const berth = await measure("berth", operator);
const ratio = (of: "opened" | "beat", share: "p50" | "p99") =>
  (quantiles(berth[of])[share] / quantiles(bare[of])[share]).toFixed(2);
console.log(
  `\nberth / bare loop: queued to opened p50 ${ratio("opened", "p50")}, p99 ${ratio("opened", "p99")}; queued to first beat p50 ${ratio("beat", "p50")}, p99 ${ratio("beat", "p99")}`,
);
await kube.close();

interface Served {
  readonly opened: number[];
  readonly beat: number[];
}

type Serve = (
  namespace: string,
  simulator: Simulator,
  environmentId: string,
  count: number,
  touches: Touches,
) => Promise<() => Promise<void>>;

async function measure(name: string, serve: Serve): Promise<Served> {
  const namespace = `bench-${name}`;
  await kube.create(NAMESPACES, { metadata: { name: namespace } });
  await using simulator = await startSimulator();
  const { id } = simulator.createEnvironment();
  const watching = new AbortController();
  const touches = new Touches(kube, namespace, watching.signal);
  const times = arrivalTimes();
  const end = await serve(namespace, simulator, id, times.length, touches);
  const audit = await cluster.audit.mark();
  const arrivals = simulator.arrivals(id, { kind: "replay", atSeconds: times });
  await arrivals.done;
  await simulator.waitFor(() => simulator.items(id).every(({ state }) => state === "stopped"), {
    what: "every item to be served",
    timeoutMs: 120_000,
  });
  await end();
  const counts = await cluster.audit.counts({ since: audit });
  watching.abort();
  simulator.assertNoViolations();
  const opened: number[] = [];
  const beat: number[] = [];
  for (const item of simulator.items(id)) {
    const touchedAt = touches.at.get(item.id);
    if (touchedAt === undefined || item.firstBeatAt === undefined) throw new Error(`${item.id} was not served`);
    opened.push(touchedAt - item.createdAt);
    beat.push(item.firstBeatAt - item.createdAt);
  }
  const since = (at: (item: ReturnType<typeof simulator.item>) => number | undefined) =>
    simulator.items(id).map((item) => (at(item) ?? Number.NaN) - item.createdAt);
  console.log(
    row(
      `${name}: queued to offered`,
      since(({ offeredAt }) => offeredAt),
    ),
  );
  console.log(
    row(
      `${name}: queued to acknowledged`,
      since(({ acknowledgedAt }) => acknowledgedAt),
    ),
  );
  console.log(row(`${name}: queued to opened`, opened));
  console.log(row(`${name}: queued to first beat`, beat));
  const own = counts.filter(({ user }) => user === OPERATOR);
  const sum = (of: typeof own) => of.reduce((total, { count }) => total + count, 0);
  const apart = own.filter(({ resource }) => resource === "events" || resource === "leases");
  console.log(
    `  requests to the API server per session: ${((sum(own) - sum(apart)) / times.length).toFixed(2)}, events ${(sum(own.filter(({ resource }) => resource === "events")) / times.length).toFixed(2)}`,
  );
  if (process.env.BENCH_VERBOSE)
    for (const { verb, resource, subresource, code, count } of own)
      console.log(`    ${verb} ${resource} ${subresource} ${code}: ${count}`);
  return { opened, beat };
}

/** The same times for both. */
function arrivalTimes(): number[] {
  const random = seededRandom(seed);
  const times: number[] = [];
  for (let at = 0; ; ) {
    at += -Math.log(1 - random()) / ratePerSecond;
    if (at > seconds) return times;
    times.push(at);
  }
}

function specOf(simulator: Simulator, environmentId: string) {
  return {
    environmentId,
    api: { baseUrl: simulator.url, keySecretRef: { name: "key" } },
    sessions: { maxConcurrent: 200, warm, retainFinishedSeconds: 0, template: { spec: { containers: [container] } } },
  };
}

/** All Pods stand parked before the first item comes: refilling is no part of the limit. */
async function bareLoop(
  namespace: string,
  simulator: Simulator,
  environmentId: string,
  count: number,
  touches: Touches,
) {
  const metadata = {
    name: "bench",
    namespace,
    uid: "00000000-0000-4000-8000-000000000000",
    generation: 1,
    resourceVersion: "1",
    creationTimestamp: new Date().toISOString(),
  };
  const parsed = parseEnvironment({
    apiVersion: API_VERSION,
    kind: KIND,
    metadata,
    spec: specOf(simulator, environmentId),
  });
  if (!parsed.ok) throw new Error(parsed.problems.join("; "));
  const template = sessionTemplate(parsed.environment);
  for (let made = 0; made < count; made += 1) {
    const pod = template.render(newPodName("bench"));
    delete pod.metadata.ownerReferences;
    await kube.create(PODS, pod);
  }
  while (touches.parked.length < count) await pause(100);
  const input = {
    kubeconfig: cluster.operatorKubeconfig,
    baseUrl: simulator.url,
    environmentId,
    key: simulator.environmentKey(environmentId),
    namespace,
    podNames: touches.parked,
    count,
  };
  const child = spawn(process.execPath, [new URL("./bare-loop.ts", import.meta.url).pathname, JSON.stringify(input)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = once(child, "exit");
  await once(createInterface({ input: child.stdout }), "line");
  return async () => {
    await ended;
  };
}

async function operator(
  namespace: string,
  simulator: Simulator,
  environmentId: string,
  _count: number,
  touches: Touches,
) {
  await kube.create(SECRETS, {
    metadata: { name: "key", namespace },
    stringData: { "environment-key": simulator.environmentKey(environmentId) },
  });
  await kube.create(ENVIRONMENTS, {
    apiVersion: API_VERSION,
    kind: KIND,
    metadata: { name: "bench", namespace },
    spec: specOf(simulator, environmentId),
  } as never);
  const flags = [
    "--kubeconfig",
    cluster.operatorKubeconfig,
    "--leader-elect=false",
    "--namespace",
    namespace,
    "--allowed-api-origins",
    simulator.url,
  ];
  const running = await startOperatorProcess([
    ...flags,
    "--metrics-bind-address",
    "0",
    "--health-probe-bind-address",
    "0",
  ]);
  while (touches.parked.length < warm) await pause(100);
  return async () => {
    await running.stop();
  };
}
