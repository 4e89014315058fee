import fc from "fast-check";
import { beforeEach, describe, expect, test } from "vitest";
import { TerminalError, WaitError } from "../../src/core/errors.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { WorkQueue } from "../../src/watch/workqueue.ts";
import { refusal } from "../reconcile/fake-kube.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

let clock: VirtualClock;
let queue: WorkQueue;
let stop: AbortController;
let metrics: ReturnType<typeof createMetrics>;

beforeEach(() => {
  metrics = createMetrics();
  clock = new VirtualClock();
  queue = new WorkQueue({ name: "test", clock, logger: silentLogger, metrics, random: () => 1 });
  stop = new AbortController();
});

/** A handler whose runs the test ends one by one. */
function gatedHandler() {
  const started: string[] = [];
  const gates: { key: string; release: (error?: unknown) => void }[] = [];
  const handle = (key: string) => {
    started.push(key);
    return new Promise<void>((resolve, reject) => {
      gates.push({ key, release: (error) => (error === undefined ? resolve() : reject(error)) });
    });
  };
  const release = async (key: string, error?: unknown) => {
    const at = gates.findIndex((gate) => gate.key === key);
    if (at === -1) throw new Error(`${key} is not being handled`);
    gates.splice(at, 1)[0]?.release(error);
    await clock.settle();
  };
  return { handle, started, release };
}

describe("order", () => {
  test("handles keys in the order they were added, each once while it waits", async () => {
    const { handle, started, release } = gatedHandler();
    for (const key of ["a", "b", "a", "c", "b"]) queue.add(key);
    expect(queue.depth).toBe(3);
    void queue.run({ workers: 1, handle, signal: stop.signal });
    for (const key of ["a", "b", "c"]) await release(key);
    expect(started).toEqual(["a", "b", "c"]);
    expect([queue.depth, queue.processing]).toEqual([0, 0]);
  });

  test("handles a key again that was added while it was handled, but never concurrently", async () => {
    const { handle, started, release } = gatedHandler();
    void queue.run({ workers: 4, handle, signal: stop.signal });
    queue.add("a");
    queue.add("a");
    queue.add("a");
    await clock.settle();
    expect([started, queue.depth]).toEqual([["a"], 0]);
    await release("a");
    expect(started).toEqual(["a", "a"]);
    await release("a");
    expect([started.length, queue.processing]).toEqual([2, 0]);
  });

  test("handles no more keys at once than there are workers", async () => {
    const { handle, started, release } = gatedHandler();
    void queue.run({ workers: 2, handle, signal: stop.signal });
    for (const key of ["a", "b", "c"]) queue.add(key);
    expect([started, queue.depth]).toEqual([["a", "b"], 1]);
    await release("b");
    expect(started).toEqual(["a", "b", "c"]);
  });
});

describe("time", () => {
  test("uses the earlier of a key's two delays, and adds the key once", async () => {
    const { handle, started, release } = gatedHandler();
    void queue.run({ workers: 1, handle, signal: stop.signal });
    queue.addAfter("a", 1_000);
    queue.addAfter("a", 200);
    queue.addAfter("a", 500);
    await clock.advance(199);
    expect(started).toEqual([]);
    await clock.advance(1);
    expect(started).toEqual(["a"]);
    await release("a");
    await clock.advance(5_000);
    expect(started).toEqual(["a"]);
  });

  test.each([0, -5, Number.NaN])("adds a key at once for a delay of %s", (ms) => {
    queue.addAfter("a", ms);
    expect(queue.depth).toBe(1);
  });

  test("retries a failed key with growing, bounded backoff, and resets it after a success", async () => {
    let fail = true;
    const at: number[] = [];
    const handle = async () => {
      at.push(clock.monotonic());
      if (fail) throw new Error("not yet");
    };
    void queue.run({ workers: 1, handle, signal: stop.signal });
    queue.add("a");
    await clock.advance(400_000);
    const gaps = at.slice(1).map((time, i) => time - (at[i] ?? 0));
    expect(gaps.slice(0, 5)).toEqual([200, 400, 800, 1_600, 3_200]);
    expect(Math.max(...gaps)).toBe(60_000);
    fail = false;
    await clock.advance(60_000);
    expect(queue.failures("a")).toBe(0);
    fail = true;
    const before = at.length;
    queue.add("a");
    await clock.advance(200);
    expect(at.length).toBe(before + 2);
    stop.abort();
  });

  test("randomizes half of the backoff", async () => {
    const waits = [0, 0.5, 1].map((value) => {
      const own = new VirtualClock();
      const jittered = new WorkQueue({ name: "test", clock: own, logger: silentLogger, random: () => value });
      jittered.addRateLimited("a");
      return own.nextTimerMs;
    });
    expect(waits).toEqual([100, 150, 200]);
  });

  test("requeues after a WaitError's own delay, and counts no failure", async () => {
    const at: number[] = [];
    const start = clock.monotonic();
    const handle = async () => {
      at.push(clock.monotonic() - start);
      if (at.length < 3) throw new WaitError("QuotaExceeded", "no room", 7_000);
    };
    void queue.run({ workers: 1, handle, signal: stop.signal });
    queue.add("a");
    await clock.advance(30_000);
    expect(at).toEqual([0, 7_000, 14_000]);
    expect(queue.failures("a")).toBe(0);
  });

  test("does not retry a TerminalError before the next add", async () => {
    let runs = 0;
    const handle = async () => {
      runs += 1;
      throw new TerminalError("BadSpec", "fix it");
    };
    void queue.run({ workers: 1, handle, signal: stop.signal });
    queue.add("a");
    await clock.advance(3_600_000);
    expect(runs).toBe(1);
    queue.add("a");
    await clock.settle();
    expect(runs).toBe(2);
  });

  test("keeps growing the backoff of a handler that calls addRateLimited", async () => {
    let runs = 0;
    const handle = async (key: string) => {
      runs += 1;
      if (runs < 4) queue.addRateLimited(key);
    };
    void queue.run({ workers: 1, handle, signal: stop.signal });
    queue.add("a");
    await clock.advance(200 + 400 + 800);
    expect([runs, queue.failures("a")]).toEqual([4, 0]);
  });
});

describe("shutdown", () => {
  test("run waits for the running handlers and starts no others", async () => {
    const { handle, started, release } = gatedHandler();
    const signals: AbortSignal[] = [];
    let ended = false;
    const run = queue.run({
      workers: 2,
      handle: (key, signal) => {
        signals.push(signal);
        return handle(key);
      },
      signal: stop.signal,
    });
    void run.then(() => {
      ended = true;
    });
    for (const key of ["a", "b", "c"]) queue.add(key);
    queue.addAfter("d", 10);
    stop.abort();
    await clock.advance(1_000);
    await release("a");
    expect([started, ended, signals.every((signal) => signal.aborted)]).toEqual([["a", "b"], false, true]);
    await release("b", new Error("aborted"));
    await run;
    expect([started, clock.pendingTimers]).toEqual([["a", "b"], 0]);
  });

  test("a run with an aborted signal ends at once", async () => {
    stop.abort();
    queue.add("a");
    await queue.run({ workers: 1, handle: () => Promise.reject(new Error("called")), signal: stop.signal });
    expect(queue.depth).toBe(0);
  });

  test("a queue that has ended ignores keys", async () => {
    stop.abort();
    await queue.run({ workers: 1, handle: async () => {}, signal: stop.signal });
    queue.add("a");
    queue.addAfter("b", 10);
    queue.addRateLimited("c");
    expect([queue.depth, clock.pendingTimers]).toEqual([0, 0]);
  });

  test("refuses a second run", async () => {
    const { handle } = gatedHandler();
    void queue.run({ workers: 1, handle, signal: stop.signal });
    await expect(queue.run({ workers: 1, handle, signal: stop.signal })).rejects.toThrow(/was run already/);
  });
});

test("metrics follow depth, adds, retries and errors", async () => {
  let fail = true;
  queue.add("a");
  queue.add("a");
  queue.add("b");
  const value = async (metric: { get(): Promise<{ values: { value: number }[] }> }) =>
    (await metric.get()).values[0]?.value;
  expect(await value(metrics.workqueueDepth)).toBe(2);
  const handle = async () => {
    if (!fail) return;
    fail = false;
    throw new Error("once");
  };
  void queue.run({ workers: 1, handle, signal: stop.signal });
  await clock.advance(1_000);
  expect(await value(metrics.workqueueDepth)).toBe(0);
  expect([await value(metrics.workqueueRetries), await value(metrics.reconcileErrors)]).toEqual([1, 1]);
});

test("logs a conflict as information, unless it stays: the next reconcile reads the newer object", async () => {
  const levels: string[] = [];
  const log = (level: string) => () => void levels.push(level);
  const logger = Object.assign(Object.create(silentLogger), { info: log("info"), error: log("error") });
  const racing = new WorkQueue({ name: "test", clock, logger, random: () => 1 });
  racing.add("a");
  const handle = () => Promise.reject(refusal(409, "Conflict", "the object has been modified"));
  void racing.run({ workers: 1, handle, signal: stop.signal });
  await clock.advance(2_000);
  expect(levels.slice(0, 4)).toEqual(["info", "info", "info", "error"]);
});

test("queues with the same name share the depth gauge, and a queue that ends removes its keys", async () => {
  const own = createMetrics();
  const [first, second] = [1, 2].map(
    () => new WorkQueue({ name: "shared", clock, logger: silentLogger, metrics: own }),
  );
  const depth = async () => (await own.workqueueDepth.get()).values[0]?.value;
  for (const key of ["a", "b"]) first?.add(key);
  second?.add("c");
  expect(await depth()).toBe(3);
  stop.abort();
  await first?.run({ workers: 1, handle: async () => {}, signal: stop.signal });
  expect(await depth()).toBe(1);
});

/** One step of a random schedule. */
type Step =
  | { do: "add"; key: string }
  | { do: "addAfter"; key: string; ms: number }
  | { do: "addRateLimited"; key: string }
  | { do: "advance"; ms: number }
  | { do: "finish"; at: number; fail: boolean };

const key = fc.constantFrom("a", "b", "c", "d");
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ do: fc.constant("add" as const), key }),
  fc.record({ do: fc.constant("addAfter" as const), key, ms: fc.nat(500) }),
  fc.record({ do: fc.constant("addRateLimited" as const), key }),
  fc.record({ do: fc.constant("advance" as const), ms: fc.nat(800) }),
  fc.record({ do: fc.constant("finish" as const), at: fc.nat(), fail: fc.boolean() }),
);

test("loses no add and never handles a key twice at a time, under random schedules", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), fc.integer({ min: 1, max: 3 }), async (steps, workers) => {
      const own = new VirtualClock();
      const end = new AbortController();
      const tested = new WorkQueue({ name: "test", clock: own, logger: silentLogger, random: () => 0.5 });
      const running = new Map<string, (fail: boolean) => void>();
      /** Sequence numbers of a key's last start and last request: a start must follow each request. */
      const lastStart = new Map<string, number>();
      const lastRequest = new Map<string, number>();
      const violations: string[] = [];
      let tick = 0;
      const handle = (name: string) => {
        // Recorded instead of thrown, because the queue catches what a handler throws.
        if (running.has(name)) violations.push(`${name} twice at a time`);
        if (running.size >= workers) violations.push("more than the workers");
        tick += 1;
        lastStart.set(name, tick);
        return new Promise<void>((resolve, reject) => {
          running.set(name, (fail) => {
            running.delete(name);
            if (fail) reject(new Error("failed"));
            else resolve();
          });
        });
      };
      const request = (name: string) => {
        tick += 1;
        lastRequest.set(name, tick);
      };
      const run = tested.run({ workers, handle, signal: end.signal });
      for (const one of steps) {
        if (one.do === "advance") await own.advance(one.ms);
        else if (one.do === "finish") {
          const finish = [...running.values()][one.at % Math.max(1, running.size)];
          finish?.(one.fail);
          await Promise.resolve();
        } else {
          request(one.key);
          if (one.do === "add") tested.add(one.key);
          else if (one.do === "addAfter") tested.addAfter(one.key, one.ms);
          else tested.addRateLimited(one.key);
        }
      }
      // Let everything finish: then a start has followed every request, and the queue is empty.
      for (let round = 0; round < 200 && (running.size > 0 || tested.depth > 0 || own.pendingTimers > 0); round += 1) {
        for (const finish of [...running.values()]) finish(false);
        await own.advance(60_000);
      }
      expect(violations).toEqual([]);
      expect([running.size, tested.depth, tested.processing, own.pendingTimers]).toEqual([0, 0, 0, 0]);
      for (const [name, at] of lastRequest) expect(lastStart.get(name) ?? 0).toBeGreaterThan(at);
      end.abort();
      await run;
    }),
    { numRuns: 150 },
  );
});
