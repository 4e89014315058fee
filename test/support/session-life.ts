/** Steps of one session's life, from its assigned Pod to its counted end. */
import type { ItemRecord } from "../../simulator/item.ts";
import { END_REASONS, type EndReason } from "../../src/api/reasons.ts";
import { realClock, sleep } from "../../src/core/clock.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { readJournal } from "../../src/protocol/journal.ts";
import { Client, decodeSecret } from "../simulator/client.ts";
import { metricValue } from "./metric-value.ts";
import type { InProcessOperator, World } from "./world.ts";

/**
 * Options of a world whose leases fit the operator's faster timers. A heartbeat is due every 4 s. That is less than the
 * operator waits for an unchanged value (a twelfth of 50 s), and the lease outlives that wait.
 */
export const SHORT_LEASE = { simulator: { limits: { ttlSeconds: 8 } }, timeScale: 12 } as const;

/** A running session, and the operator that serves it. */
export interface Served {
  readonly operator: InProcessOperator;
  readonly item: ItemRecord;
  readonly pod: Pod;
}

/** Creates the Environment, starts an operator, queues one item and waits until a Pod is assigned to it. */
export async function serveOne(
  world: World,
  input: Parameters<World["simulator"]["enqueue"]>[1] = {},
): Promise<Served> {
  await world.createEnvironment();
  const operator = world.startOperator();
  await world.untilParked(1);
  const item = world.simulator.enqueue(world.environmentId, input);
  const pod = await untilAssigned(world, item);
  return { operator, item, pod };
}

/** Waits for the Pod that gets this item. */
export function untilAssigned(world: World, item: ItemRecord): Promise<Pod> {
  return world.until(`a Pod with item ${item.id}`, () => podOf(world, item));
}

export function podOf(world: World, item: ItemRecord): Pod | undefined {
  return world.pods.find(({ metadata }) => metadata.annotations?.["berth.dev/work-id"] === item.id);
}

/** Waits until the item has this state. */
export function untilState(world: World, item: ItemRecord, state: ItemRecord["state"]): Promise<ItemRecord> {
  return world.until(`item ${state}`, () => {
    const now = world.simulator.item(item.id);
    return now.state === state && now;
  });
}

/**
 * Waits until a session has ended for this reason, and checks what every user can rely on. The item is stopped, no
 * claim is left, Events on the Environment and the Pod say why, the end is counted once and under no other reason, and
 * there was no protocol violation. Returns the Event's message and the item's last record.
 */
export async function untilEnded(
  world: World,
  { operator, item, pod }: Served,
  reason: EndReason,
): Promise<{ message: string; last: ItemRecord }> {
  await world.until(`item ${item.id} stopped and its claim gone`, () => {
    return world.simulator.item(item.id).state === "stopped" && world.claims.length === 0;
  });
  const message = await untilTold(world, item, reason, "Pod", pod.metadata.name ?? "");
  if (END_REASONS[reason].failed) await untilTold(world, item, reason, "Environment", world.name);
  const labels = { namespace: world.namespace, environment: world.name };
  const counted = await metricValue(operator.metrics.sessionsEnded, { ...labels, reason });
  const all = await metricValue(operator.metrics.sessionsEnded, labels);
  if (counted !== 1 || all !== 1) throw new Error(`counted ${counted} as ${reason} and ${all} in all`);
  world.simulator.assertNoViolations();
  return { message, last: world.simulator.item(item.id) };
}

function untilTold(world: World, item: ItemRecord, reason: string, kind: string, name: string): Promise<string> {
  return world.until(`an Event ${reason} of ${kind} ${name}`, () => {
    const about = world
      .events(reason)
      .filter(({ involvedObject }) => involvedObject.kind === kind && involvedObject.name === name);
    return about.find(({ message }) => message?.includes(item.id))?.message;
  });
}

/** Waits until the Pod is deleted. */
export function untilGone(world: World, pod: Pod): Promise<true> {
  return world.until(`Pod ${pod.metadata.name} gone`, () => {
    return !world.pods.some(({ metadata }) => metadata.uid === pod.metadata.uid);
  });
}

/**
 * A client with the sessions token of an opened claim. Nothing binds a lease to a process, so a test can act as the
 * worker.
 */
export function workerClient(world: World, item: ItemRecord): Client | undefined {
  const secret = world.claims.find((claim) => readJournal(claim)?.workId === item.id);
  if (!secret?.data?.["work-secret"]) return undefined;
  const text = Buffer.from(secret.data["work-secret"], "base64").toString("utf8");
  const bearer = decodeSecret(text).sessions_token;
  return new Client({ url: world.simulator.url, environmentId: world.environmentId, bearer, userAgent: "played" });
}

/** The heartbeat interval of a worker that a test simulates. */
const PLAYED_BEAT_MS = 1_000;

/**
 * Simulates a worker that acquires the lease with its first heartbeat, continues, and ignores any stop. Resolves when
 * the first heartbeat is accepted. Like a real worker's, the heartbeats end with the container; they also end with the
 * scope, or when one is refused.
 */
export async function playWorker(world: World, item: ItemRecord): Promise<Disposable> {
  const worker = await world.until("the opened claim", () => workerClient(world, item));
  let last = await worker.mustBeat(item.id, "NO_HEARTBEAT");
  const ending = new AbortController();
  // The Pod outlives its container, and its item is then stopped, so no heartbeats are due.
  const runs = () => {
    const pod = podOf(world, item);
    return pod !== undefined && !pod.status?.containerStatuses?.some(({ state }) => state?.terminated);
  };
  const beatOn = async () => {
    // Send heartbeats one at a time: a second one with the same echo would be refused.
    while ((await sleep(realClock, PLAYED_BEAT_MS, ending.signal)) && runs())
      last = await worker.mustBeat(item.id, last);
  };
  beatOn().catch(() => {});
  return { [Symbol.dispose]: () => ending.abort() };
}

/** Another cluster's poller on the same queue. */
export function otherPoller(world: World, workerId = "other-cluster"): Client {
  const bearer = world.simulator.environmentKey(world.environmentId);
  return new Client({ url: world.simulator.url, environmentId: world.environmentId, bearer, workerId });
}
