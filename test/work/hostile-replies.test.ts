import { setTimeout as pause } from "node:timers/promises";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { WorkApiClient } from "../../src/work/client.ts";
import { MAX_RETRY_AFTER_MS, WorkApiError } from "../../src/work/errors.ts";
import { mutation, pathsOf, replaced } from "../support/malformed-values.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { hostileActs } from "./hostile-acts.ts";
import { apiError, BEAT, POLLED, SECRET, STARTING, STATS } from "./samples.ts";
import { failure, Setup } from "./setup.ts";
import { json, StrictServer } from "./strict-server.ts";

/** The timeout for an answer that never ends. A busy machine may be slow, but none of these answers ever completes. */
const BOUND_MS = 500;

interface Called {
  readonly call: (client: WorkApiClient) => Promise<unknown>;
  readonly good: unknown;
}

const CALLS = {
  poll: { call: (client) => client.poll({ reclaimOlderThanMs: 5_000 }), good: POLLED },
  ack: { call: (client) => client.ack(STARTING.id), good: STARTING },
  heartbeat: { call: (client) => client.heartbeat(STARTING.id, { expected: "NO_HEARTBEAT" }), good: BEAT },
  stop: { call: (client) => client.stop(STARTING.id, { force: true }), good: STARTING },
  stats: { call: (client) => client.stats(), good: STATS },
  list: { call: (client) => client.list(), good: { data: [STARTING], next_page: null } },
} satisfies Record<string, Called>;

/** All calls share one transport, and only `list` repeats a request. So two calls meet each of the server's acts. */
describe.each(["poll", "list"] as const)("%s", (name) => {
  const { call, good } = CALLS[name];
  test.each(Object.keys(hostileActs(good, "http://127.0.0.1:1")))("rejects %s with a WorkApiError", async (act) => {
    await using elsewhere = await StrictServer.start();
    const clock = new VirtualClock();
    await using setup = await Setup.start({ clock, requestTimeoutMs: BOUND_MS, protocolTimeoutMs: BOUND_MS });
    const acts = hostileActs(good, elsewhere.origin);
    setup.server.fallback = acts[act];
    const failed = failure(call(setup.client));
    // The timeout starts when the request has arrived, which may take long on a busy machine.
    await setup.server.sawRequests(1);
    await Promise.race([failed, pause(BOUND_MS)]);
    await clock.advance(BOUND_MS);
    const error = await failed;
    expect(error.message).not.toContain(SECRET);
    expect(error.message.length).toBeLessThan(1_000);
    // Only a page of the list is requested again, with fewer items, if it is too large.
    expect(new Set(setup.server.seen.map(({ url }) => url)).size).toBe(setup.server.seen.length);
    expect(elsewhere.connections).toBe(0);
  });
});

describe.each(Object.entries<Called>(CALLS))("%s", (_name, { call, good }) => {
  test("accepts or rejects an answer with any one part replaced", async () => {
    await using setup = await Setup.start();
    const changed = mutation(pathsOf(good));
    await fc.assert(
      fc.asyncProperty(changed, async ({ path, by }) => {
        setup.server.next(json(200, replaced(good, path, by)));
        await call(setup.client).catch((error: unknown) => {
          expect(error).toBeInstanceOf(WorkApiError);
          expect((error as WorkApiError).message).not.toContain(SECRET);
        });
      }),
      { numRuns: 60 },
    );
  });
});

describe("absurd headers", () => {
  test.each([
    ["retry-after", "-1"],
    ["retry-after", "99999999999999999999"],
    ["retry-after", "1e309"],
    ["retry-after", "Fri, 31 Dec 9999 23:59:59 GMT"],
    ["retry-after", "Thu, 01 Jan 1970 00:00:00 GMT"],
    ["retry-after", "soon"],
    ["date", "Fri, 31 Dec 9999 23:59:59 GMT"],
    ["date", "Thu, 01 Jan 0001 00:00:00 GMT"],
    ["date", "yesterday"],
    ["date", ""],
  ])("%s: %s causes no excessive wait", async (name, value) => {
    await using setup = await Setup.start();
    setup.server.next(json(429, apiError("rate_limit_error", "slow down"), { [name]: value, "retry-after": value }));
    const error = await failure(setup.client.poll());
    expect(error.kind).toBe("rate-limited");
    const asked = error.retryAfterMs ?? 0;
    expect(asked >= 0 && asked <= MAX_RETRY_AFTER_MS).toBe(true);
  });
});
