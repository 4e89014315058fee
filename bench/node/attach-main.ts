import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { PODS } from "../../src/kube/resource.ts";
import { STARTED_MARKER, shellFrame } from "../../src/pods/frame.ts";
import type { AttachClientInput, HeldMessage, HoldMessage } from "./attach-client.ts";
import {
  type AttachOptions,
  type AttachResult,
  DELIVERIES,
  type Delivery,
  type Level,
  PASSED,
  type Passed,
} from "./attach-costs.ts";
import { type Inside, load, measureInside } from "./inside.ts";
import { plainPod } from "./plain-pods.ts";
import { PodView } from "./pod-view.ts";
import { programUsage, type Usage, usageOf } from "./processes.ts";
import { CONTAINER } from "./worker.ts";

/** The time after opening or closing connections until they are watched. */
const SETTLE_MS = 10_000;
/** The number of Pods to create at the same time. */
const CREATIONS = 4;
/** A rest for the node, so that deliveries don't compete with the programs of earlier ones. */
const BETWEEN_DELIVERIES_MS = 500;
const STARTED_WITHIN_MS = 60_000;
const NAMESPACE = "attach";

/** Measures attach connections on the node: see the scenario in scenarios/attach.ts. */
await measureInside<AttachOptions>(async (inside): Promise<AttachResult> => {
  await inside.stand.namespace(NAMESPACE);
  const pods = await makePods(inside);
  const levels = await measureLevels(inside, pods);
  return { levels, deliveries: await measureDeliveries(inside, pods) };
});

/** Creates Pods with a waiting shell. Returns their names. */
async function makePods({ stand, node, options }: Inside<AttachOptions>): Promise<string[]> {
  await using view = new PodView(stand.kube, NAMESPACE);
  const names = Array.from({ length: options.pods }, (_, at) => `waiting-${at + 1}`);
  const left = [...names];
  const create = async () => {
    for (let name = left.shift(); name !== undefined; name = left.shift()) {
      const baseUrl = `http://${node.address}`;
      const pod = await plainPod("shell", { namespace: NAMESPACE, name, baseUrl, environmentId: "none" });
      await stand.kube.create(PODS, pod);
      await view.until(`${name} to wait`, (pods) =>
        pods.some(({ metadata, status }) => metadata.name === name && status?.containerStatuses?.[0]?.state?.running),
      );
    }
  };
  await Promise.all(Array.from({ length: CREATIONS }, create));
  console.log(`${names.length} Pods wait`);
  return names;
}

async function measureLevels({ stand, options }: Inside<AttachOptions>, pods: readonly string[]): Promise<Level[]> {
  const { kubeconfig } = stand.cluster;
  const input: AttachClientInput = { kubeconfig, namespace: NAMESPACE, pods };
  const client = fork(new URL("./attach-client.ts", import.meta.url), [JSON.stringify(input)]);
  const levels: Level[] = [];
  const usage = async (): Promise<Record<Passed, Usage>> => {
    return { ...(await programUsage()), client: await usageOf([client.pid ?? 0]) };
  };
  for (const connections of options.levels) {
    const { openedMs } = await hold(client, connections);
    await pause(SETTLE_MS);
    const before = await usage();
    await pause(options.seconds * 1_000);
    const after = await usage();
    const { lost } = await hold(client, connections);
    const cores = record((name) => (after[name].cpuSeconds - before[name].cpuSeconds) / options.seconds);
    const rssBytes = record((name) => after[name].rssBytes);
    const metrics = String(await stand.kube.raw("GET", "/metrics"));
    const goroutines = Number(/^go_goroutines (\S+)$/m.exec(metrics)?.[1]);
    levels.push({ connections, load: load(), openedMs, lost, goroutines, cores, rssBytes });
    console.log(`${connections} connections, load ${load().toFixed(1)}: ${goroutines} goroutines`);
  }
  client.kill();
  await once(client, "exit");
  return levels;
}

async function hold(client: ChildProcess, connections: number): Promise<HeldMessage> {
  const answer = once(client, "message") as Promise<[HeldMessage]>;
  client.send({ connections } satisfies HoldMessage);
  return (await answer)[0];
}

function record<T>(of: (name: Passed) => T): Record<Passed, T> {
  return Object.fromEntries(PASSED.map((name) => [name, of(name)])) as Record<Passed, T>;
}

/** Delivers to each Pod once, in both ways in turn. */
async function measureDeliveries({ stand }: Inside<AttachOptions>, pods: readonly string[]): Promise<Delivery[]> {
  const deliveries: Delivery[] = [];
  const frame = shellFrame({ ANTHROPIC_SESSION_ID: "session", ANTHROPIC_WORK_ID: "work" }) ?? "";
  for (const [at, name] of pods.entries()) {
    const how = DELIVERIES[at % DELIVERIES.length] ?? "opened when needed";
    const open = () => stand.kube.attach({ namespace: NAMESPACE, name }, { container: CONTAINER });
    const ahead = how === "opened before" ? await open() : undefined;
    await pause(BETWEEN_DELIVERIES_MS);
    const startedAt = performance.now();
    const stream = ahead ?? (await open());
    const openedAt = performance.now();
    stream.send(frame);
    if (!(await stream.waitFor(STARTED_MARKER, AbortSignal.timeout(STARTED_WITHIN_MS)))) {
      throw new Error(`${name} did not start`);
    }
    const readAt = performance.now();
    deliveries.push({ how, openMs: ahead ? 0 : openedAt - startedAt, startedMs: readAt - openedAt });
    stream.close();
  }
  return deliveries;
}
