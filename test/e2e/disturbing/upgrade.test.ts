import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import type { ItemRecord } from "../../../simulator/item.ts";
import { bashScript } from "../../../simulator/script.ts";
import { realClock, sleep } from "../../../src/core/clock.ts";
import { LEASES, type Pod } from "../../../src/kube/resource.ts";
import { CHART } from "../../../tools/helm.ts";
import { rollbackBerthChart, upgradeBerthChart } from "../support/install.ts";
import { execIn } from "../support/kubectl.ts";
import { e2eCluster, OPERATOR_NAMESPACE, OPERATOR_REPLICAS } from "../support/provided.ts";
import { serveOne, untilAnswered, untilState, untilTold } from "../support/session-life.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

const UNTIL_TOLD = "until [ -e go ]; do sleep 0.2; done; echo done";
/** A worker gives up a command after two minutes; a rollout may take longer, so further commands keep waiting. */
const LONG = bashScript(...Array.from({ length: 4 }, () => UNTIL_TOLD));
/** Enough that each of two shards has some. */
const ENVIRONMENTS = 3;
/** Between two arrivals, over all worlds: several in each phase of a rollout, and no more than a small node can run. */
const ARRIVAL_MS = 1_500;

afterEach(async (context) => {
  if (context.task.result?.state === "skip") return;
  // Restores the release that all other tests expect. If nothing changed, nothing rolls out.
  await upgradeBerthChart(e2eCluster());
});

/** Queues items periodically in each of the worlds while `act` runs. Returns the items of each world. */
async function whileArriving(worlds: readonly E2eWorld[], act: () => Promise<void>): Promise<ItemRecord[][]> {
  const ended = new AbortController();
  const arrivals = worlds.map(async (world) => {
    const items: ItemRecord[] = [];
    do {
      items.push(await world.simulator.enqueue(world.environmentId, { script: bashScript("echo $((20 + 22))") }));
    } while (await sleep(realClock, ARRIVAL_MS * worlds.length, ended.signal));
    return items;
  });
  try {
    await act();
  } finally {
    ended.abort();
  }
  return await Promise.all(arrivals);
}

/** Checks that each item was acknowledged once, in one Pod, and answered by its program. */
async function assertServedOnce(world: E2eWorld, items: readonly ItemRecord[]): Promise<void> {
  await world.untilServed(items.length);
  for (const item of items) {
    const { id, sessionId } = item;
    const { acks, state, stoppedBy } = await world.simulator.item(id);
    expect({ id, acks: acks.length, state, by: stoppedBy?.as }).toEqual({
      ...{ id, acks: 1, state: "stopped", by: "sessions-token" },
    });
    const { toolCalls } = await world.simulator.session(sessionId ?? "");
    expect(new Set(toolCalls.map(({ answeredBy }) => answeredBy))).toEqual(new Set([id]));
    const [pod, ...others] = podsOf(world, id);
    expect(others).toEqual([]);
    await untilTold(world, item, "Completed", "Pod", pod?.metadata.name ?? "");
  }
  await world.simulator.assertNoViolations();
}

const podsOf = (world: E2eWorld, workId: string) =>
  world.views.everyPod.filter(({ metadata }) => metadata.annotations?.["berth.dev/work-id"] === workId);

const names = (pods: readonly Pod[]) => pods.map(({ metadata }) => metadata.name).sort();
const argsOf = (pods: readonly Pod[]) => pods.map(({ spec }) => spec.containers[0]?.args);

function firstOf<T>([first]: readonly T[]): T {
  if (first === undefined) throw new Error("there is none");
  return first;
}

/** The chart as a later version might be: another CRD, and an extended Pod template. */
async function laterChart(): Promise<{ readonly path: string } & AsyncDisposable> {
  const dir = await mkdtemp(join(tmpdir(), "berth-chart-"));
  const path = join(dir, "berth");
  await cp(CHART, path, { recursive: true });
  const crd = join(path, "templates/crds.yaml");
  const text = await readFile(crd, "utf8");
  const later = text.replace("description: The desired state.", "description: What a later version wants.");
  if (later === text) throw new Error("the CRD's text has changed: fix this test");
  await writeFile(crd, later);
  const chart = join(path, "Chart.yaml");
  await writeFile(chart, (await readFile(chart, "utf8")).replace(/^version: .*$/m, "version: 99.0.0"));
  return { path, [Symbol.asyncDispose]: () => rm(dir, { recursive: true }) };
}

async function crdText(world: E2eWorld): Promise<string> {
  const path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/environments.berth.dev";
  return JSON.stringify(await world.kube.raw("GET", path));
}

test("helm upgrade and rollback under load lose no session and serve none twice", async () => {
  await using chart = await laterChart();
  await using world = await startE2eWorld({ sessions: { maxConcurrent: 6, warm: 2 } });
  const first = await serveOne(world, { script: LONG });
  await untilState(world, first.item, "active");
  const before = await world.operators.readyPods();
  expect(before).toHaveLength(OPERATOR_REPLICAS);

  const [arrived = []] = await whileArriving([world], async () => {
    const values = { logLevel: "trace", podAnnotations: { "example.com/later": "true" }, podLabels: { later: "true" } };
    await upgradeBerthChart(world.cluster, { ...values, extraArgs: ["--leader-elect=true"] }, chart.path);
  });
  const upgraded = await world.operators.readyPods();
  expect(upgraded).toHaveLength(OPERATOR_REPLICAS);
  expect(names(upgraded).some((name) => names(before).includes(name))).toBe(false);
  for (const args of argsOf(upgraded)) expect(args).toEqual(expect.arrayContaining(["--log-level=trace"]));
  expect(await crdText(world)).toContain("What a later version wants.");

  const [rolled = []] = await whileArriving([world], () => rollbackBerthChart(world.cluster));
  expect(await crdText(world)).not.toContain("What a later version wants.");
  expect(argsOf(await world.operators.readyPods())).toEqual(argsOf(before));

  // The first session ran through both rollouts.
  expect(podsOf(world, first.item.id).map(({ metadata }) => metadata.uid)).toEqual([first.pod.metadata.uid]);
  await execIn(world, first.pod, ["touch", "go"]);
  expect((await untilAnswered(world, first.item, 4)).at(-1)).toEqual(["done", false]);
  await assertServedOnce(world, [...arrived, ...rolled, first.item]);
  expect(await world.simulator.excused()).toEqual([]);
});

test("a rollout with two shards, and one from one shard to two, lose no session", async () => {
  await using stack = new AsyncDisposableStack();
  const worlds: E2eWorld[] = [];
  for (let n = 0; n < ENVIRONMENTS; n += 1) worlds.push(stack.use(await startE2eWorld()));
  const firsts = await Promise.all(worlds.map((world) => serveOne(world, { script: LONG })));
  const world = firstOf(worlds);
  const { cluster, kube } = world;
  // From one shard to two, and then a rollout from two to two.
  const parted = await whileArriving(worlds, () => upgradeBerthChart(cluster, { shards: 2 }));
  const rolled = await whileArriving(worlds, () =>
    upgradeBerthChart(cluster, { shards: 2, podAnnotations: { later: "true" } }),
  );
  // The last old replica may still be terminating.
  await world.until("all replicas, and only they, hold Leases", async () => {
    const { items } = await kube.list(LEASES, { namespace: OPERATOR_NAMESPACE });
    const holders = items.map(({ spec }) => spec?.holderIdentity).filter((holder) => holder);
    return new Set(holders).size === OPERATOR_REPLICAS;
  });
  for (const [n, one] of worlds.entries()) {
    const first = firstOf(firsts.slice(n));
    await execIn(one, first.pod, ["touch", "go"]);
    await assertServedOnce(one, [...(parted[n] ?? []), ...(rolled[n] ?? []), first.item]);
  }
});
