import { isDeepStrictEqual } from "node:util";
import type { EnqueueInput } from "../../../simulator/arrivals.ts";
import type { ItemRecord } from "../../../simulator/item.ts";
import type { ScriptInput } from "../../../simulator/script.ts";
import { END_REASONS, type EndReason } from "../../../src/api/reasons.ts";
import { hasStatus } from "../../../src/kube/errors.ts";
import { PODS, type Pod } from "../../../src/kube/resource.ts";
import { sumOf } from "./prometheus-text.ts";
import type { E2eWorld } from "./world.ts";

const HTTP_BAD_REQUEST = 400;

/** Far longer than a count takes once all that led to it was seen. */
const COUNTED_MS = 20_000;

/** One session under way. */
export interface Served {
  readonly item: ItemRecord;
  readonly pod: Pod;
}

/** Creates the Environment, queues one item when a Pod is parked, and waits until that is assigned to it. */
export async function serveOne(world: E2eWorld, input: EnqueueInput = {}): Promise<Served> {
  await world.createEnvironment();
  await world.untilParked(1);
  return await enqueueOne(world, input);
}

/** Queues an item of a world that serves already, and waits until a Pod is assigned to it. */
export async function enqueueOne(world: E2eWorld, input: EnqueueInput = {}): Promise<Served> {
  const item = await world.simulator.enqueue(world.environmentId, input);
  return { item, pod: await untilAssigned(world, item) };
}

/** More is said to the first session of a world, whose item is stopped: it is queued again, as an item of its own. */
export async function sayMore(world: E2eWorld, { item }: Served, script: ScriptInput): Promise<ItemRecord> {
  await world.simulator.sendMessage(item.sessionId ?? "", script);
  const again = (await world.simulator.items()).find(({ id }) => id !== item.id);
  if (!again) throw new Error("no item was queued");
  if (again.sessionId !== item.sessionId) throw new Error(`${again.id} is an item of another session`);
  return again;
}

/** The Pod that was given this item. */
export function untilAssigned(world: E2eWorld, item: ItemRecord): Promise<Pod> {
  return world.until(`a Pod with item ${item.id}`, () => podOf(world, item));
}

/** The newest Pod of an item as it is now; as it was seen last, when it is gone. */
export function podOf(world: E2eWorld, item: ItemRecord): Pod | undefined {
  return world.views.everyPod.findLast(({ metadata }) => metadata.annotations?.["berth.dev/work-id"] === item.id);
}

/** Waits for the item to be in this state. */
export function untilState(world: E2eWorld, item: ItemRecord, state: ItemRecord["state"]): Promise<ItemRecord> {
  return world.until(`item ${item.id} ${state}`, async () => {
    const now = await world.simulator.item(item.id);
    return now.state === state && now;
  });
}

/**
 * Waits until a session ended for this reason, and holds what everybody may rely on against it: the item is stopped, no
 * claim is left, the Environment and the Pod say why, it is counted once and under no other reason, and nobody broke the
 * protocol. For a world with one session, whose operators have not restarted since. Returns the Event's message and the
 * item's last record.
 */
export async function untilEnded(
  world: E2eWorld,
  { item, pod }: Served,
  reason: EndReason,
): Promise<{ message: string; last: ItemRecord }> {
  const { message, last } = await untilSettled(world, { item, pod }, reason);
  await expectCounted(world, { [reason]: 1 });
  return { message, last };
}

/**
 * So many sessions of a world ended for each of these reasons, and no other, as the metrics have it. Where no operator has
 * restarted since its first session.
 */
export async function expectCounted(world: E2eWorld, expected: Partial<Record<EndReason, number>>): Promise<void> {
  let counted: Record<string, number> = {};
  // A claim's Secret is gone a moment before its end is counted.
  const isAsExpected = async () => {
    const samples = await world.operators.samples();
    const own = { namespace: world.namespace, environment: world.name };
    const ends = Object.keys(END_REASONS).map((reason) => {
      return [reason, sumOf(samples, "berth_sessions_ended_total", { ...own, reason }) ?? 0] as const;
    });
    counted = Object.fromEntries(ends.filter(([, count]) => count > 0));
    return isDeepStrictEqual(counted, expected);
  };
  await world.until("all ends are counted", isAsExpected, COUNTED_MS).catch(async () => {
    // A lease that lapsed on a busy node makes two sessions of one.
    const history = JSON.stringify(await world.simulator.items(world.environmentId));
    throw new Error(`ended ${JSON.stringify(counted)}, not ${JSON.stringify(expected)}; items: ${history}`);
  });
}

/** As `untilEnded`, where counters say nothing: another operator counted, or several sessions ran. */
export async function untilSettled(
  world: E2eWorld,
  { item, pod }: Served,
  reason: EndReason,
): Promise<{ message: string; last: ItemRecord }> {
  await untilState(world, item, "stopped");
  await world.until(`the claim of item ${item.id} is gone`, () => {
    return !world.claims.some(({ metadata }) => metadata.name === pod.metadata.name);
  });
  const message = await untilTold(world, item, reason, "Pod", pod.metadata.name ?? "");
  if (END_REASONS[reason].failed) await untilTold(world, item, reason, "Environment", world.name);
  await untilSeen(world, pod);
  await world.simulator.assertNoViolations();
  return { message, last: await world.simulator.item(item.id) };
}

/** What is known of the Pod is as new as what the API server has: its watch may be behind those that told of the end. */
async function untilSeen(world: E2eWorld, { metadata: { name, uid } }: Pod): Promise<void> {
  const { items } = await world.kube.list(PODS, {
    namespace: world.namespace,
    fieldSelector: `metadata.name=${name}`,
  });
  const version = (pod: Pod | undefined) => Number(pod?.metadata.resourceVersion);
  const now = items.find(({ metadata }) => metadata.uid === uid);
  await world.until(`Pod ${name} as it is`, () => {
    const seen = world.pods.find(({ metadata }) => metadata.uid === uid);
    // One that was seen before and is not there was deleted since.
    return seen === undefined || (now !== undefined && version(seen) >= version(now));
  });
}

/** Waits for an Event about the end of a session, and returns its message. */
export function untilTold(
  world: E2eWorld,
  item: ItemRecord,
  reason: string,
  kind: string,
  name: string,
): Promise<string> {
  return world.until(`an Event ${reason} of ${kind} ${name}`, () => {
    const about = world
      .events(reason)
      .filter(({ involvedObject }) => involvedObject.kind === kind && involvedObject.name === name);
    return about.find(({ message }) => message?.includes(item.id))?.message;
  });
}

/** Waits until the session's container has written this. */
export function untilWritten(world: E2eWorld, pod: Pod, text: string): Promise<true> {
  return world.until(`${pod.metadata.name} writes ${text}`, async () => {
    try {
      return (await world.podLog(pod)).includes(text);
    } catch (error) {
      // So it is while the container waits to start.
      if (hasStatus(error, HTTP_BAD_REQUEST)) return false;
      throw error;
    }
  });
}

/** The Pod is gone from the API. */
export function untilGone(world: E2eWorld, pod: Pod): Promise<true> {
  return world.until(`Pod ${pod.metadata.name} gone`, () => {
    return !world.pods.some(({ metadata }) => metadata.uid === pod.metadata.uid);
  });
}

/** Waits until so many tool calls of a session are answered, and returns their outputs and whether they were errors. */
export async function untilAnswered(
  world: E2eWorld,
  item: ItemRecord,
  count: number,
): Promise<(readonly [output: string | undefined, isError: boolean | undefined])[]> {
  return await world.until(`${count} tool calls answered`, async () => {
    const { toolCalls } = await world.simulator.session(item.sessionId ?? "");
    const answered = toolCalls.filter(({ answeredAt }) => answeredAt !== undefined);
    return answered.length >= count && answered.map(({ output, isError }) => [output, isError] as const);
  });
}
