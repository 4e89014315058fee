import fc from "fast-check";
import { expect, test } from "vitest";
import { createLogger } from "../../../src/observe/logger.ts";
import type { HttpReply, HttpRequest } from "../../../src/work/http.ts";
import { mutation, pathsOf, replaced } from "../../support/malformed-values.ts";
import { LoopWorld } from "./loop-world.ts";
import { WorkApi } from "./work-api.ts";

const MINUTE = 60_000;
/** How long the Work API sends false replies. One in ONE_IN is false. */
const LIES_MS = 3 * MINUTE;
const ONE_IN = 3;
/** A generous bound for the loops' own pace: this world has no request budget. */
const MOST_IN_A_SECOND = 60;
const SEEDS = 15;

/** Response headers that may be falsified, whatever the call. */
const HEADERS = ["date", "retry-after", "content-encoding", "content-type"];

/** A world whose Work API acts correctly but falsifies replies while `lies` is on. */
function lyingWorld(seed: number) {
  const world = new LoopWorld({
    seed,
    sessions: { maxConcurrent: 4, warm: 1, lease: seed % 2 ? "Operator" : "Worker" },
  });
  const state = { lies: true, told: [] as string[], perSecond: new Map<number, number>() };
  world.api.sender = (link, clock) => {
    const inner = WorkApi.prototype.sender.call(world.api, link, clock);
    return {
      send: async (request) => {
        const second = Math.floor(world.clock.monotonic() / 1_000);
        state.perSecond.set(second, (state.perSecond.get(second) ?? 0) + 1);
        const reply = await inner.send(request);
        return state.lies && world.random() < 1 / ONE_IN ? lie(reply, request) : reply;
      },
    };
  };
  const lie = (reply: HttpReply, { path }: HttpRequest): HttpReply => {
    const seedOfLie = Math.floor(world.random() * 2 ** 31);
    const body: unknown = reply.body.length === 0 ? null : JSON.parse(reply.body.toString());
    const one = <T>(of: fc.Arbitrary<T>): T => fc.sample(of, { seed: seedOfLie, numRuns: 1 })[0] as T;
    if (world.random() < 0.1) {
      const [name, value] = one(fc.tuple(fc.constantFrom(...HEADERS), fc.string()));
      state.told.push(`${path}: ${name}: ${value}`);
      return { ...reply, headers: new Map([...reply.headers, [name, value]]) };
    }
    const { path: at, by } = one(mutation(pathsOf(body)));
    state.told.push(`${path}: ${at.join(".")} = ${JSON.stringify(by)?.slice(0, 80)}`);
    return { ...reply, body: Buffer.from(JSON.stringify(replaced(body, at, by))) };
  };
  return { world, state };
}

test("false replies end no loop and start no hot loop, and Berth serves work afterwards", async () => {
  let lies = 0;
  for (let seed = 1; seed <= SEEDS; seed += 1) {
    const { world, state } = lyingWorld(seed);
    const lines: string[] = [];
    world.createEnvironment();
    const operator = world.startOperator({
      logger: createLogger("warn", { write: (line) => void lines.push(line) }),
    });
    for (let passed = 0; passed < LIES_MS; passed += 10_000) {
      if (world.items.filter(({ state }) => state !== "stopped").length < 3) world.enqueue();
      await world.pass(10_000);
    }
    state.lies = false;
    lies += state.told.length;
    const fresh = world.enqueue();
    const told = () => `seed ${seed}, after:\n${state.told.slice(-20).join("\n")}`;
    await world
      .until("a new item is served", () => world.item(fresh).state === "stopped", 60 * MINUTE)
      .catch((error: unknown) => {
        throw new Error(told(), { cause: error });
      });
    expect(
      lines.filter((line) => /a (loop|handler) of .* failed|threw/.test(line)),
      told(),
    ).toEqual([]);
    expect(Math.max(...state.perSecond.values()), told()).toBeLessThan(MOST_IN_A_SECOND);
    operator.kill();
  }
  console.log(`hostile inputs: ${lies} tried: lying replies of the Work API to loops in memory`);
}, 300_000);
