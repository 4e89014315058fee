import { describe, expect, test } from "vitest";
import type { Environment } from "../../src/api/environment.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import { Slots } from "../../src/core/slots.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { noFirstBeatMessage } from "../../src/protocol/first-heartbeat.ts";
import { LeaseKeeper } from "../../src/sessions/lease-keeper.ts";
import { LeaseSteps } from "../../src/sessions/lease-steps.ts";
import { WorkApiError } from "../../src/work/errors.ts";
import { claimOf, contextOf, OURS, view, withFields } from "../protocol/claims.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const TTL_SECONDS = 90;
const TTL_MS = TTL_SECONDS * 1_000;

/** The lease steps of one claim with an active item on a virtual clock, and the requests that were sent. */
function steps(
  beats: "answered" | "unanswered" | "refused" | "late" = "answered",
  stops: "answered" | "refused" | "unanswered" = "answered",
) {
  const clock = new VirtualClock();
  const sent: string[] = [];
  const room = new Slots(1);
  const late = Promise.withResolvers<void>();
  const times = () => ({ sentAtMs: clock.monotonic(), sentAtWallMs: clock.now() });
  const beat = { state: "active", lease_extended: true, last_heartbeat: "ours", ttl_seconds: TTL_SECONDS };
  const context = contextOf({
    clock,
    points: NO_POINTS,
    random: Math.random,
    timing: DEFAULT_TIMING,
    logger: silentLogger,
    metrics: createMetrics(),
    labels: { namespace: "agents", environment: "research" },
    guard: () => {},
    work: () => ({
      beats: room,
      heartbeat: async () => {
        sent.push("beat");
        if (beats === "unanswered") throw new Error("no answer");
        if (beats === "late") await late.promise;
        if (beats === "refused") return { ...times(), value: { kind: "refused", current: null } };
        return { ...times(), value: { kind: "beat", beat } };
      },
      stop: async () => {
        sent.push("stop");
        if (stops === "unanswered")
          throw new WorkApiError({ kind: "timeout", call: "stop", message: "", maybeApplied: true });
        if (stops === "refused") throw new WorkApiError({ kind: "conflict", call: "stop", message: "409" });
        return { ...times(), value: { alreadyStopped: false } };
      },
    }),
  } as Parameters<typeof contextOf>[0]);
  const claim = claimOf({ acknowledgedAt: OURS });
  const keeper = new LeaseKeeper(context, () => {});
  const leases = new LeaseSteps(context, keeper);
  const seenActive = () => {
    withFields(claim, { item: view("active", clock.monotonic()) });
  };
  /** lease: Operator: the operator takes the lease now, and keeps it. */
  const keep = () => {
    const instant = { sentMs: clock.monotonic(), sentWallMs: clock.now(), unansweredMs: null };
    withFields(claim, { lease: { is: "held", state: "active", echo: "first", ttlMs: TTL_MS, ...instant } });
    keeper.keep(claim);
  };
  return { clock, sent, claim, leases, seenActive, keep, answerBeat: () => late.resolve() };
}

test("sends a stop after the heartbeat that took the lease for it", async () => {
  const { sent, claim, leases, seenActive } = steps();
  await leases.fence(claim, "theirs");
  seenActive();
  await leases.stop(claim, true, false);
  expect(sent).toEqual(["beat", "stop"]);
});

test.each([
  ["the machine slept", true],
  ["the process was not scheduled", false],
])("sends no stop when %s for a whole TTL after that heartbeat, and takes the lease again", async (_, suspended) => {
  const { clock, sent, claim, leases, seenActive } = steps();
  await leases.fence(claim, "theirs");
  seenActive();
  clock.pause(TTL_MS, { suspended });
  await leases.stop(claim, true, false);
  expect(sent).toEqual(["beat"]);
  expect(claim.lease.memory).toEqual({ is: "none" });
  await leases.fence(claim, "ours");
  seenActive();
  await leases.stop(claim, true, false);
  expect(sent).toEqual(["beat", "beat", "stop"]);
});

test("stops an item that is already stopping, even long after the lease was taken", async () => {
  const { clock, sent, claim, leases } = steps();
  await leases.fence(claim, "theirs");
  clock.pause(TTL_MS, { suspended: true });
  withFields(claim, { item: view("stopping", clock.monotonic()) });
  await leases.stop(claim, true, false);
  expect(sent).toEqual(["beat", "stop"]);
});

/**
 * lease: Operator, with a TTL too short for a stop: the operator sends a last heartbeat, which may leave enough time
 * for one.
 */
describe("after the operator let a lease go", () => {
  const letGo = async (of: ReturnType<typeof steps>) => {
    const { clock, claim, leases, seenActive } = of;
    const times = { sentMs: clock.monotonic(), sentWallMs: clock.now(), unansweredMs: null };
    withFields(claim, { lease: { is: "held", state: "active", echo: "ours", ttlMs: TTL_MS, ...times } });
    await leases.letGo(claim);
    seenActive();
  };

  test("a stop may rely on the answer to the last heartbeat", async () => {
    const of = steps();
    await letGo(of);
    await of.leases.stop(of.claim, true, false);
    expect(of.sent).toEqual(["beat", "stop"]);
  });

  test("a stop may not rely on it after the machine slept", async () => {
    const of = steps();
    await letGo(of);
    of.clock.pause(TTL_MS, { suspended: true });
    await of.leases.stop(of.claim, true, false);
    expect(of.sent).toEqual(["beat"]);
    expect(of.claim.lease.memory).toEqual({ is: "none" });
  });

  test.each(["unanswered", "refused"] as const)("a stop may not rely on a last heartbeat that is %s", async (beats) => {
    const of = steps(beats);
    await letGo(of);
    await of.leases.stop(of.claim, true, false);
    expect(of.sent).toEqual(["beat"]);
    expect(of.claim.lease.memory).toEqual({ is: "none" });
  });
});

describe("lease: Operator: while a heartbeat is under way", () => {
  /** Sends the first heartbeat of a kept lease, and does not answer it yet. */
  const sending = async () => {
    const of = steps("late");
    of.keep();
    await of.clock.advance(DEFAULT_TIMING.beatIntervalMs);
    expect(of.sent).toEqual(["beat"]);
    return of;
  };

  test("a forced stop waits for the answer", async () => {
    const { clock, sent, claim, leases, answerBeat } = await sending();
    const stopping = leases.stop(claim, true, false);
    await clock.settle();
    expect(sent).toEqual(["beat"]);
    answerBeat();
    await stopping;
    expect(sent).toEqual(["beat", "stop"]);
  });

  test("no stop is sent when the lease ends before the answer comes", async () => {
    const { clock, sent, claim, leases, answerBeat } = await sending();
    const stopping = leases.stop(claim, true, false);
    clock.pause(TTL_MS);
    answerBeat();
    await stopping;
    expect(sent).toEqual(["beat"]);
  });

  test("the operator does not let the lease go before the answer", async () => {
    const { clock, sent, claim, leases, answerBeat } = await sending();
    const lettingGo = leases.letGo(claim);
    await clock.settle();
    expect(sent).toEqual(["beat"]);
    answerBeat();
    await lettingGo;
    expect(sent).toEqual(["beat", "beat"]);
    expect(claim.lease.own).toBeNull();
  });
});

test("keeps a lease that it took with heartbeats", async () => {
  const { clock, sent, claim, leases } = steps();
  await leases.take(claim, "theirs");
  await clock.advance(2 * DEFAULT_TIMING.beatIntervalMs);
  expect(sent.length).toBeGreaterThan(1);
});

test("resumes heartbeats after a failed stop", async () => {
  const { clock, sent, claim, leases, keep } = steps("answered", "refused");
  keep();
  await expect(leases.stop(claim, true, false)).rejects.toThrow("409");
  await clock.advance(1);
  expect(sent).toEqual(["stop", "beat"]);
});

test("sends no heartbeat right after a stop that may have taken effect, so that its retry comes first", async () => {
  const { clock, sent, claim, leases, keep } = steps("answered", "unanswered");
  keep();
  await expect(leases.stop(claim, true, false)).rejects.toThrow(WorkApiError);
  await clock.advance(DEFAULT_TIMING.retryBaseMs);
  expect(sent).toEqual(["stop"]);
  await clock.advance(TTL_MS);
  expect(sent).toContain("beat");
});

const message = (firstBeatTimeoutSeconds: number, maxDurationSeconds: number, metadata = {}) =>
  noFirstBeatMessage({
    metadata,
    spec: { sessions: { firstBeatTimeoutSeconds, maxDurationSeconds } },
  } as unknown as Environment);

describe("the message of a session without a heartbeat", () => {
  test("names the timeout and the fix", () => {
    expect(message(60, 86_400)).toBe(
      "the container sent no heartbeat within 60 s of its start (firstBeatTimeoutSeconds); set lease: Operator if the program does not send heartbeats",
    );
  });

  test("names maxDurationSeconds when that is shorter than the timeout", () => {
    expect(message(60, 5)).toContain("within 5 s of its start (maxDurationSeconds)");
  });

  test("names deletionGraceSeconds when the Environment is being deleted", () => {
    const metadata = { deletionTimestamp: "2026-01-01T00:00:00Z" };
    expect(message(60, 86_400, metadata)).toContain("or before the Environment's deletionGraceSeconds had passed");
  });
});
