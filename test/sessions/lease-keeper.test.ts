import { afterEach, describe, expect, test } from "vitest";
import { seededRandom } from "../../simulator/ids.ts";
import type { Clock } from "../../src/core/clock.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import { Slots } from "../../src/core/slots.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { LeadershipLostError } from "../../src/kube/errors.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import type { Claim } from "../../src/protocol/claim.ts";
import type { HeldLease } from "../../src/protocol/lease.ts";
import { LeaseKeeper } from "../../src/sessions/lease-keeper.ts";
import { WorkApiError } from "../../src/work/errors.ts";
import type { Heartbeat, HeartbeatOutcome } from "../../src/work/types.ts";
import { claimOf, contextOf, JOURNAL, withFields } from "../protocol/claims.ts";
import { metricValue } from "../support/metric-value.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const SECOND = 1_000;
const INTERVAL = 30 * SECOND;
const TTL = 180 * SECOND;
const LABELS = { namespace: "agents", environment: "research" };

/** A heartbeat as the server received it. */
interface Sent {
  readonly workId: string;
  readonly atMs: number;
  readonly expected: string;
  readonly desiredTtlSeconds: number | undefined;
}

/** A lease keeper on a virtual clock, and a server whose answers the test sets. */
class Rig {
  readonly clock = new VirtualClock();
  readonly metrics = createMetrics();
  readonly sent: Sent[] = [];
  readonly changed: string[] = [];
  underWay = 0;
  mostUnderWay = 0;
  /** Timers that the keeper has armed: now, and the maximum. */
  timers = 0;
  mostTimers = 0;
  mayAct = true;
  #values = 0;
  /** The server's answer to a heartbeat. By default, it accepts at once. */
  answer: (sent: Sent) => Promise<HeartbeatOutcome> = async () => this.accepted();
  readonly keeper: LeaseKeeper;
  readonly ending = new AbortController();
  readonly running: Promise<void>;

  /** @param room the number of heartbeats that all members of the budget may have under way */
  constructor(room = 1_000) {
    const beats = new Slots(room);
    const context = contextOf({
      points: NO_POINTS,
      clock: this.#countedClock(),
      random: seededRandom(1),
      timing: DEFAULT_TIMING,
      logger: silentLogger,
      metrics: this.metrics,
      labels: LABELS,
      guard: () => {
        if (!this.mayAct) throw new LeadershipLostError("not the leader");
      },
      work: () => ({ beats, heartbeat: (workId: string, o: Omit<Sent, "workId" | "atMs">) => this.#beat(workId, o) }),
    } as Parameters<typeof contextOf>[0]);
    this.keeper = new LeaseKeeper(context, (claim) => this.changed.push(claim.record.journal.workId));
    this.running = this.keeper.run(this.ending.signal);
  }

  /** A claim whose lease was taken now. */
  kept(workId = "work_1"): Claim & { lease: { own: HeldLease } } {
    const claim = claimOf({ journal: { ...JOURNAL, lease: "Operator", workId } });
    const named = Object.assign(claim, { name: `pod-${workId}` });
    const lease: HeldLease = {
      is: "held",
      state: "active",
      echo: "first",
      ttlMs: TTL,
      sentMs: this.clock.monotonic(),
      sentWallMs: this.clock.now(),
      unansweredMs: null,
    };
    withFields(named, { lease });
    this.keeper.keep(named);
    return named as Claim & { lease: { own: HeldLease } };
  }

  accepted(more: Partial<Heartbeat> = {}): HeartbeatOutcome {
    this.#values += 1;
    return {
      kind: "beat",
      beat: {
        state: "active",
        lease_extended: true,
        last_heartbeat: `value ${this.#values}`,
        ttl_seconds: 180,
        ...more,
      },
    };
  }

  count(result: string): Promise<number> {
    return metricValue(this.metrics.heartbeats, { ...LABELS, result });
  }

  async #beat(workId: string, o: Omit<Sent, "workId" | "atMs">) {
    const sent = { workId, atMs: this.clock.monotonic(), ...o };
    const sentAtWallMs = this.clock.now();
    this.sent.push(sent);
    this.underWay += 1;
    this.mostUnderWay = Math.max(this.mostUnderWay, this.underWay);
    try {
      return { value: await this.answer(sent), sentAtMs: sent.atMs, sentAtWallMs };
    } finally {
      this.underWay -= 1;
    }
  }

  #countedClock(): Clock {
    return {
      now: () => this.clock.now(),
      monotonic: () => this.clock.monotonic(),
      setTimer: (fn, delayMs) => {
        this.timers += 1;
        this.mostTimers = Math.max(this.mostTimers, this.timers);
        let armed = true;
        const over = () => {
          if (armed) this.timers -= 1;
          armed = false;
        };
        const timer = this.clock.setTimer(() => {
          over();
          fn();
        }, delayMs);
        return {
          cancel: () => {
            over();
            timer.cancel();
          },
        };
      },
    };
  }
}

const unanswered = () =>
  new WorkApiError({ kind: "timeout", call: "heartbeat", message: "no answer", maybeApplied: true });
const overloaded = () => new WorkApiError({ kind: "rate-limited", call: "heartbeat", message: "too many" });

let rig = new Rig();
afterEach(() => {
  rig.ending.abort();
  rig = new Rig();
});

describe("many leases", () => {
  test("5,000 leases share one timer, and each gets its heartbeats within the interval", async () => {
    const leases = 5_000;
    for (let n = 0; n < leases; n += 1) rig.kept(`work_${n}`);
    const minutes = 4;
    await rig.clock.advance(minutes * 60 * SECOND);
    expect(rig.mostTimers).toBe(1);
    const last = new Map<string, { atMs: number; beats: number }>();
    for (const { workId, atMs } of rig.sent) {
      const before = last.get(workId) ?? { atMs: 1_000, beats: 0 };
      expect(atMs - before.atMs).toBeLessThanOrEqual(INTERVAL);
      last.set(workId, { atMs, beats: before.beats + 1 });
    }
    expect(last.size).toBe(leases);
    const beats = [...last.values()].map(({ beats: each }) => each);
    expect(Math.min(...beats)).toBeGreaterThanOrEqual((minutes * 60) / 30);
    expect(Math.max(...beats)).toBeLessThanOrEqual((minutes * 60) / 25 + 2);
    // The leases were taken at one instant. Jitter spreads them: no second has more than a small part of the
    // heartbeats.
    const perSecond = new Map<number, number>();
    for (const { atMs } of rig.sent) {
      const second = Math.floor(atMs / SECOND);
      if (second > 180) perSecond.set(second, (perSecond.get(second) ?? 0) + 1);
    }
    expect(Math.max(...perSecond.values())).toBeLessThan(leases / 10);
    expect(rig.keeper.size).toBe(leases);
  }, 60_000);

  test("at most 256 heartbeats are under way, even if all hang, and every lease gets its turn", async () => {
    const hanging: (() => void)[] = [];
    rig.answer = () => new Promise((resolve) => hanging.push(() => resolve(rig.accepted())));
    for (let n = 0; n < 1_000; n += 1) rig.kept(`work_${n}`);
    await rig.clock.advance(INTERVAL);
    expect(rig.underWay).toBe(256);
    expect(rig.timers).toBe(0);
    while (hanging.length > 0) {
      for (const end of hanging.splice(0)) end();
      await rig.clock.settle();
      await rig.clock.advance(1);
    }
    expect(new Set(rig.sent.map(({ workId }) => workId)).size).toBe(1_000);
    expect(rig.mostUnderWay).toBe(256);
  });
});

describe("heartbeats that wait for a slot", () => {
  test("are sent one after another, each once", async () => {
    rig = new Rig(2);
    const hanging: (() => void)[] = [];
    rig.answer = () => new Promise((resolve) => hanging.push(() => resolve(rig.accepted())));
    for (let n = 0; n < 10; n += 1) rig.kept(`work_${n}`);
    await rig.clock.advance(INTERVAL);
    expect(rig.underWay).toBe(2);
    while (hanging.length > 0) {
      hanging.shift()?.();
      await rig.clock.settle();
    }
    expect(rig.mostUnderWay).toBe(2);
    expect(new Set(rig.sent.map(({ workId }) => workId)).size).toBe(10);
    expect(rig.sent).toHaveLength(10);
  });

  test("are checked when a slot is free: a lease that lapsed, was paused or was forgotten gets none", async () => {
    rig = new Rig(1);
    let end = () => {};
    rig.answer = () => new Promise((resolve) => (end = () => resolve(rig.accepted())));
    const claims = ["first", "lapses", "paused", "forgotten"].map((workId) => rig.kept(workId));
    await rig.clock.advance(INTERVAL);
    const [first] = rig.sent;
    const waiting = claims.filter(({ record: { journal } }) => journal.workId !== first?.workId);
    const [lapses, paused, forgotten] = waiting as [Claim, Claim, Claim];
    const quiet = rig.keeper.pause(paused);
    rig.keeper.forget(forgotten);
    await rig.clock.advance(TTL);
    rig.answer = async () => rig.accepted();
    end();
    await rig.clock.settle();
    await quiet;
    expect(rig.sent.filter(({ workId }) => workId !== first?.workId)).toEqual([]);
    expect(lapses.lease.own).toMatchObject({ is: "lost", by: "silence" });
  });
});

test("a waiting heartbeat is not sent once its lease is paused", async () => {
  rig = new Rig(1);
  let end = () => {};
  rig.answer = () => new Promise((resolve) => (end = () => resolve(rig.accepted())));
  const claims = ["one", "other"].map((workId) => rig.kept(workId));
  await rig.clock.advance(INTERVAL);
  const [sent] = rig.sent;
  const waiting = claims.find(({ record: { journal } }) => journal.workId !== sent?.workId) as Claim;
  const quiet = rig.keeper.pause(waiting);
  end();
  await quiet;
  expect(rig.sent).toEqual([sent]);
});

describe("one lease", () => {
  test("each heartbeat echoes the previous value and requests a TTL that outlives a restart", async () => {
    rig.kept();
    await rig.clock.advance(3 * INTERVAL);
    expect(rig.sent.length).toBeGreaterThanOrEqual(3);
    expect(rig.sent.map(({ expected }) => expected)).toEqual(
      ["first", "value 1", "value 2", "value 3", "value 4", "value 5"].slice(0, rig.sent.length),
    );
    expect(rig.sent[0]?.desiredTtlSeconds).toBe(180);
    expect(rig.changed).toEqual([]);
    expect(await rig.count("beaten")).toBe(rig.sent.length);
  });

  test("sends heartbeats as often as the server's TTL requires", async () => {
    rig.answer = async () => rig.accepted({ ttl_seconds: 10 });
    rig.kept();
    await rig.clock.advance(INTERVAL);
    const before = rig.sent.length;
    await rig.clock.advance(60 * SECOND);
    expect(rig.sent.length - before).toBeGreaterThanOrEqual(12);
    expect(rig.sent.length - before).toBeLessThanOrEqual(16);
  });

  test("repeats an unanswered heartbeat soon, and adopts the value of the refusal that follows", async () => {
    let lost = true;
    rig.answer = async ({ expected }) => {
      if (lost) {
        lost = false;
        throw unanswered();
      }
      if (expected === "first") return refused("its value");
      return rig.accepted();
    };
    const claim = rig.kept();
    await rig.clock.advance(INTERVAL + 2 * SECOND);
    expect(rig.sent.map(({ expected }) => expected)).toEqual(["first", "first", "its value"]);
    expect((rig.sent[1]?.atMs ?? 0) - (rig.sent[0]?.atMs ?? 0)).toBeLessThan(SECOND);
    expect(claim.lease.own).toMatchObject({ is: "held", echo: "value 1" });
    expect(await rig.count("adopted")).toBe(1);
  });

  test("is lost by an unexpected refusal: the session loop is notified and heartbeats end", async () => {
    rig.answer = async () => refused("somebody else's");
    const claim = rig.kept();
    await rig.clock.advance(10 * INTERVAL);
    expect(rig.sent).toHaveLength(1);
    expect(claim.lease.own).toMatchObject({ is: "lost", by: "refusal" });
    expect(rig.changed).toEqual(["work_1"]);
    expect(rig.keeper.size).toBe(0);
    expect(await metricValue(rig.metrics.leasesLost, LABELS)).toBe(1);
  });

  test("is lost after a whole TTL without a success, and not earlier", async () => {
    rig.answer = async () => {
      throw overloaded();
    };
    const claim = rig.kept();
    await rig.clock.advance(TTL - 1);
    expect(claim.lease.own.is).toBe("held");
    await rig.clock.advance(1);
    expect(claim.lease.own).toMatchObject({ is: "lost", by: "silence" });
    // Backoff: a few retries at once, then one per half interval.
    expect(rig.sent.length).toBeGreaterThan(8);
    expect(rig.sent.length).toBeLessThan(40);
  });

  test("respects Retry-After, but sends one more heartbeat while it can still land", async () => {
    rig.answer = async () => {
      throw new WorkApiError({ kind: "rate-limited", call: "heartbeat", message: "wait", retryAfterMs: 60 * SECOND });
    };
    rig.kept();
    await rig.clock.advance(TTL);
    const [first = 0, ...later] = rig.sent.map(({ atMs }) => atMs);
    expect(later.map((atMs) => Math.round((atMs - first) / SECOND))).toEqual([60, 120, expect.any(Number)]);
    expect(later.at(-1)).toBe(1_000 + TTL - 2_500);
  });

  test("reports stopping to the session loop, and continues its heartbeats", async () => {
    rig.answer = async () => rig.accepted({ state: "stopping", lease_extended: false });
    const claim = rig.kept();
    await rig.clock.advance(INTERVAL);
    expect(claim.lease.own).toMatchObject({ is: "held", state: "stopping" });
    expect(rig.changed).toEqual(["work_1"]);
    const before = rig.sent.length;
    await rig.clock.advance(2 * INTERVAL);
    expect(rig.sent.length).toBeGreaterThan(before + 1);
  });

  test("ends when the item is stopped", async () => {
    rig.answer = async () => rig.accepted({ state: "stopped", lease_extended: false });
    const claim = rig.kept();
    await rig.clock.advance(3 * INTERVAL);
    expect(rig.sent).toHaveLength(1);
    expect(claim.lease.own).toEqual({ is: "over" });
  });

  test("measures lateness from the time when a heartbeat was due", async () => {
    rig.kept();
    await rig.clock.settle();
    rig.clock.pause(INTERVAL + 5 * SECOND);
    await rig.clock.advance(1);
    const sum = await rig.metrics.heartbeatLateness.get();
    const total = sum.values.find(({ metricName }) => metricName?.endsWith("_sum"))?.value ?? 0;
    expect(total).toBeGreaterThan(4);
    expect(total).toBeLessThan(20);
  });
});

describe("a process that slept or lost leadership", () => {
  test("sends no heartbeat after sleeping for longer than the TTL: the lease is lost", async () => {
    const claim = rig.kept();
    rig.clock.pause(TTL);
    await rig.clock.advance(10 * SECOND);
    expect(rig.sent).toEqual([]);
    expect(claim.lease.own).toMatchObject({ is: "lost", by: "silence" });
  });

  test("sends a heartbeat immediately after sleeping for less than the TTL", async () => {
    const claim = rig.kept();
    rig.clock.pause(TTL / 2);
    await rig.clock.advance(1);
    expect(rig.sent).toHaveLength(1);
    expect(claim.lease.own.is).toBe("held");
  });

  test("sends nothing once it is no longer the leader", async () => {
    rig.kept();
    rig.mayAct = false;
    await rig.clock.advance(TTL);
    expect(rig.sent).toEqual([]);
  });
});

describe("the session loop's control of the lease", () => {
  test("a pause waits for the heartbeat under way, and lasts until it is resumed", async () => {
    let end = () => {};
    rig.answer = () => new Promise((resolve) => (end = () => resolve(rig.accepted())));
    const claim = rig.kept();
    await rig.clock.advance(INTERVAL);
    expect(rig.underWay).toBe(1);
    let quiet = false;
    void rig.keeper.pause(claim).then(() => (quiet = true));
    await rig.clock.settle();
    expect(quiet).toBe(false);
    end();
    await rig.clock.settle();
    expect(quiet).toBe(true);
    rig.answer = async () => rig.accepted();
    await rig.clock.advance(2 * INTERVAL);
    expect(rig.sent).toHaveLength(1);
    rig.keeper.resume(claim);
    await rig.clock.advance(1);
    expect(rig.sent).toHaveLength(2);
  });

  test("a forgotten lease sends nothing, and a late answer changes nothing", async () => {
    let end = () => {};
    rig.answer = () => new Promise((resolve) => (end = () => resolve(refused("another"))));
    const claim = rig.kept();
    await rig.clock.advance(INTERVAL);
    rig.keeper.forget(claim);
    end();
    await rig.clock.advance(2 * INTERVAL);
    expect(rig.sent).toHaveLength(1);
    expect(claim.lease.own.is).toBe("held");
    expect(rig.changed).toEqual([]);
    expect(rig.timers).toBe(0);
  });

  test("a new key sends failed heartbeats immediately and does not hurry the others", async () => {
    rig.answer = async ({ workId }) => {
      if (workId === "bad") throw overloaded();
      return rig.accepted();
    };
    rig.kept("bad");
    rig.kept("good");
    await rig.clock.advance(70 * SECOND);
    const before = rig.sent.length;
    rig.keeper.retry();
    await rig.clock.advance(1);
    expect(rig.sent.slice(before).map(({ workId }) => workId)).toEqual(["bad"]);
  });

  test("the session loop of an ended session is notified of the heartbeat that leaves time for a stop", async () => {
    const claim = rig.kept();
    withFields(claim, { end: { cause: "Completed", message: "", exitCode: 0, startedAtMs: null, finishedAtMs: null } });
    await rig.clock.advance(INTERVAL);
    expect(rig.changed).toEqual(["work_1"]);
  });
});

test("shutdown waits for heartbeats under way, so that the next process reads a stable value", async () => {
  let end = () => {};
  rig.answer = () => new Promise((resolve) => (end = () => resolve(rig.accepted())));
  rig.kept();
  await rig.clock.advance(INTERVAL);
  let ended = false;
  void rig.running.then(() => (ended = true));
  rig.ending.abort();
  await rig.clock.settle();
  expect(ended).toBe(false);
  end();
  await rig.clock.settle();
  expect(ended).toBe(true);
  await rig.clock.advance(10 * INTERVAL);
  expect(rig.sent).toHaveLength(1);
  expect(rig.timers).toBe(0);
});

function refused(value: string): HeartbeatOutcome {
  return { kind: "refused", current: { state: "active", last_heartbeat: value, ttl_seconds: 180 } };
}
