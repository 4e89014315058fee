import { expect, test } from "vitest";
import { RefusedItems } from "../../src/claims/refused-items.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { LeadershipLostError } from "../../src/kube/errors.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import type { SessionContext } from "../../src/protocol/context.ts";
import { WorkApiError } from "../../src/work/errors.ts";
import { fakeContext } from "../sessions/fake-context.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

/** An Environment whose group requests this pause between two calls of an idle member. */
function make(idleIntervalMs: number) {
  const clock = new VirtualClock();
  const lists: number[] = [];
  const list = () => {
    lists.push(clock.monotonic());
    return Promise.resolve({ value: { items: [], nextPage: null } });
  };
  const context = {
    ...{ clock, timing: DEFAULT_TIMING, points: NO_POINTS, logger: silentLogger, random: () => 0.5 },
    work: () => ({ idleIntervalMs, list }),
  } as unknown as SessionContext;
  const signal = new AbortController();
  const startMs = clock.monotonic();
  const running = new RefusedItems(context).run(signal.signal, async () => {});
  return { clock, signal, running, looks: () => lists.map((ms) => ms - startMs) };
}

test("lists partially rejected items once and immediately when few Environments share the budget", async () => {
  const { clock, signal, running, looks } = make(DEFAULT_TIMING.pollIdleGapMs);
  await clock.advance(600_000);
  expect(looks()).toEqual([0]);
  signal.abort();
  await running;
});

test("delays the list within the pause of the group when many Environments share the budget", async () => {
  const { clock, signal, running, looks } = make(100_000);
  await clock.advance(600_000);
  expect(looks()).toEqual([50_000]);
  signal.abort();
  await running;
});

test("stops waiting for the list when the loop ends", async () => {
  const { clock, signal, running, looks } = make(100_000);
  await clock.settle();
  signal.abort();
  await running;
  expect(looks()).toEqual([]);
  expect(clock.pendingTimers).toBe(0);
});

test("an item whose stop fails permanently does not block other stops, and causes no second list", async () => {
  const clock = new VirtualClock();
  const stops: string[] = [];
  let lists = 0;
  const items = ["work_gone", "work_b", "work_c"].map((id) => ({
    id,
    state: "starting",
    data: { type: "healthcheck" },
  }));
  const list = async () => {
    lists += 1;
    return { value: { items, nextPage: null } };
  };
  const stop = async (id: string) => {
    stops.push(id);
    if (id !== "work_gone") return;
    throw new WorkApiError({ kind: "not-found", call: "stop", message: "404: no such item", status: 404 });
  };
  const context = {
    ...{ clock, timing: DEFAULT_TIMING, points: NO_POINTS, logger: silentLogger, random: () => 0.5 },
    ...{ guard: () => {}, work: () => ({ idleIntervalMs: 0, list, stop }) },
  } as unknown as SessionContext;
  const signal = new AbortController();
  const running = new RefusedItems(context).run(signal.signal, async () => {});
  await clock.advance(600_000);
  expect(stops).toEqual(["work_gone", "work_b", "work_c"]);
  expect(lists).toBe(1);
  signal.abort();
  await running;
});

/**
 * Returns which of these items are stopped, and when (ms from the start) the list is read. The first `fails` reads
 * fail.
 */
function look(items: readonly unknown[], fails = 0, guard = () => {}) {
  const clock = new VirtualClock();
  const stops: string[] = [];
  const acks: string[] = [];
  const lists: number[] = [];
  const startMs = clock.monotonic();
  const work = {
    idleIntervalMs: 0,
    list: async () => {
      lists.push(clock.monotonic() - startMs);
      if (lists.length <= fails) throw new WorkApiError({ kind: "server", call: "list", message: "500", status: 500 });
      return { value: { items, nextPage: null } };
    },
    ack: async (id: string) => {
      acks.push(id);
      throw new WorkApiError({ kind: "timeout", call: "ack", message: "no answer", maybeApplied: true });
    },
    stop: async (id: string) => {
      stops.push(id);
    },
  };
  const refused = new RefusedItems(fakeContext({ clock, guard, work: () => work }));
  const ending = new AbortController();
  const running = refused.run(ending.signal, async () => {});
  const end = async () => {
    ending.abort();
    await running;
  };
  return { clock, refused, stops, acks, lists, startMs, end };
}

const item = (id: string, state: string, type: string) => ({ id, state, data: { type, id: "x" } });

test("stops neither sessions nor unacknowledged items", async () => {
  const { clock, stops, end } = look([
    item("session", "starting", "session"),
    item("queued", "queued", "healthcheck"),
    item("active", "active", "healthcheck"),
    item("left", "starting", "healthcheck"),
    item("unknown", "stopping", "party"),
  ]);
  await clock.advance(60_000);
  await end();
  expect(stops).toEqual(["left", "unknown"]);
});

test("retries a failed list", async () => {
  const { clock, stops, lists, end } = look([item("left", "starting", "healthcheck")], 2);
  await clock.advance(60_000);
  await end();
  expect(lists).toHaveLength(3);
  expect(stops).toEqual(["left"]);
});

test("reads the list again once an unanswered acknowledgement can no longer take effect", async () => {
  const { clock, refused, lists, startMs, end } = look([]);
  await clock.advance(1_000);
  const refusedMs = clock.monotonic() - startMs;
  await expect(refused.refuse(item("new", "queued", "party") as never)).rejects.toThrow("no answer");
  await clock.advance(60_000);
  await end();
  const { othersReclaimMs, lateAckMs, listLagMs } = DEFAULT_TIMING;
  expect(lists).toEqual([0, refusedMs + othersReclaimMs + lateAckMs + listLagMs]);
});

test("acknowledges nothing once the process is no longer the leader", async () => {
  const { refused, acks, end } = look([], 0, () => {
    throw new LeadershipLostError("not the leader");
  });
  await expect(refused.refuse(item("new", "queued", "party") as never)).rejects.toThrow(LeadershipLostError);
  await end();
  expect(acks).toEqual([]);
});
