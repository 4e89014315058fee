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

/** Far longer than the metrics take to count what was already observed. */
const COUNTED_MS = 20_000;

/** A running session. */
export interface Served {
  readonly item: ItemRecord;
  readonly pod: Pod;
}

/** Creates the Environment, queues one item once a Pod is parked, and waits until a Pod is assigned to it. */
export async function serveOne(world: E2eWorld, input: EnqueueInput = {}): Promise<Served> {
  await world.createEnvironment();
  await world.untilParked(1);
  return await enqueueOne(world, input);
}

/** Queues an item in a world that already serves, and waits until a Pod is assigned to it. */
export async function enqueueOne(world: E2eWorld, input: EnqueueInput = {}): Promise<Served> {
  const item = await world.simulator.enqueue(world.environmentId, input);
  return { item, pod: await untilAssigned(world, item) };
}

/**
 * Sends another message to a session. Its last item is stopped, so the session is queued again as a new item, which is
 * returned.
 */
export async function sayMore(
  world: E2eWorld,
  { item: { sessionId = "" } }: Pick<Served, "item">,
  script: ScriptInput,
): Promise<ItemRecord> {
  const earlier = new Set((await world.simulator.items()).map(({ id }) => id));
  await world.simulator.sendMessage(sessionId, script);
  const again = (await world.simulator.items()).find((item) => item.sessionId === sessionId && !earlier.has(item.id));
  if (!again) throw new Error(`no item of session ${sessionId} was queued`);
  return again;
}

/** Waits for the Pod that is assigned to this item. */
export function untilAssigned(world: E2eWorld, item: ItemRecord): Promise<Pod> {
  return world.until(`a Pod with item ${item.id}`, () => podOf(world, item));
}

/** The newest Pod of an item in its current state; in its last known state if it is deleted. */
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
 * Waits until a session ended for this reason, and checks what must always hold: the item is stopped, no claim is left,
 * the Environment and the Pod name the reason, the end is counted once and under no other reason, and no client broke
 * the protocol. For a world with one session whose operators have not restarted since. Returns the Event's message and
 * the item's last record.
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
 * Checks by the metrics how many sessions of a world ended for each of these reasons, and that none ended for another.
 * Only valid if no operator has restarted since the first session.
 */
export async function expectCounted(world: E2eWorld, expected: Partial<Record<EndReason, number>>): Promise<void> {
  let counted: Record<string, number> = {};
  // The operator counts the end a moment after it deletes the claim's Secret.
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
    // A lease that lapsed on a busy node turns one session into two.
    const history = JSON.stringify(await world.simulator.items(world.environmentId));
    throw new Error(`ended ${JSON.stringify(counted)}, not ${JSON.stringify(expected)}; items: ${history}`);
  });
}

/** Like `untilEnded`, but without the counters, for worlds where another operator counted or several sessions ran. */
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

/** Waits until the Pod watch is as new as the API server's state; it may lag behind the watches that showed the end. */
async function untilSeen(world: E2eWorld, { metadata: { name, uid } }: Pod): Promise<void> {
  const { items } = await world.kube.list(PODS, {
    namespace: world.namespace,
    fieldSelector: `metadata.name=${name}`,
  });
  const version = (pod: Pod | undefined) => Number(pod?.metadata.resourceVersion);
  const now = items.find(({ metadata }) => metadata.uid === uid);
  await world.until(`the current state of Pod ${name}`, () => {
    const seen = world.pods.find(({ metadata }) => metadata.uid === uid);
    // A Pod that was seen before and no longer exists was deleted since.
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

/** Waits until the session's container has written this text. */
export function untilWritten(world: E2eWorld, pod: Pod, text: string): Promise<true> {
  return world.until(`${pod.metadata.name} writes ${text}`, async () => {
    try {
      return (await world.podLog(pod)).includes(text);
    } catch (error) {
      // The API server answers this while the container waits to start.
      if (hasStatus(error, HTTP_BAD_REQUEST)) return false;
      throw error;
    }
  });
}

/** Waits until the Pod is deleted. */
export function untilGone(world: E2eWorld, pod: Pod): Promise<true> {
  return world.until(`Pod ${pod.metadata.name} gone`, () => {
    return !world.pods.some(({ metadata }) => metadata.uid === pod.metadata.uid);
  });
}

/**
 * Waits until this many tool calls of a session are answered, and returns their outputs and whether they were errors.
 */
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
