import { createAdmin } from "../../simulator/admin.ts";
import type { Caller } from "../../simulator/caller.ts";
import { ApiServer } from "../../simulator/server.ts";
import { Simulator } from "../../simulator/simulator.ts";
import { limitsSchema, NO_HEARTBEAT, switchesSchema } from "../../simulator/switches.ts";
import { violationText } from "../../simulator/violations.ts";
import { Webhooks } from "../../simulator/webhooks.ts";
import { World } from "../../simulator/world.ts";
import { realClock } from "../../src/core/clock.ts";
import { BeatRecord } from "./beat-record.ts";
import type { Answers, Ask, LiveEnvironment, LiveItem, LiveWorkInput } from "./live-work.ts";

/**
 * A simulator of the Work API in its own process, with items that are live from the start: they are acknowledged, and a
 * previous operator sends their heartbeats until it's told to hand them over. The process talks to live-work.ts over
 * the IPC channel.
 */
const { environments, sessions, ttlSeconds, desiredTtlSeconds, beatMs } = JSON.parse(
  process.argv[2] ?? "{}",
) as LiveWorkInput;

const limits = limitsSchema.parse({});
const world = new World({
  clock: realClock,
  scale: 1,
  switches: switchesSchema.parse({}),
  limits,
  apiKey: undefined,
  seed: 1,
});
const simulator: Simulator = new Simulator(
  world,
  new ApiServer(
    world,
    createAdmin(() => simulator, undefined),
  ),
  new Webhooks(realClock, () => {}),
);
await simulator.listen(0, "127.0.0.1");

const BEFORE = "operator-of-before";
/** Heartbeats are sent for one of this number of groups at a time. */
const PARTS = 50;

const made = await makeLive();
const workIds = made.flatMap(({ items }) => items.map(({ workId }) => workId));
const record = new BeatRecord(workIds);
world.events.on("request", ({ call, status, workId, workerId }) => {
  if (call === "heartbeat" && status === 200 && workId !== undefined) record.beat(workId, workerId ?? "", Date.now());
});
let part = 0;
const keeping = setInterval(() => {
  for (let at = part; at < workIds.length; at += PARTS) beat(workIds[at] ?? "");
  part = (part + 1) % PARTS;
}, beatMs / PARTS);

process.on("message", ({ id, ask }: { id: number; ask: Ask }) => process.send?.({ id, answer: answer(ask) }));
process.once("disconnect", () => process.exit(0));
process.send?.({ id: 0, answer: { url: simulator.url, environments: made } });

function answer(ask: Ask): Answers[Ask["do"]] {
  switch (ask.do) {
    case "hand-over":
      clearInterval(keeping);
      if (ask.fresh) for (const workId of workIds) beat(workId);
      if (ttlSeconds !== undefined) Object.assign(limits, { maxTtlSeconds: ttlSeconds });
      return null;
    case "mark":
      return record.mark();
    case "beats":
      return record.summary(ask.intervalMs);
    case "account": {
      const states: Record<string, number> = {};
      for (const workId of workIds) {
        const { state } = world.item(workId);
        states[state] = (states[state] ?? 0) + 1;
      }
      return { states, violations: world.violations.map(violationText) };
    }
    default:
      return ask satisfies never;
  }
}

async function makeLive(): Promise<LiveEnvironment[]> {
  const all: LiveEnvironment[] = [];
  for (let at = 0; at < environments; at += 1) {
    const { id, key } = simulator.createEnvironment();
    const count = Math.floor(sessions / environments) + (at < sessions % environments ? 1 : 0);
    const items: LiveItem[] = [];
    for (let made = 0; made < count; made += 1) items.push(await makeItem(id));
    all.push({ id, key, items });
  }
  return all;
}

async function makeItem(environmentId: string): Promise<LiveItem> {
  world.enqueue(environmentId);
  const claimed = await world.claim(environmentId, BEFORE);
  if (!claimed?.secret) throw new Error("a new item was not offered");
  const { item, secret } = claimed;
  world.environment(environmentId).heartbeat(item.id, callerOf(environmentId), wish(NO_HEARTBEAT));
  const time = (ms: number | undefined) => new Date(ms ?? Number.NaN).toISOString();
  return {
    workId: item.id,
    sessionId: item.data.id,
    secret,
    queuedAt: time(item.createdAt),
    acknowledgedAt: time(item.acknowledgedAt),
    polledMs: item.offers[0]?.at ?? Number.NaN,
  };
}

function beat(workId: string): void {
  const item = world.item(workId);
  world.deadlines.runDue();
  world.environment(item.environmentId).heartbeat(workId, callerOf(item.environmentId), wish(item.lastHeartbeat ?? ""));
}

function wish(expected: string) {
  return { expected, desiredTtlSeconds };
}

function callerOf(environmentId: string): Caller {
  const credential = { kind: "environment-key", environmentId } as const;
  return { credential, workerId: BEFORE, userAgent: "", remote: "127.0.0.1", excuse: undefined };
}
