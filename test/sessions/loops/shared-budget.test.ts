import { beforeAll, describe, expect, test } from "vitest";
import { ApiError } from "../../../simulator/errors.ts";
import { json, type Reply } from "../../../simulator/http.ts";
import { RateLimit } from "../../../simulator/rate-limit.ts";
import { Budget, DEFAULT_BUDGET_LIMITS } from "../../../src/work/budget.ts";
import { VirtualClock } from "../../support/virtual-clock.ts";
import { LoopWorld } from "./loop-world.ts";
import { WorkApi } from "./work-api.ts";

const MINUTE = 60_000;

function tooMany(retryAfterSeconds: number | undefined): Reply {
  const { status, body } = new ApiError(429, "rate_limit_error", "too many requests");
  const headers = retryAfterSeconds === undefined ? {} : { "retry-after": String(retryAfterSeconds) };
  return { ...json(status, body), headers };
}

/** Environments that share one budget, Work API and clock, one per tenant, each with its own operator. */
function group(tenants: readonly string[]) {
  const clock = new VirtualClock();
  const budget = new Budget({ clock });
  const api = new WorkApi(clock);
  api.world.events.setMaxListeners(tenants.length + 1);
  const worlds = tenants.map((tenant, seed) => {
    const world = new LoopWorld({ clock, api, budget, tenant, seed, sessions: { warm: 1, maxConcurrent: 1 } });
    world.createEnvironment();
    world.startOperator();
    return world;
  });
  return { clock, budget, api, worlds };
}

/**
 * Polls in an hour of an Environment that gets work every minute, next to `refused` others in another namespace that
 * only get 429.
 */
async function pollsInAnHour(refused: number, retryAfterSeconds?: number) {
  const { budget, api, worlds } = group(["served", ...Array<string>(refused).fill("refused")]);
  const [served] = worlds as [LoopWorld];
  const seen = { polls: 0, refusals: 0, lowestRate: budget.rate };
  api.answer = (call, { path }) => {
    seen.lowestRate = Math.min(seen.lowestRate, budget.rate);
    if (path.includes(`/${served.environmentId}/`)) {
      seen.polls += call === "poll" ? 1 : 0;
      return undefined;
    }
    seen.refusals += 1;
    return tooMany(retryAfterSeconds);
  };
  await served.pass(5 * MINUTE);
  seen.polls = 0;
  for (let minute = 0; minute < 60; minute += 1) {
    served.enqueue();
    await served.pass(MINUTE);
  }
  expect([...served.wrongs, ...served.violations]).toEqual([]);
  return seen;
}

describe("an Environment keeps its pace while another namespace in its budget group only gets 429", () => {
  let alone: ReturnType<typeof pollsInAnHour>;
  beforeAll(() => {
    alone = pollsInAnHour(0);
  });

  test.each([
    ["with Retry-After: 300", 1, 300],
    ["without Retry-After", 1, undefined],
    ["in five Environments without Retry-After", 5, undefined],
  ])("%s", { timeout: 60_000 }, async (_words, refused, retryAfterSeconds) => {
    const { polls } = await alone;
    const beside = await pollsInAnHour(refused, retryAfterSeconds);
    expect(polls).toBeGreaterThan(1_500);
    expect(beside.refusals).toBeGreaterThan(10);
    expect(beside.polls).toBeGreaterThan(0.95 * polls);
    expect(beside.lowestRate).toBe(DEFAULT_BUDGET_LIMITS.initialRate);
  });
});

test("all namespaces slow down when their organization reaches its limit", async () => {
  const { clock, budget, api, worlds } = group(["one", "two", "three"]);
  const limit = new RateLimit(60, clock.now());
  let answered = 0;
  let refusals = 0;
  api.answer = (_call, { method }) => {
    const waitSeconds = method === "GET" ? limit.take(clock.now()) : 0;
    answered += 1;
    if (waitSeconds === 0) return undefined;
    refusals += 1;
    return tooMany(waitSeconds);
  };
  const ids = worlds.flatMap((world) => Array.from({ length: 10 }, () => [world, world.enqueue()] as const));
  const [first] = worlds as [LoopWorld];
  let lowestRate = budget.rate;
  await first.until(
    "all items are served",
    () => {
      lowestRate = Math.min(lowestRate, budget.rate);
      return worlds.every((world) => world.isSettled);
    },
    60 * MINUTE,
  );
  expect(lowestRate).toBeLessThanOrEqual(DEFAULT_BUDGET_LIMITS.initialRate / 8);
  expect(refusals).toBeGreaterThan(0);
  // 0.16 to 0.23 with other seeds.
  expect(refusals / answered).toBeLessThan(0.25);
  expect(ids.map(([world, id]) => world.item(id).acks.length)).toEqual(Array(30).fill(1));
  for (const world of worlds) expect([...world.wrongs, ...world.violations]).toEqual([]);
});
