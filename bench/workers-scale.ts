import { writeFile } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import { parseArgs } from "node:util";
import { seededRandom } from "../simulator/ids.ts";
import { startSimulator } from "../simulator/simulator.ts";
import { API_VERSION, KIND } from "../src/api/names.ts";
import { realClock } from "../src/core/clock.ts";
import { KubeClient } from "../src/kube/client.ts";
import { loadKubeConfig } from "../src/kube/config.ts";
import { Informer } from "../src/kube/informer.ts";
import { DEPLOYMENTS, type Deployment, NAMESPACES, PODS, type Pod, SECRETS } from "../src/kube/resource.ts";
import { silentLogger } from "../src/observe/logger.ts";
import { ENVIRONMENTS } from "../src/sessions/environment-hold.ts";
import { startOperatorProcess } from "../test/support/operator-process.ts";
import { startCluster } from "../testbed/cluster/cluster.ts";
import { installBerth } from "../testbed/cluster/install.ts";
import { showProgress } from "../testbed/cluster/progress.ts";
import { startNode } from "../testbed/node/node.ts";
import { quantiles } from "./distribution.ts";
import { type Series, stepPlot } from "./plot.ts";

/**
 * Always-on workers from none to as many as are wanted and back: so many items with random busy times, the operator as a
 * process of its own, a real control plane, a simulated node, played workers. Fails when a busy worker was ended.
 * `--items 200 --max 200 --over 60 --busy 15-120 --seed 1 [--plot docs/workers-scale.svg]`
 */
const { values } = parseArgs({
  options: {
    items: { type: "string", default: "200" },
    max: { type: "string", default: "200" },
    over: { type: "string", default: "60" },
    busy: { type: "string", default: "15-120" },
    seed: { type: "string", default: "1" },
    plot: { type: "string" },
  },
});
const count = Number(values.items);
const maxReplicas = Number(values.max);
const overSeconds = Number(values.over);
const [leastBusy = 15, mostBusy = leastBusy] = values.busy.split("-").map(Number);
const seed = Number(values.seed);

const SECOND_MS = 1_000;
const NAMESPACE = "bench-workers";
const BUSY_PORT = 9000;
/** An item that was stopped so long before its worker was seen to be told to end may have been stopped by that. */
const JUST_BEFORE_MS = 100;
/** Far more than everything takes. */
const PATIENCE_MS = 30 * 60 * SECOND_MS;
/** The defaults of scale-up; a shorter memory on the way down, so that the plot shows more than a pause. */
const BEHAVIOR = {
  scaleDown: { stabilizationWindowSeconds: 30, policies: [{ type: "Percent", value: 50, periodSeconds: 15 }] },
};

const random = seededRandom(seed);
await using cluster = await startCluster({ progress: showProgress() });
await installBerth(cluster.api);
const kube = new KubeClient({ access: loadKubeConfig(cluster.kubeconfig), clock: realClock });
await kube.create(NAMESPACES, { metadata: { name: NAMESPACE } });
await using simulator = await startSimulator();
const { id: environmentId } = simulator.createEnvironment();
const key = simulator.environmentKey(environmentId);
await using _node = await startNode({
  client: await cluster.kubeconfigFor("berth-node"),
  name: "bench-node",
  seed,
  fates: () => ({
    kind: "poller",
    workMs: { min: leastBusy * SECOND_MS, max: mostBusy * SECOND_MS },
    busyPort: BUSY_PORT,
  }),
});

const told = new Set<string>();
let endedBusy = 0;

const watching = new AbortController();
const common = { client: kube, namespace: NAMESPACE, clock: realClock, logger: silentLogger };
const pods = new Informer<Pod>({ ...common, resource: PODS });
const deployments = new Informer<Deployment>({ ...common, resource: DEPLOYMENTS });
pods.subscribe(({ type, object: { metadata } }) => {
  const uid = metadata.uid ?? "";
  if (told.has(uid) || (type !== "deleted" && metadata.deletionTimestamp === undefined)) return;
  told.add(uid);
  // A worker that is told to end stops its item at once: one that was stopped just before is taken for such a one.
  const sinceMs = Date.now() - JUST_BEFORE_MS;
  const items = itemsOf(metadata.name).filter(({ stoppedAt }) => stoppedAt === undefined || stoppedAt > sinceMs);
  if (items.length === 0) return;
  endedBusy += 1;
  console.log(`worker ${metadata.name} was told to end while it had ${items.map(({ id }) => id).join(", ")}`);
});
const running = [pods.run(watching.signal), deployments.run(watching.signal)];

await kube.create(SECRETS, {
  metadata: { name: "key", namespace: NAMESPACE },
  stringData: { "environment-key": key },
});
await kube.create(ENVIRONMENTS, {
  apiVersion: API_VERSION,
  kind: KIND,
  metadata: { name: "bench", namespace: NAMESPACE },
  spec: {
    environmentId,
    api: { baseUrl: simulator.url, keySecretRef: { name: "key" } },
    workers: {
      maxReplicas,
      behavior: BEHAVIOR,
      busyProbe: { httpGet: { path: "/busy", port: BUSY_PORT } },
      template: {
        spec: { terminationGracePeriodSeconds: 5, containers: [{ name: "worker", image: "worker:1" }] },
      },
    },
  },
} as never);
const operator = await startOperatorProcess([
  ...["--kubeconfig", cluster.operatorKubeconfig, "--leader-elect=false", "--namespace", NAMESPACE],
  ...["--allowed-api-origins", simulator.url],
  ...["--metrics-bind-address", "127.0.0.1:0", "--health-probe-bind-address", "0"],
]);

const plotted = { wanted: [] as Point[], replicas: [] as Point[], busy: [] as Point[] };
interface Point {
  readonly seconds: number;
  readonly value: number;
}

console.log(
  `${count} items over ${overSeconds} s, each busy for ${leastBusy} to ${mostBusy} s, at most ${maxReplicas} workers, seed ${seed}`,
);
const atSeconds = Array.from({ length: count }, () => random() * overSeconds).toSorted((a, b) => a - b);
const arrivals = simulator.arrivals(environmentId, { kind: "replay", atSeconds });
const fromMs = realClock.monotonic();
await follow();
await arrivals.done;
await report();

watching.abort();
await operator.stop();
await Promise.all(running);
await kube.close();
if (endedBusy > 0) process.exitCode = 1;

/** What this worker took from the queue. */
function itemsOf(worker: string | undefined) {
  return simulator.items(environmentId).filter(({ acks }) => acks.at(-1)?.workerId === worker);
}

/** Takes a sample a second until everything is served and no worker is left. */
async function follow(): Promise<void> {
  for (;;) {
    const seconds = (realClock.monotonic() - fromMs) / SECOND_MS;
    const items = simulator.items(environmentId);
    const stopped = items.filter(({ state }) => state === "stopped").length;
    const replicas = deployments.list().reduce((sum, { spec }) => sum + (spec.replicas ?? 1), 0);
    plotted.wanted.push({ seconds, value: items.length - stopped });
    plotted.replicas.push({ seconds, value: replicas });
    plotted.busy.push({
      seconds,
      value: items.filter(({ state, acks }) => state !== "stopped" && acks.length > 0).length,
    });
    if (stopped === count && replicas === 0 && pods.list().length === 0) return;
    if (seconds * SECOND_MS > PATIENCE_MS)
      throw new Error(`${stopped} of ${count} items served, ${replicas} replicas left`);
    await pause(SECOND_MS);
  }
}

async function report(): Promise<void> {
  simulator.assertNoViolations();
  const items = simulator.items(environmentId);
  const twice = items.filter(({ acks }) => acks.length !== 1).length;
  const waited = items.map((item) => (item.acknowledgedAt ?? Number.NaN) - item.createdAt);
  const { p50, p90, max } = quantiles(waited);
  const most = (points: readonly Point[]) => Math.max(...points.map(({ value }) => value));
  const seconds = plotted.replicas.at(-1)?.seconds ?? 0;
  console.log(`served ${items.length} items in ${seconds.toFixed(0)} s, ${twice} of them not exactly once`);
  console.log(`workers: at most ${most(plotted.replicas)}, busy at most ${most(plotted.busy)}`);
  console.log(`busy workers ended: ${endedBusy} seen here, ${await endedWhileBusy()} counted by Berth`);
  console.log(
    `queued to acknowledged: ${[p50, p90, max].map((ms) => (ms / SECOND_MS).toFixed(1)).join(" / ")} s (p50/p90/max)`,
  );
  if (values.plot === undefined) return;
  const series: Series[] = [
    { name: "sessions waiting or running", color: "#d8e6f5", isArea: true, points: plotted.wanted },
    { name: "workers asked for", color: "#0969da", points: plotted.replicas },
    { name: "workers busy", color: "#bc4c00", points: plotted.busy },
  ];
  await writeFile(
    values.plot,
    stepPlot(`${count} sessions, busy for ${leastBusy} to ${mostBusy} s each (seed ${seed})`, series),
  );
}

/** `berth_worker_ended_while_busy_total`, of all Environments. */
async function endedWhileBusy(): Promise<number> {
  const reply = await fetch(`http://${operator.addresses.metrics}/metrics`);
  const lines = (await reply.text())
    .split("\n")
    .filter((text) => text.startsWith("berth_worker_ended_while_busy_total"));
  return lines.reduce((sum, text) => sum + Number(text.split(" ").at(-1)), 0);
}
