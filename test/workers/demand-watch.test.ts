import { describe, expect, test } from "vitest";
import { demandOf } from "../../src/autoscale/demand.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { type CountRunning, DemandWatch } from "../../src/workers/demand-watch.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

type Counted = Awaited<ReturnType<CountRunning>>;

const counted = (count: number, pages = 1): Counted => ({ ok: true, count, isComplete: true, pages });

/** A watch over answers that the test sets, with a record of all requests. */
class Bench {
  readonly clock = new VirtualClock();
  readonly asked: string[] = [];
  readonly watch: DemandWatch;
  answer: Counted = counted(0);
  isQueueWell = true;
  hasWorkers = true;
  mayAsk = true;
  stats = { depth: 0, pending: 0 };
  readMs = 0;
  whileListing: () => Promise<void> = async () => {};
  readonly #ending = new AbortController();

  constructor() {
    const self = this;
    const { clock } = this;
    this.watch = new DemandWatch({
      context: { clock, random: () => 0.5, timing: DEFAULT_TIMING },
      queue: {
        get stats() {
          return self.stats;
        },
        get readMs() {
          return self.readMs;
        },
        refresh: async () => {
          this.asked.push("stats");
          if (this.isQueueWell) this.readMs = clock.monotonic();
          return this.isQueueWell;
        },
      },
      count: async () => {
        this.asked.push("list");
        await this.whileListing();
        return this.answer;
      },
      hasWorkers: () => this.hasWorkers,
      mayAsk: () => this.mayAsk,
      onReading: () => {},
    });
  }

  get signal(): AbortSignal {
    return this.#ending.signal;
  }

  start(mayAsk: () => Promise<void> = async () => {}): void {
    void this.watch.run(this.signal, mayAsk);
  }

  async countsWithin(ms: number): Promise<number> {
    const before = this.asked.length;
    await this.clock.advance(ms);
    return this.asked.length - before;
  }

  [Symbol.dispose](): void {
    this.#ending.abort();
  }
}

const MINUTE_MS = 60_000;

test("needs a count that began after the request for one", async () => {
  using bench = new Bench();
  const slow = Promise.withResolvers<void>();
  bench.whileListing = () => slow.promise;
  const earlier = bench.watch.refreshRunning(0, bench.signal);
  await bench.clock.advance(1_000);
  const later = bench.watch.refreshRunning(0, bench.signal);
  slow.resolve();
  expect(await Promise.all([earlier, later])).toEqual([true, true]);
  expect(bench.asked).toEqual(["list", "list"]);
});

describe("the pace of counting", () => {
  test.each<[string, Partial<Pick<Bench, "hasWorkers" | "stats" | "answer">>, number]>([
    ["does not count without workers and waiting items", { hasWorkers: false }, 0],
    ["does not count while sessions run elsewhere", { hasWorkers: false, answer: counted(3) }, 0],
    ["counts every 10 s with workers", {}, 6],
    ["counts every 10 s while items wait", { hasWorkers: false, stats: { depth: 2, pending: 0 } }, 6],
    ["counts every 10 s after an item was polled", { hasWorkers: false, stats: { depth: 0, pending: 1 } }, 6],
    [
      "reads no more pages a minute for a long list than for five pages",
      { hasWorkers: true, answer: counted(3, 30) },
      1,
    ],
  ])("%s", async (_what, how, expected) => {
    using bench = new Bench();
    Object.assign(bench, how);
    bench.start();
    await bench.clock.settle();
    expect(await bench.countsWithin(MINUTE_MS)).toBe(expected);
  });

  test("retries a failed count when the API health says so", async () => {
    using bench = new Bench();
    bench.answer = { ok: false, waitMs: 700 };
    bench.start();
    await bench.clock.settle();
    expect(await bench.countsWithin(1_400)).toBe(2);
  });

  test("counts at once after a nudge", async () => {
    using bench = new Bench();
    bench.start();
    await bench.clock.settle();
    bench.watch.nudge();
    expect(await bench.countsWithin(0)).toBe(1);
  });
});

describe("an Environment without workers and waiting items", () => {
  const demandNow = ({ watch, clock }: Bench) =>
    demandOf(watch.readings, clock.monotonic(), DEFAULT_TIMING.demandStaleMs);

  test("wants no worker, whatever runs elsewhere", () => {
    using bench = new Bench();
    bench.hasWorkers = false;
    bench.answer = counted(3);
    expect(demandNow(bench)).toEqual({ kind: "known", sessions: 0, running: 0, pending: 0 });
  });

  test("has an unknown demand once its statistics are old", async () => {
    using bench = new Bench();
    bench.hasWorkers = false;
    await bench.clock.advance(DEFAULT_TIMING.demandStaleMs + 1);
    expect(demandNow(bench)).toMatchObject({ kind: "unknown", reason: "DemandStale" });
  });

  test.each<[string, (bench: Bench) => void]>([
    ["a worker appears", (bench) => Object.assign(bench, { hasWorkers: true })],
    ["an item arrives", (bench) => Object.assign(bench, { stats: { depth: 1, pending: 0 } })],
  ])("counts sessions at once and does not believe an old count when %s", async (_what, happen) => {
    using bench = new Bench();
    bench.answer = counted(3);
    bench.start();
    await bench.clock.settle();
    bench.hasWorkers = false;
    for (let passed = 0; passed < 5 * MINUTE_MS; passed += MINUTE_MS) {
      await bench.clock.advance(MINUTE_MS);
      bench.readMs = bench.clock.monotonic();
    }
    expect(bench.asked).toEqual(["list"]);
    bench.answer = counted(4);
    happen(bench);
    expect(demandNow(bench)).toMatchObject({ kind: "unknown" });
    bench.watch.look();
    await bench.clock.settle();
    expect(bench.asked).toEqual(["list", "list"]);
    expect(demandNow(bench)).toMatchObject({ kind: "known", running: 4 });
  });

  test("makes a decision wait for the first count after a rest, shared with the loop", async () => {
    using bench = new Bench();
    bench.hasWorkers = false;
    bench.start();
    await bench.watch.catchUp(bench.signal);
    expect(bench.asked).toEqual([]);
    bench.hasWorkers = true;
    bench.watch.look();
    await bench.watch.catchUp(bench.signal);
    await bench.watch.catchUp(bench.signal);
    expect(bench.asked).toEqual(["list"]);
  });

  test("reads nothing for a decision while requests are not allowed", async () => {
    using bench = new Bench();
    bench.mayAsk = false;
    await bench.watch.catchUp(bench.signal);
    expect(await bench.watch.refreshAll(bench.signal)).toBe(false);
    expect(await bench.watch.refreshRunning(0, bench.signal)).toBe(false);
    expect(bench.asked).toEqual([]);
  });
});

describe("readings", () => {
  test("keep the last value after a failure, which then becomes old", async () => {
    using bench = new Bench();
    bench.answer = counted(4);
    await bench.watch.refreshAll(bench.signal);
    bench.answer = { ok: false, waitMs: 1 };
    await bench.clock.advance(DEFAULT_TIMING.demandStaleMs + 1);
    expect(await bench.watch.refreshRunning(0, bench.signal)).toBe(false);
    const { readings } = bench.watch;
    expect(readings.running).toMatchObject({ running: 4 });
    expect(demandOf(readings, bench.clock.monotonic(), DEFAULT_TIMING.demandStaleMs)).toMatchObject({
      kind: "unknown",
    });
  });

  test("discard a count that ran out of pages, and say why", async () => {
    using bench = new Bench();
    bench.answer = { ok: true, count: 3, isComplete: false, pages: 50 };
    expect(await bench.watch.refreshAll(bench.signal)).toBe(false);
    expect(bench.watch.readings.running).toBeNull();
    expect(bench.watch.blockedReason).toContain("50 pages");
    bench.answer = counted(3);
    expect(await bench.watch.refreshAll(bench.signal)).toBe(true);
    expect(bench.watch.blockedReason).toBeNull();
    expect(bench.watch.readings.running).toMatchObject({ running: 3 });
  });

  test("read the statistics first for a decision, and skip the list if they fail", async () => {
    using bench = new Bench();
    await bench.watch.refreshAll(bench.signal);
    bench.isQueueWell = false;
    expect(await bench.watch.refreshAll(bench.signal)).toBe(false);
    expect(bench.asked).toEqual(["stats", "list", "stats"]);
  });

  test("keep an item that moves to a worker during the count, despite newer statistics", async () => {
    using bench = new Bench();
    bench.stats = { depth: 1, pending: 0 };
    bench.whileListing = async () => {
      await bench.clock.advance(500);
      // Neither on the page that was read, nor in the queue any more.
      bench.stats = { depth: 0, pending: 0 };
      bench.readMs = bench.clock.monotonic();
    };
    expect(await bench.watch.refreshAll(bench.signal)).toBe(true);
    expect(demandOf(bench.watch.readings, bench.clock.monotonic(), MINUTE_MS)).toMatchObject({
      sessions: 1,
      pending: 1,
    });
    // The next count includes it.
    bench.whileListing = async () => {};
    bench.answer = counted(1);
    expect(await bench.watch.refreshRunning(0, bench.signal)).toBe(true);
    expect(demandOf(bench.watch.readings, bench.clock.monotonic(), MINUTE_MS)).toMatchObject({
      sessions: 1,
      pending: 0,
    });
  });

  test("are not refreshed if they are recent enough", async () => {
    using bench = new Bench();
    await bench.watch.refreshRunning(1_000, bench.signal);
    await bench.clock.advance(1_000);
    await bench.watch.refreshRunning(1_000, bench.signal);
    expect(bench.asked).toHaveLength(1);
    await bench.clock.advance(1);
    await bench.watch.refreshRunning(1_000, bench.signal);
    expect(bench.asked).toHaveLength(2);
  });

  test("are not satisfied by a count requested before the statistics", async () => {
    using bench = new Bench();
    const early = bench.watch.refreshRunning(0, bench.signal);
    await bench.clock.advance(1);
    await Promise.all([early, bench.watch.refreshRunning(0, bench.signal)]);
    expect(bench.asked.filter((call) => call === "list").length).toBe(2);
  });
});
