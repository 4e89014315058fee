import { describe, expect, test } from "vitest";
import { demandOf } from "../../src/autoscale/demand.ts";
import { DEFAULT_TIMING } from "../../src/sessions/timing.ts";
import { type CountRunning, DemandWatch } from "../../src/workers/demand-watch.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

type Counted = Awaited<ReturnType<CountRunning>>;

const counted = (count: number, pages = 1): Counted => ({ ok: true, count, isComplete: true, pages });

/** A watch over answers that a test sets; everything asked is written down in order. */
class Bench {
  readonly clock = new VirtualClock();
  readonly asked: string[] = [];
  readonly watch: DemandWatch;
  answer: Counted = counted(0);
  isQueueWell = true;
  hasWorkers = false;
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
      idleGapMs: () => DEFAULT_TIMING.countIdleMs,
      isBusy: () => this.hasWorkers,
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

describe("the pace of counting", () => {
  test.each<[string, Partial<Pick<Bench, "hasWorkers" | "stats" | "answer">>, number]>([
    ["idle: every 30 s", {}, 2],
    ["workers are there: every 10 s", { hasWorkers: true }, 6],
    ["items wait: every 10 s", { stats: { depth: 2, pending: 0 } }, 6],
    ["sessions run: every 10 s", { answer: counted(3) }, 6],
    ["a walk of many pages: as many pages a minute as with five", { hasWorkers: true, answer: counted(3, 30) }, 1],
  ])("%s", async (_what, how, expected) => {
    using bench = new Bench();
    Object.assign(bench, how);
    bench.start();
    await bench.clock.settle();
    expect(await bench.countsWithin(MINUTE_MS)).toBe(expected);
  });

  test("a failed one is tried again when the health of the API says so", async () => {
    using bench = new Bench();
    bench.answer = { ok: false, waitMs: 700 };
    bench.start();
    await bench.clock.settle();
    expect(await bench.countsWithin(1_400)).toBe(2);
  });

  test("a nudge counts at once", async () => {
    using bench = new Bench();
    bench.start();
    await bench.clock.settle();
    bench.watch.nudge();
    expect(await bench.countsWithin(0)).toBe(1);
  });
});

describe("readings", () => {
  test("a failure leaves the last one as it was, which then grows old", async () => {
    using bench = new Bench();
    bench.answer = counted(4);
    await bench.watch.refreshAll(bench.signal);
    bench.answer = { ok: false, waitMs: 1 };
    await bench.clock.advance(DEFAULT_TIMING.demandStaleMs + 1);
    expect(await bench.watch.refreshRunning(0, bench.signal)).toBe(false);
    const { readings } = bench.watch;
    expect(readings.running?.running).toBe(4);
    expect(demandOf(readings, bench.clock.monotonic(), DEFAULT_TIMING.demandStaleMs)).toMatchObject({
      kind: "unknown",
    });
  });

  test("a walk that ran out of pages counts nothing, and says why", async () => {
    using bench = new Bench();
    bench.answer = { ok: true, count: 3, isComplete: false, pages: 50 };
    expect(await bench.watch.refreshAll(bench.signal)).toBe(false);
    expect(bench.watch.readings.running).toBeNull();
    expect(bench.watch.hindrance).toContain("50 pages");
    bench.answer = counted(3);
    expect(await bench.watch.refreshAll(bench.signal)).toBe(true);
    expect({ hindrance: bench.watch.hindrance, running: bench.watch.readings.running?.running }).toEqual({
      hindrance: null,
      running: 3,
    });
  });

  test("for a decision the statistics come first, and the list is not read when they fail", async () => {
    using bench = new Bench();
    await bench.watch.refreshAll(bench.signal);
    bench.isQueueWell = false;
    expect(await bench.watch.refreshAll(bench.signal)).toBe(false);
    expect(bench.asked).toEqual(["stats", "list", "stats"]);
  });

  test("an item that goes to a worker during the walk is not lost to statistics that were read meanwhile", async () => {
    using bench = new Bench();
    bench.stats = { depth: 1, pending: 0 };
    bench.whileListing = async () => {
      await bench.clock.advance(500);
      // Not in the page that was read, and not in the queue any more.
      bench.stats = { depth: 0, pending: 0 };
      bench.readMs = bench.clock.monotonic();
    };
    expect(await bench.watch.refreshAll(bench.signal)).toBe(true);
    expect(demandOf(bench.watch.readings, bench.clock.monotonic(), MINUTE_MS)).toMatchObject({
      sessions: 1,
      pending: 1,
    });
    // The next walk has it.
    bench.whileListing = async () => {};
    bench.answer = counted(1);
    expect(await bench.watch.refreshRunning(0, bench.signal)).toBe(true);
    expect(demandOf(bench.watch.readings, bench.clock.monotonic(), MINUTE_MS)).toMatchObject({
      sessions: 1,
      pending: 0,
    });
  });

  test("one that is young enough is not read again", async () => {
    using bench = new Bench();
    await bench.watch.refreshRunning(1_000, bench.signal);
    await bench.clock.advance(1_000);
    await bench.watch.refreshRunning(1_000, bench.signal);
    expect(bench.asked).toHaveLength(1);
    await bench.clock.advance(1);
    await bench.watch.refreshRunning(1_000, bench.signal);
    expect(bench.asked).toHaveLength(2);
  });

  test("one under way that was asked for before the statistics is not enough", async () => {
    using bench = new Bench();
    const early = bench.watch.refreshRunning(0, bench.signal);
    await bench.clock.advance(1);
    await Promise.all([early, bench.watch.refreshRunning(0, bench.signal)]);
    expect(bench.asked.filter((call) => call === "list").length).toBe(2);
  });
});
