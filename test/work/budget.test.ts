import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createMetrics } from "../../src/observe/metrics.ts";
import { Budget, BudgetExhausted, type BudgetLimits, Budgets } from "../../src/work/budget.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { apiError, POLLED, STARTING, STATS } from "./samples.ts";
import { failure, Setup } from "./setup.ts";
import { json } from "./strict-server.ts";

/** Ten requests a second and no burst, so that the counts are easy to predict. */
const TEN: Partial<BudgetLimits> = { initialRate: 10, minRate: 1, maxRate: 100, burstSeconds: 0.1 };

function make(limits: Partial<BudgetLimits> = TEN) {
  const clock = new VirtualClock();
  return { clock, budget: new Budget({ clock, limits }) };
}

/** A member that always has another request to send. Counts the admitted ones. */
function busyMember(budget: Budget, member: string, width = 1, onSent: () => void = () => {}, tenant = "") {
  const counter = { sent: 0 };
  const stop = new AbortController();
  const loop = async () => {
    while (await budget.acquire(member, stop.signal, tenant)) {
      counter.sent += 1;
      onSent();
    }
  };
  const loops = Array.from({ length: width }, loop);
  return {
    counter,
    async stop() {
      stop.abort();
      await Promise.all(loops);
    },
  };
}

describe("Budget", () => {
  it("admits calls at the rate on average, and a burst after a pause", async () => {
    const { clock, budget } = make({ ...TEN, burstSeconds: 1 });
    const a = busyMember(budget, "a");
    await clock.settle();
    expect(a.counter.sent).toBe(10);
    await clock.advance(2_000);
    expect(a.counter.sent).toBe(30);
    await a.stop();
    await clock.advance(60_000);
    const b = busyMember(budget, "b");
    await clock.settle();
    expect(b.counter.sent).toBe(10);
    await b.stop();
  });

  it("admits a burst of a hundred items, polled and acknowledged, after a pause", async () => {
    const { clock, budget } = make({});
    const stop = new AbortController();
    let polled = 0;
    for (; polled < 100 && (await budget.acquire("a", stop.signal)); polled += 1) budget.countUrgent();
    expect(polled).toBe(100);
    expect(clock.pendingTimers).toBe(0);
  });

  it("admits calls at almost the whole rate soon after any number of urgent calls", async () => {
    const { clock, budget } = make({});
    for (let sent = 0; sent < 10_000; sent += 1) budget.countUrgent();
    const a = busyMember(budget, "a");
    await clock.advance(10_000);
    await a.stop();
    expect(a.counter.sent).toBeGreaterThan(150);
  });

  it("admits a call at once while it has tokens", async () => {
    const { clock, budget } = make();
    expect(await budget.acquire("a")).toBe(true);
    expect(clock.pendingTimers).toBe(0);
  });

  it("spends nothing on calls whose signal aborts", async () => {
    const { clock, budget } = make();
    await budget.acquire("a");
    const stop = new AbortController();
    const waiting = Array.from({ length: 5 }, () => budget.acquire("a", stop.signal));
    const last = budget.acquire("a");
    expect(budget.waiting).toBe(6);
    stop.abort();
    expect(await Promise.all(waiting)).toEqual([false, false, false, false, false]);
    expect(budget.waiting).toBe(1);
    await clock.advance(100);
    expect(await last).toBe(true);
    expect(clock.pendingTimers).toBe(0);
    expect(await budget.acquire("a", stop.signal)).toBe(false);
  });

  it("rejects a call after the longest wait, with the time to retry", async () => {
    const { clock, budget } = make({ ...TEN, maxWaitMs: 5_000 });
    budget.onAnswer("a", { status: 429, sentAtMs: clock.monotonic(), retryAfterMs: 60_000 });
    const waiting = budget.acquire("a").catch((error: unknown) => error);
    await clock.advance(5_000);
    const error = await waiting;
    expect(error).toBeInstanceOf(BudgetExhausted);
    expect(error).toMatchObject({ retryAfterMs: 55_000 });
    expect(clock.pendingTimers).toBe(0);
  });
});

describe("members of a group", () => {
  it("a member with many calls does not starve one with few", async () => {
    const { clock, budget } = make();
    const busy = busyMember(budget, "busy", 50);
    const modest = busyMember(budget, "modest", 1);
    await clock.advance(10_000);
    const total = busy.counter.sent + modest.counter.sent;
    expect(total).toBeGreaterThanOrEqual(100);
    expect(Math.abs(busy.counter.sent - modest.counter.sent)).toBeLessThanOrEqual(2);
    await Promise.all([busy.stop(), modest.stop()]);
  });

  it("take turns in the order of their first waiting call", async () => {
    const { clock, budget } = make();
    await budget.acquire("first");
    const order: string[] = [];
    const waits = ["a", "a", "a", "b", "c", "b"].map((member) => budget.acquire(member).then(() => order.push(member)));
    await clock.advance(600);
    await Promise.all(waits);
    expect(order).toEqual(["a", "b", "c", "a", "b", "a"]);
  });

  it("a tenant with many members gets no more than a tenant with one", async () => {
    const { clock, budget } = make();
    const sent = { many: 0, one: 0 };
    const stop = new AbortController();
    const keep = async (tenant: "many" | "one", member: string) => {
      while (await budget.acquire(member, stop.signal, tenant)) sent[tenant] += 1;
    };
    const loops = Array.from({ length: 500 }, (_, i) => keep("many", `many-${i}`));
    loops.push(keep("one", "one"));
    await clock.advance(20_000);
    stop.abort();
    await Promise.all(loops);
    expect(sent.one).toBeGreaterThan(90);
    expect(Math.abs(sent.many - sent.one)).toBeLessThan(5);
  });

  it("no call waits for more turns than there are members", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 8 }), { minLength: 2, maxLength: 6 }), async (widths) => {
        const { clock, budget } = make();
        await budget.acquire("drain");
        const order: string[] = [];
        const members = widths.map((width, at) => busyMember(budget, `m${at}`, width, () => order.push(`m${at}`)));
        await clock.advance(4_000);
        for (let from = widths.length; from + 2 * widths.length <= order.length; from += 1) {
          const turns = new Set(order.slice(from, from + 2 * widths.length));
          expect(turns.size).toBe(widths.length);
        }
        await Promise.all(members.map((member) => member.stop()));
        expect(clock.pendingTimers).toBe(0);
      }),
      { numRuns: 25 },
    );
  });
});

it("a new call does not overtake waiting ones, even if the timer of their turn is late", async () => {
  const { clock, budget } = make();
  await budget.acquire("a");
  const order: string[] = [];
  const first = budget.acquire("a").then(() => order.push("first"));
  clock.pause(150);
  const second = budget.acquire("b").then(() => order.push("second"));
  await clock.advance(200);
  await Promise.all([first, second]);
  expect(order).toEqual(["first", "second"]);
});

describe("the rate", () => {
  it("allows no burst after a 429", async () => {
    const { clock, budget } = make({ ...TEN, burstSeconds: 1 });
    budget.onAnswer("a", { status: 429, sentAtMs: clock.monotonic() });
    const a = busyMember(budget, "a");
    await clock.settle();
    expect(a.counter.sent).toBe(0);
    await clock.advance(1_000);
    expect(a.counter.sent).toBeGreaterThan(0);
    expect(a.counter.sent).toBeLessThanOrEqual(5);
    await a.stop();
  });

  it("is halved on a 429, once for all requests in flight", () => {
    const { clock, budget } = make();
    const sentAtMs = clock.monotonic();
    clock.pause(50);
    for (let i = 0; i < 5; i += 1) budget.onAnswer("a", { status: 429, sentAtMs });
    expect(budget.rate).toBe(5);
    clock.pause(50);
    budget.onAnswer("a", { status: 429, sentAtMs: clock.monotonic() });
    expect(budget.rate).toBe(2.5);
  });

  it("never falls below its minimum", () => {
    const { clock, budget } = make();
    for (let i = 0; i < 20; i += 1) {
      clock.pause(1);
      budget.onAnswer("a", { status: 429, sentAtMs: clock.monotonic() });
    }
    expect(budget.rate).toBe(1);
  });

  it("rises by one a second up to its maximum while it is used up", async () => {
    const { clock, budget } = make({ ...TEN, maxRate: 14 });
    const a = busyMember(budget, "a", 1, () => budget.onAnswer("a", { status: 200, sentAtMs: clock.monotonic() }));
    await clock.advance(1_000);
    expect(budget.rate).toBeGreaterThan(10.7);
    expect(budget.rate).toBeLessThan(11.3);
    await clock.advance(60_000);
    expect(budget.rate).toBe(14);
    await a.stop();
  });

  it("rises neither while no call waits nor on failures", async () => {
    const { clock, budget } = make();
    for (let i = 0; i < 50; i += 1) {
      expect(await budget.acquire("a")).toBe(true);
      budget.onAnswer("a", { status: 200, sentAtMs: clock.monotonic() });
      await clock.advance(500);
    }
    expect(budget.rate).toBe(10);
    const a = busyMember(budget, "a", 1, () => budget.onAnswer("a", { status: 503, sentAtMs: clock.monotonic() }));
    await clock.advance(5_000);
    expect(budget.rate).toBe(10);
    await a.stop();
  });

  it("finds a server's limit and stays near it", async () => {
    const { clock, budget } = make({ ...TEN, burstSeconds: 1 });
    const limit = 20;
    let allowance = limit;
    let at = clock.monotonic();
    const served = { ok: 0, refused: 0 };
    const a = busyMember(budget, "a", 4, () => {
      allowance = Math.min(limit, allowance + ((clock.monotonic() - at) / 1_000) * limit);
      at = clock.monotonic();
      const status = allowance >= 1 ? 200 : 429;
      if (status === 200) allowance -= 1;
      served[status === 200 ? "ok" : "refused"] += 1;
      budget.onAnswer("a", { status, sentAtMs: clock.monotonic() });
    });
    await clock.advance(300_000);
    await a.stop();
    expect(served.ok / 300).toBeGreaterThan(limit * 0.6);
    expect(served.refused / served.ok).toBeLessThan(0.05);
  });
});

describe("429s of some tenants", () => {
  /** A budget with one member per tenant, whose rate has risen from 10 to 20. */
  function shared(tenants: readonly string[]) {
    const made = make();
    const refuse = (tenant: string, member = `of ${tenant}`) => {
      made.clock.pause(1_000);
      made.budget.onAnswer(member, { status: 429, sentAtMs: made.clock.monotonic() }, tenant);
    };
    const raise = async (to: number) => {
      const answer = () => made.budget.onAnswer("of a", { status: 200, sentAtMs: made.clock.monotonic() }, "a");
      const busy = busyMember(made.budget, "of a", 1, answer, "a");
      await made.clock.advanceUntil(() => made.budget.rate >= to, 60_000);
      await busy.stop();
    };
    const ask = () => Promise.all(tenants.map((tenant) => made.budget.acquire(`of ${tenant}`, undefined, tenant)));
    return { ...made, refuse, raise, ask };
  }

  it("leave the initial rate to the others, however many there are", async () => {
    const { clock, budget, refuse, ask } = shared(["a", "b"]);
    const asked = ask();
    await clock.advance(200);
    await asked;
    for (let times = 0; times < 100; times += 1) refuse("b", `b${times}`);
    expect(budget.rate).toBe(10);
  });

  it("halve a higher rate once in five minutes", async () => {
    const { clock, budget, refuse, raise, ask } = shared(["a", "b"]);
    const asked = ask();
    await clock.advance(200);
    await asked;
    await raise(50);
    const high = budget.rate;
    for (let times = 0; times < 100; times += 1) refuse("b", `b${times}`);
    expect(budget.rate).toBe(high / 2);
    await clock.advance(5 * 60_000);
    refuse("b");
    // "a" had no call meanwhile, so the limit of the only tenant counts as the group's.
    expect(budget.rate).toBe(high / 4);
  });

  it("count for the whole group when more than half of the tenants get one", async () => {
    const { clock, budget, refuse, ask } = shared(["a", "b", "c"]);
    const asked = ask();
    await clock.advance(500);
    await asked;
    refuse("b");
    expect(budget.rate).toBe(10);
    refuse("c");
    expect(budget.rate).toBe(5);
    refuse("b");
    expect(budget.rate).toBe(2.5);
  });

  it("repeated for one tenant, leave ten requests a second to another that also got one", async () => {
    const { clock, budget } = make();
    const answer = () => budget.onAnswer("a", { status: 200, sentAtMs: clock.monotonic() }, "a");
    const busy = busyMember(budget, "a", 1, answer, "a");
    await clock.advance(1_000);
    budget.onAnswer("a", { status: 429, sentAtMs: clock.monotonic() }, "a");
    const before = busy.counter.sent;
    // Within the five minutes in which the 429 of "a" counts.
    for (let second = 0; second < 240; second += 1) {
      await clock.advance(1_000);
      for (let i = 0; i < 10; i += 1) budget.onAnswer(`b${i}`, { status: 429, sentAtMs: clock.monotonic() }, "b");
    }
    await busy.stop();
    expect((busy.counter.sent - before) / 240).toBeGreaterThan(10);
    expect(budget.rate).toBeGreaterThan(8);
  });

  it("count by member if there is one tenant", async () => {
    const { clock, budget } = make();
    const asked = Promise.all(["x", "y"].map((member) => budget.acquire(member)));
    await clock.advance(200);
    await asked;
    for (const [member, rate] of [
      ["x", 10],
      ["x", 10],
      ["y", 5],
      ["x", 2.5],
      ["x", 2.5],
    ] as const) {
      clock.pause(1_000);
      budget.onAnswer(member, { status: 429, sentAtMs: clock.monotonic() });
      expect(budget.rate).toBe(rate);
    }
  });
});

describe("Retry-After", () => {
  it("holds only the member that got it", async () => {
    const { clock, budget } = make();
    const sent: string[] = [];
    const acquire = (member: string, tenant: string) =>
      budget.acquire(member, undefined, tenant).then(() => sent.push(member));
    budget.onAnswer("a", { status: 429, sentAtMs: clock.monotonic(), retryAfterMs: 3_000 }, "one");
    const waits = [acquire("a", "one"), acquire("beside a", "one"), acquire("b", "two")];
    await clock.advance(2_999);
    expect(sent).toEqual(["beside a", "b"]);
    await clock.advance(1_000);
    await Promise.all(waits);
    expect(sent).toEqual(["beside a", "b", "a"]);
    expect(clock.pendingTimers).toBe(0);
  });

  it("holds a member that sends no calls meanwhile", async () => {
    const { clock, budget } = make({ ...TEN, memberMs: 1_000 });
    budget.onAnswer("a", { status: 429, sentAtMs: clock.monotonic(), retryAfterMs: 300_000 });
    for (let passed = 0; passed < 299; passed += 1) {
      await clock.advance(1_000);
      expect(budget.idleIntervalMs()).toBeGreaterThan(0);
    }
    let sent = false;
    const wait = budget.acquire("a").then(() => {
      sent = true;
    });
    await clock.advance(999);
    expect(sent).toBe(false);
    await clock.advance(1);
    await wait;
    await clock.advance(1_001);
    expect(budget.idleIntervalMs()).toBe(0);
  });

  it("does not count as a rate that is used up", async () => {
    const { clock, budget } = make();
    budget.onAnswer("a", { status: 429, sentAtMs: clock.monotonic(), retryAfterMs: 10_000 });
    const rate = budget.rate;
    const waits = ["a", "a"].map((member) => budget.acquire(member));
    for (let passed = 0; passed < 19; passed += 1) {
      await clock.advance(500);
      await budget.acquire("b");
      budget.onAnswer("b", { status: 200, sentAtMs: clock.monotonic() });
      expect(budget.rate).toBe(rate);
    }
    await clock.advance(1_000);
    await Promise.all(waits);
  });

  it("holds calls that already wait, and is not shortened by a later one", async () => {
    const { clock, budget } = make();
    await budget.acquire("a");
    let sent = false;
    const wait = budget.acquire("a").then(() => {
      sent = true;
    });
    budget.onAnswer("a", { status: 429, sentAtMs: clock.monotonic(), retryAfterMs: 5_000 });
    budget.onAnswer("a", { status: 429, sentAtMs: clock.monotonic(), retryAfterMs: 1_000 });
    await clock.advance(4_999);
    expect(sent).toBe(false);
    await clock.advance(500);
    await wait;
  });
});

describe("protocol calls", () => {
  it("never wait, and reduce what is left for the others", async () => {
    const { clock, budget } = make({ ...TEN, burstSeconds: 1 });
    for (let i = 0; i < 15; i += 1) budget.countUrgent();
    const a = busyMember(budget, "a");
    await clock.advance(1_000);
    // Ten tokens arrive, and five pay for the protocol calls. The waiting calls' reserve may add one more.
    expect(a.counter.sent).toBeGreaterThanOrEqual(5);
    expect(a.counter.sent).toBeLessThanOrEqual(6);
    await a.stop();
  });

  it("leave a debt that is paid soon, however many there were", async () => {
    const { clock, budget } = make({ ...TEN, burstSeconds: 1 });
    for (let i = 0; i < 5_000; i += 1) budget.countUrgent();
    await clock.advance(2_000);
    const a = busyMember(budget, "a");
    await clock.advance(5_000);
    expect(a.counter.sent).toBeGreaterThan(45);
    await a.stop();
  });

  it("leave a quarter of the rate to the others, even when they use up everything", async () => {
    const { clock, budget } = make({ ...TEN, burstSeconds: 1 });
    const a = busyMember(budget, "a");
    for (let i = 0; i < 400; i += 1) {
      budget.countUrgent();
      await clock.advance(50);
    }
    expect(a.counter.sent).toBeGreaterThanOrEqual(50);
    await a.stop();
  });

  it("are sent while polls wait for a Retry-After", async () => {
    const clock = new VirtualClock();
    const budget = new Budget({ clock, limits: TEN });
    await using setup = await Setup.start({ clock, budget });
    setup.server.next(json(429, apiError("rate_limit_error", "slow"), { "retry-after": "30" }));
    expect(await failure(setup.client.poll())).toMatchObject({ kind: "rate-limited", retryAfterMs: 30_000 });
    const stop = new AbortController();
    const poll = failure(setup.client.poll({ signal: stop.signal }));
    setup.server.next(json(200, STARTING), json(200, { data: [], next_page: null }));
    await setup.client.ack("work_01");
    await setup.client.list({ urgent: true });
    expect(budget.waiting).toBe(1);
    expect(setup.server.seen.map(({ url }) => url.split("/").at(-1))).toEqual(["poll", "ack", "work?limit=1000"]);
    stop.abort();
    expect(await poll).toMatchObject({ kind: "aborted", maybeApplied: false });
  });
});

describe("a client with a budget", () => {
  it("sends a waiting call as soon as its turn comes, and does not count the wait toward its timeout", async () => {
    const clock = new VirtualClock();
    const budget = new Budget({ clock, limits: { ...TEN, initialRate: 1, maxRate: 1 } });
    await using setup = await Setup.start({ clock, budget, requestTimeoutMs: 500 });
    setup.server.fallback = json(200, STATS);
    await setup.client.stats();
    const second = setup.client.stats();
    await clock.advance(999);
    expect(setup.server.seen).toHaveLength(1);
    const sentFrom = clock.monotonic();
    await clock.advance(1);
    expect((await second).sentAtMs).toBe(sentFrom + 1);
  });

  it("reports an exhausted budget", async () => {
    const clock = new VirtualClock();
    const budget = new Budget({ clock, limits: { ...TEN, maxWaitMs: 1_000 } });
    budget.onAnswer("a", { status: 429, sentAtMs: clock.monotonic(), retryAfterMs: 10_000 });
    await using setup = await Setup.start({ clock, budget, workerId: "a" });
    const call = failure(setup.client.poll());
    await clock.advance(1_000);
    const error = await call;
    expect(error).toMatchObject({ kind: "rate-limited", maybeApplied: false, retryAfterMs: 9_000 });
    expect(error.message).toContain("budgetGroup");
    expect(setup.server.seen).toHaveLength(0);
  });

  it("counts its protocol calls", async () => {
    const clock = new VirtualClock();
    const budget = new Budget({ clock, limits: { ...TEN, burstSeconds: 0.2 } });
    await using setup = await Setup.start({ clock, budget });
    setup.server.next(json(200, STARTING), json(200, STARTING), json(200, STATS), json(200, STATS));
    await setup.client.ack("work_01");
    await setup.client.ack("work_01");
    // From the reserve of the waiting calls.
    await setup.client.stats();
    const stats = setup.client.stats();
    await clock.settle();
    expect(budget.waiting).toBe(1);
    await clock.advance(400);
    await stats;
  });

  it("holds its polls during a Retry-After", async () => {
    const clock = new VirtualClock();
    const budget = new Budget({ clock, limits: TEN });
    await using setup = await Setup.start({ clock, budget });
    setup.server.next(json(429, apiError("e", "m"), { "retry-after": "30" }), json(200, null));
    await failure(setup.client.poll());
    const poll = setup.client.poll();
    await clock.advance(29_900);
    expect(budget.waiting).toBe(1);
    await clock.advance(200);
    expect((await poll).value).toBeNull();
  });

  it("shares the budget with the other Environments of its group", async () => {
    const clock = new VirtualClock();
    const budget = new Budget({ clock, limits: TEN });
    await using setup = await Setup.start({ clock, budget });
    const other = setup.clientOf({ budget, environmentId: "env_other" });
    setup.server.next(json(200, POLLED), json(429, apiError("e", "m"), { "retry-after": "5" }));
    await setup.client.poll();
    const refused = failure(other.poll());
    await clock.advance(100);
    await refused;
    expect(budget.rate).toBe(5);
  });
});

describe("the interval of idle members", () => {
  it("leaves half of the rate to members with work, for any number of members", async () => {
    const { budget } = make({ ...TEN, initialRate: 20, burstSeconds: 100 });
    expect(budget.idleIntervalMs()).toBe(0);
    for (let member = 0; member < 100; member += 1) await budget.acquire(`m${member}`);
    for (let member = 0; member < 100; member += 1) await budget.acquire(`m${member}`);
    expect((100 * 1_000) / budget.idleIntervalMs()).toBe(10);
  });

  it("grows when the rate is halved", async () => {
    const { clock, budget } = make();
    await budget.acquire("a");
    const before = budget.idleIntervalMs();
    budget.onAnswer("a", { status: 429, sentAtMs: clock.monotonic() });
    expect(budget.idleIntervalMs()).toBe(2 * before);
  });

  it("does not shrink when the rate rises, so that a rush does not set the pace of all", async () => {
    const { clock, budget } = make();
    const rush = busyMember(budget, "a", 1, () => budget.onAnswer("a", { status: 200, sentAtMs: clock.monotonic() }));
    const before = budget.idleIntervalMs();
    await clock.advance(30_000);
    expect(budget.rate).toBeGreaterThan(20);
    expect(budget.idleIntervalMs()).toBe(before);
    await rush.stop();
  });

  it("forgets members that stopped calling, but none that waits for its turn", async () => {
    const { clock, budget } = make({ ...TEN, burstSeconds: 1 });
    await budget.acquire("gone");
    await clock.advance(60_000);
    await budget.acquire("here");
    const two = budget.idleIntervalMs();
    await clock.advance(60_001);
    expect(budget.idleIntervalMs()).toBe(two / 2);
    budget.onAnswer("a", { status: 429, sentAtMs: clock.monotonic(), retryAfterMs: 300_000 });
    const waiting = budget.acquire("a");
    await clock.advance(299_000);
    expect(budget.waiting).toBe(1);
    expect(budget.idleIntervalMs()).toBeGreaterThan(0);
    await clock.advance(10_000);
    await waiting;
  });

  it("gives each tenant the same part of the rate, however many members another has", async () => {
    const { budget } = make({ ...TEN, burstSeconds: 1_000 });
    for (let i = 0; i < 99; i += 1) await budget.acquire(`many-${i}`, undefined, "many");
    await budget.acquire("one", undefined, "one");
    expect((99 * 1_000) / budget.idleIntervalMs("many")).toBe(2.5);
    expect(1_000 / budget.idleIntervalMs("one")).toBe(2.5);
  });

  it("comes from the client's budget, and is 0 without one", async () => {
    const clock = new VirtualClock();
    const budget = new Budget({ clock, limits: TEN });
    await using setup = await Setup.start({ clock, budget });
    setup.server.fallback = json(200, STATS);
    await setup.client.stats();
    expect(setup.client.idleIntervalMs).toBe(budget.idleIntervalMs());
    await using plain = await Setup.start({ clock });
    expect(plain.client.idleIntervalMs).toBe(0);
  });
});

describe("Budgets", () => {
  it("keeps one budget per origin and group", () => {
    const budgets = new Budgets({ clock: new VirtualClock() });
    const one = budgets.get("https://api.example.com", "default");
    expect(budgets.get("https://api.example.com", "default")).toBe(one);
    expect(budgets.get("https://api.example.com", "other")).not.toBe(one);
    expect(budgets.get("https://api2.example.com", "default")).not.toBe(one);
  });

  it("drops a budget and its metrics with its last reference", async () => {
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    const metrics = createMetrics();
    const budgets = new Budgets({ clock: new VirtualClock(), metrics });
    const kept = budgets.get("https://a.example", "kept");
    for (let i = 0; i < 1_000; i += 1) budgets.get("https://a.example", `group-${i}`);
    const series = async () => (await metrics.registry.metrics()).match(/^berth_work_api_budget_rate\{/gm)?.length;
    expect(await series()).toBe(1_001);
    for (let tries = 0; budgets.size > 1 && tries < 100; tries += 1) {
      await new Promise((resolve) => setImmediate(resolve));
      collect();
    }
    expect(budgets.size).toBe(1);
    expect(await series()).toBe(1);
    expect(budgets.get("https://a.example", "kept")).toBe(kept);
  });

  it("reports the rate and the time that calls waited", async () => {
    const clock = new VirtualClock();
    const metrics = createMetrics();
    const budget = new Budgets({ clock, metrics, limits: TEN }).get("https://api.example.com", "research");
    await budget.acquire("a");
    const wait = budget.acquire("a");
    await clock.advance(100);
    await wait;
    clock.pause(1);
    budget.onAnswer("a", { status: 429, sentAtMs: clock.monotonic() });
    const text = await metrics.registry.metrics();
    expect(text).toContain('berth_work_api_budget_rate{group="research"} 5');
    expect(text).toContain('berth_work_api_budget_wait_seconds_total{group="research"} 0.1');
  });
});
