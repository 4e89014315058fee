import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Clock, Timer } from "../../src/core/clock.ts";
import { LeaderElector, type LeaderElectorOptions } from "../../src/election/leader-election.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { LeadershipLostError } from "../../src/kube/errors.ts";
import { LEASES, type Lease, PODS } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { FakeApiServer, sendStatus } from "../kube/api-server.ts";
import { settled, until } from "../kube/until.ts";
import { CI_SEED } from "../support/ci-seed.ts";
import { VIRTUAL_EPOCH_MS, VirtualClock } from "../support/virtual-clock.ts";

const PATH = "/apis/coordination.k8s.io/v1/namespaces/berth/leases/operator";

let server: FakeApiServer;
let clock: VirtualClock;
let client: KubeClient;
let candidates: { stop: AbortController; run: Promise<void> }[];

beforeEach(async () => {
  server = await FakeApiServer.start();
  clock = new VirtualClock();
  client = new KubeClient({ access: server.access });
  candidates = [];
});

afterEach(async () => {
  for (const { stop } of candidates) stop.abort();
  for (const { run } of candidates)
    await settled(
      clock,
      run.catch(() => {}),
    );
  await client.close();
  await server[Symbol.asyncDispose]();
});

function candidate(identity: string, more: Partial<LeaderElectorOptions> = {}) {
  const log: string[] = [];
  const terms: AbortSignal[] = [];
  const elector = new LeaderElector({
    client,
    namespace: "berth",
    name: "operator",
    identity,
    clock,
    logger: silentLogger,
    random: () => 0.5,
    onStartedLeading: (signal) => {
      terms.push(signal);
      log.push("started");
    },
    onStoppedLeading: () => log.push("stopped"),
    ...more,
  });
  const stop = new AbortController();
  const run = elector.run(stop.signal);
  run.catch(() => {});
  const one = { elector, stop, run, log, terms };
  candidates.push(one);
  return one;
}

const lease = () => server.read(PATH) as Lease | undefined;
const writes = () => server.requests.filter(({ method }) => method !== "GET").length;

describe("acquiring the Lease", () => {
  test("the first candidate leads, with a Lease in the form that Go's decoder expects", async () => {
    const metrics = createMetrics();
    const { elector, log } = candidate("a", { metrics });
    expect(elector.isLeader).toBe(false);
    expect(() => elector.fence()).toThrow(LeadershipLostError);
    await until(clock, () => log.length === 1);
    expect(elector.isLeader).toBe(true);
    elector.fence();
    const { spec } = lease() ?? {};
    expect(spec).toMatchObject({ holderIdentity: "a", leaseDurationSeconds: 15, leaseTransitions: 0 });
    for (const time of [spec?.acquireTime, spec?.renewTime])
      expect(time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
    expect((await metrics.leader.get()).values).toEqual([{ labels: { lease: "operator" }, value: 1 }]);
  });

  test("renewals keep other candidates out", async () => {
    const a = candidate("a");
    await until(clock, () => a.elector.isLeader);
    const b = candidate("b");
    const from = clock.monotonic();
    await until(clock, () => clock.monotonic() - from > 120_000, 250);
    expect([a.log, b.log, b.elector.holder]).toEqual([["started"], [], "a"]);
    expect(lease()?.spec?.acquireTime).not.toBe(lease()?.spec?.renewTime);
  });

  test("a clean end hands the Lease over without a wait", async () => {
    const a = candidate("a");
    await until(clock, () => a.elector.isLeader);
    const b = candidate("b");
    await until(clock, () => b.elector.holder === "a");
    a.stop.abort();
    const from = clock.monotonic();
    await until(clock, () => b.elector.isLeader);
    // One candidate's wait, not a lease duration.
    expect(clock.monotonic() - from).toBeLessThan(5_000);
    await a.run;
    expect(a.log).toEqual(["started", "stopped"]);
    expect(lease()?.spec).toMatchObject({ holderIdentity: "b", leaseDurationSeconds: 15, leaseTransitions: 1 });
  });

  test("a leader that vanished is replaced after the lease duration, not before", async () => {
    server.put(PATH, {
      metadata: { name: "operator", namespace: "berth" },
      spec: {
        holderIdentity: "gone",
        leaseDurationSeconds: 15,
        renewTime: "1999-01-01T00:00:00.000000Z",
        leaseTransitions: 6,
      },
    });
    const b = candidate("b");
    await until(clock, () => b.elector.holder === "gone");
    const from = clock.monotonic();
    await until(clock, () => b.elector.isLeader);
    // Counted from the first observation: the time in the Lease comes from another machine's clock and is not trusted.
    expect(clock.monotonic() - from).toBeGreaterThanOrEqual(14_900);
    expect(clock.monotonic() - from).toBeLessThan(20_000);
    expect(lease()?.spec?.leaseTransitions).toBe(7);
  });

  test("acquires a Lease whose transition count is at its maximum", async () => {
    const spec = { holderIdentity: "gone", leaseDurationSeconds: 1, leaseTransitions: 2 ** 31 - 1 };
    server.put(PATH, { metadata: { name: "operator", namespace: "berth" }, spec });
    const b = candidate("b");
    await until(clock, () => b.elector.isLeader);
    // A 32-bit number in Go: the API server would reject one more forever.
    expect(lease()?.spec?.leaseTransitions).toBe(0);
  });

  test("one of two simultaneous candidates leads", async () => {
    const pair = [candidate("a"), candidate("b")];
    await until(clock, () => pair.some(({ elector }) => elector.isLeader));
    const from = clock.monotonic();
    await until(clock, () => clock.monotonic() - from > 30_000, 250);
    expect(pair.filter(({ elector }) => elector.isLeader)).toHaveLength(1);
    expect(pair.flatMap(({ log }) => log)).toEqual(["started"]);
  });
});

describe("losing the Lease", () => {
  test("a leader without renewals stops at the renew deadline, before others may start", async () => {
    const a = candidate("a");
    await until(clock, () => a.elector.isLeader);
    server.scripts.push((_seen, response) => {
      sendStatus(response, 500, "InternalError", "etcd is away");
      return true;
    });
    const renewed = Date.parse(lease()?.spec?.renewTime ?? "");
    await until(clock, () => a.log.length === 2);
    expect(clock.now() - renewed).toBeGreaterThanOrEqual(10_000);
    expect(clock.now() - renewed).toBeLessThan(12_500);
    expect([a.terms[0]?.aborted, a.elector.isLeader]).toEqual([true, false]);
    expect(() => a.elector.fence()).toThrow(LeadershipLostError);
  });

  test("the fence closes exactly at the deadline, independent of timers", async () => {
    const a = candidate("a");
    await until(clock, () => a.elector.isLeader);
    server.scripts.push(() => true);
    const renewed = Date.parse(lease()?.spec?.renewTime ?? "");
    await until(clock, () => clock.now() - renewed >= 9_900);
    a.elector.fence();
    clock.pause(renewed + 9_999 - clock.now());
    a.elector.fence();
    clock.pause(1);
    expect(() => a.elector.fence()).toThrow(/last renewed 10000 ms ago/);
    server.scripts.length = 0;
  });

  test("a stolen Lease ends the term at the next renewal", async () => {
    const a = candidate("a");
    await until(clock, () => a.elector.isLeader);
    server.put(PATH, {
      ...lease(),
      metadata: { name: "operator", namespace: "berth" },
      spec: { holderIdentity: "thief", leaseDurationSeconds: 15 },
    });
    await until(clock, () => a.log.includes("stopped"));
    expect([a.elector.isLeader, a.elector.holder, a.terms[0]?.aborted]).toEqual([false, "thief", true]);
    expect(lease()?.spec?.holderIdentity).toBe("thief");
  });

  test("a change by another client that keeps the holder does not end the term", async () => {
    const a = candidate("a");
    await until(clock, () => a.elector.isLeader);
    for (let i = 0; i < 4; i += 1) {
      const known = lease();
      const at = writes();
      server.put(PATH, { ...known, metadata: { ...known?.metadata, labels: { touched: String(i) } } });
      await until(clock, () => writes() >= at + 2);
    }
    expect([a.log, lease()?.metadata.labels]).toEqual([["started"], { touched: "3" }]);
  });

  test("a leader creates its deleted Lease again", async () => {
    const a = candidate("a");
    await until(clock, () => a.elector.isLeader);
    server.remove(PATH);
    await until(clock, () => lease() !== undefined);
    expect([a.log, lease()?.spec?.holderIdentity]).toEqual([["started"], "a"]);
  });

  test("tries to acquire a lost Lease again, after the work of the lost term has ended", async () => {
    const works: PromiseWithResolvers<void>[] = [];
    const a = candidate("a", {
      onStartedLeading: () => {
        const work = Promise.withResolvers<void>();
        works.push(work);
        return work.promise;
      },
    });
    await until(clock, () => a.elector.isLeader);
    clock.pause(11_000);
    await until(clock, () => a.log.includes("stopped"));
    const from = clock.monotonic();
    await until(clock, () => clock.monotonic() - from > 60_000, 500);
    expect(works).toHaveLength(1);
    works[0]?.resolve();
    await until(clock, () => works.length === 2);
    expect(a.elector.isLeader).toBe(true);
    works[1]?.resolve();
  });

  test.each([
    ["lost", (_: ReturnType<typeof candidate>) => clock.pause(11_000)],
    ["given up", (a: ReturnType<typeof candidate>) => a.elector.stepDown()],
  ])("work left over from a term that was %s does not pass the fence of the next term", async (_how, end) => {
    const fences: (() => void)[] = [];
    const a = candidate("a", {
      onStartedLeading: (signal, fence) => {
        fences.push(fence);
        return new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
      },
    });
    await until(clock, () => a.elector.isLeader);
    fences[0]?.();
    end(a);
    await until(clock, () => fences.length === 2);
    a.elector.fence();
    fences[1]?.();
    expect(() => fences[0]?.()).toThrow(LeadershipLostError);
  });
});

describe("a process that was paused", () => {
  test.each([
    ["paused", { suspended: false }],
    ["suspended with its machine, whose monotonic clock stopped", { suspended: true }],
  ])("%s does not act when it resumes, and does not renew what it may have lost", async (_name, how) => {
    const a = candidate("a");
    await until(clock, () => a.elector.isLeader);
    const before = writes();
    clock.pause(10_001, how);
    expect(() => a.elector.fence()).toThrow(LeadershipLostError);
    expect(a.elector.isLeader).toBe(false);
    const fenced = client.fenced(() => a.elector.fence());
    await expect(fenced.delete(PODS, { namespace: "x", name: "y" })).rejects.toBeInstanceOf(LeadershipLostError);
    await until(clock, () => a.log.includes("stopped"));
    expect(writes()).toBe(before);
  });

  test("a wall clock that is set back does not extend a term", async () => {
    const a = candidate("a");
    await until(clock, () => a.elector.isLeader);
    server.scripts.push(() => true);
    clock.jumpWall(-3_600_000);
    clock.pause(10_001);
    expect(() => a.elector.fence()).toThrow(LeadershipLostError);
    server.scripts.length = 0;
  });

  test("a renewal whose answer comes too late does not reopen the fence", async () => {
    const a = candidate("a");
    await until(clock, () => a.elector.isLeader);
    let answer: (() => void) | undefined;
    server.scripts.push((seen, response) => {
      if (seen.method !== "PUT" || answer) return false;
      answer = () => {
        response.writeHead(200, { "content-type": "application/json" });
        response.end(
          JSON.stringify({ ...(seen.body as Lease), metadata: { ...lease()?.metadata, resourceVersion: "999" } }),
        );
      };
      return true;
    });
    await until(clock, () => answer !== undefined);
    clock.pause(10_001);
    answer?.();
    await until(clock, () => a.log.includes("stopped"), 0);
    expect(() => a.elector.fence()).toThrow(LeadershipLostError);
  });
});

describe("confirm", () => {
  test("an unconfirmed Lease is released, and no candidate leads", async () => {
    let asked = 0;
    const a = candidate("a", {
      confirm: async () => {
        asked += 1;
        expect(() => a.elector.fence()).toThrow(LeadershipLostError);
        return asked > 2;
      },
    });
    await until(clock, () => asked === 1 && lease()?.spec?.holderIdentity === "");
    expect([a.log, a.elector.isLeader]).toEqual([[], false]);
    await until(clock, () => a.elector.isLeader);
    expect([asked, a.log]).toEqual([3, ["started"]]);
  });

  test("an unknown result is requested again, and the fence stays closed until then", async () => {
    let asked = 0;
    const a = candidate("a", {
      confirm: async () => {
        asked += 1;
        if (asked < 3) throw new Error("no answer");
        return true;
      },
    });
    await until(clock, () => asked === 2);
    expect(a.log).toEqual([]);
    await until(clock, () => a.elector.isLeader);
    expect(asked).toBe(3);
  });

  test("timely renewals are not confirmed again, but a deleted and re-created Lease is", async () => {
    let may = true;
    let asked = 0;
    const a = candidate("a", {
      confirm: async () => {
        asked += 1;
        return may;
      },
    });
    await until(clock, () => a.elector.isLeader);
    const from = clock.monotonic();
    await until(clock, () => clock.monotonic() - from > 30_000, 250);
    expect(asked).toBe(1);
    may = false;
    server.remove(PATH);
    await until(clock, () => a.log.includes("stopped"));
    expect([asked, a.terms[0]?.aborted]).toEqual([2, true]);
  });

  test("a Lease that was acquired but never confirmed is released at the end", async () => {
    const a = candidate("a", { confirm: () => Promise.reject(new Error("no answer")) });
    await until(clock, () => lease()?.spec?.holderIdentity === "a");
    a.stop.abort();
    await settled(clock, a.run);
    expect([lease()?.spec?.holderIdentity, a.log]).toEqual(["", []]);
  });
});

describe("stepDown", () => {
  test("ends the work, then releases the Lease, and tries again only at its turn", async () => {
    const drained = Promise.withResolvers<void>();
    const turns = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    let turn = 0;
    const a = candidate("a", {
      turn: async (signal) => {
        const next = turns[turn];
        turn += 1;
        const ended = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
        await Promise.race([next?.promise, ended]);
      },
      onStartedLeading: () => drained.promise,
    });
    turns[0]?.resolve();
    await until(clock, () => a.elector.isLeader);
    a.elector.stepDown();
    const from = clock.monotonic();
    await until(clock, () => clock.monotonic() - from > 30_000, 250);
    // The work still drains, and the fence still lets its requests pass, because the Lease is held.
    expect([a.elector.isLeader, a.elector.isBusy, lease()?.spec?.holderIdentity]).toEqual([true, true, "a"]);
    drained.resolve();
    await until(clock, () => a.log.includes("stopped"));
    expect([a.elector.isBusy, lease()?.spec?.holderIdentity]).toEqual([false, ""]);
    const b = candidate("b");
    await until(clock, () => b.elector.isLeader);
    expect(turn).toBe(2);
  });
});

describe("ending", () => {
  test("the Lease is renewed while the work drains, and then released", async () => {
    const drained = Promise.withResolvers<void>();
    const a = candidate("a", { onStartedLeading: () => drained.promise });
    await until(clock, () => a.elector.isLeader);
    a.stop.abort();
    const from = clock.monotonic();
    await until(clock, () => clock.monotonic() - from > 60_000, 500);
    a.elector.fence();
    expect(lease()?.spec?.holderIdentity).toBe("a");
    drained.resolve();
    await settled(clock, a.run);
    expect([lease()?.spec?.holderIdentity, a.log]).toEqual(["", ["stopped"]]);
    expect(() => a.elector.fence()).toThrow(LeadershipLostError);
  });

  test("failed work ends the run with its error and releases the Lease", async () => {
    const a = candidate("a", { onStartedLeading: () => Promise.reject(new Error("broken")) });
    await expect(settled(clock, a.run)).rejects.toThrow("broken");
    expect([lease()?.spec?.holderIdentity, a.log]).toEqual(["", ["stopped"]]);
  });

  test("work that throws because it is being ended does not turn a clean end into an error", async () => {
    const a = candidate("a", {
      onStartedLeading: (signal) =>
        new Promise((_, reject) =>
          signal.addEventListener("abort", () => reject(new Error("cut off")), { once: true }),
        ),
    });
    await until(clock, () => a.elector.isLeader);
    a.stop.abort();
    await settled(clock, a.run);
    expect(lease()?.spec?.holderIdentity).toBe("");
  });

  test("an unanswered release does not delay the end", async () => {
    const a = candidate("a", { client: new KubeClient({ access: server.access, clock }) });
    await until(clock, () => a.elector.isLeader, 1);
    server.scripts.push((seen) => seen.method === "PUT");
    a.stop.abort();
    await settled(clock, a.run);
    expect(a.log).toEqual(["started", "stopped"]);
  });

  test("a candidate that never led does not touch the Lease", async () => {
    const a = candidate("a");
    await until(clock, () => a.elector.isLeader);
    const b = candidate("b");
    await until(clock, () => b.elector.holder === "a");
    const version = lease()?.metadata.resourceVersion;
    b.stop.abort();
    await settled(clock, b.run, 1);
    expect([b.log, lease()?.metadata.resourceVersion]).toEqual([[], version]);
  });
});

test("refuses inconsistent durations", () => {
  const options = {
    client,
    namespace: "n",
    name: "l",
    identity: "a",
    clock,
    logger: silentLogger,
    onStartedLeading: () => {},
  };
  expect(() => new LeaderElector({ ...options, renewDeadlineMs: 15_000 })).toThrow(RangeError);
  expect(() => new LeaderElector({ ...options, retryPeriodMs: 10_000 })).toThrow(RangeError);
});

/** The clock of one process. While paused, its timers stop, but time goes on. */
class PausableClock implements Clock {
  paused = false;
  readonly #shared: VirtualClock;
  readonly #held: (() => void)[] = [];

  constructor(shared: VirtualClock) {
    this.#shared = shared;
  }

  now(): number {
    return this.#shared.now();
  }

  monotonic(): number {
    return this.#shared.monotonic();
  }

  setTimer(fn: () => void, delayMs: number): Timer {
    let cancelled = false;
    const fire = () => {
      if (cancelled) return;
      if (this.paused) this.#held.push(fire);
      else fn();
    };
    const timer = this.#shared.setTimer(fire, delayMs);
    return {
      cancel: () => {
        cancelled = true;
        timer.cancel();
      },
    };
  }

  resume(): void {
    this.paused = false;
    for (const fire of this.#held.splice(0)) fire();
  }
}

type Fault =
  | { do: "advance"; ms: number }
  | { do: "pause"; who: number }
  | { do: "resume"; who: number }
  | { do: "server"; mood: "good" | "failing" | "deaf" | "mute" };

const fault: fc.Arbitrary<Fault> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant("advance" as const), ms: fc.integer({ min: 500, max: 9_000 }) }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("pause" as const), who: fc.nat(2) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("resume" as const), who: fc.nat(2) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("server" as const),
      // mute: the server applies the request, then breaks the connection instead of answering.
      mood: fc.constantFrom("good" as const, "failing" as const, "deaf" as const, "mute" as const),
    }),
  },
);

test("no two processes pass their fences at the same time, under random failures and pauses", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fault, { minLength: 5, maxLength: 25 }), async (faults) => {
      await using own = await FakeApiServer.start();
      const shared = new VirtualClock(VIRTUAL_EPOCH_MS);
      let mood = "good";
      own.scripts.push((seen, response, socket) => {
        if (mood === "failing") sendStatus(response, 500, "InternalError", "failing");
        else if (mood === "deaf") socket.resetAndDestroy();
        else if (mood === "mute" && seen.method !== "GET") {
          socket.resetAndDestroy();
          return false;
        } else return false;
        return true;
      });
      const end = new AbortController();
      const processes = ["a", "b", "c"].map((identity, i) => {
        const ownClock = new PausableClock(shared);
        const ownClient = new KubeClient({ access: own.access, clock: ownClock });
        const elector = new LeaderElector({
          client: ownClient,
          namespace: "berth",
          name: "operator",
          identity,
          clock: ownClock,
          logger: silentLogger,
          random: () => i / 3,
          onStartedLeading: () => {},
        });
        return { elector, clock: ownClock, client: ownClient, run: elector.run(end.signal) };
      });
      const leaders = () => processes.filter(({ elector }) => elector.isLeader);
      const passUntil = (condition: () => boolean) =>
        until(
          shared,
          () => {
            expect(leaders().length).toBeLessThanOrEqual(1);
            return condition();
          },
          500,
        );
      const pass = (ms: number) => {
        const over = shared.monotonic() + ms;
        return passUntil(() => shared.monotonic() >= over);
      };
      for (const one of faults) {
        if (one.do === "advance") await pass(one.ms);
        else if (one.do === "server") mood = one.mood;
        else if (one.do === "pause") (processes[one.who] as (typeof processes)[0]).clock.paused = true;
        else if (one.do === "resume") (processes[one.who] as (typeof processes)[0]).clock.resume();
      }
      mood = "good";
      for (const one of processes) one.clock.resume();
      await passUntil(() => leaders().length === 1);
      end.abort();
      await settled(shared, Promise.all(processes.map(({ run }) => run)));
      for (const one of processes) await one.client.close();
    }),
    { numRuns: 15, ...CI_SEED },
  );
}, 60_000);

test("uses the Lease resource", async () => {
  candidate("a");
  await until(clock, () => lease() !== undefined);
  expect((await client.get(LEASES, { namespace: "berth", name: "operator" })).kind).toBe("Lease");
});
