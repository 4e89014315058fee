import { describe, expect, test } from "vitest";
import { AckWindow, ackWindowMs, windowMs } from "../../src/claims/ack-window.ts";
import { Acknowledging } from "../../src/claims/acknowledging.ts";
import { ServerTime } from "../../src/core/server-time.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { KubeApiError, LeadershipLostError } from "../../src/kube/errors.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { WorkApiError, type WorkErrorKind } from "../../src/work/errors.ts";
import { pod } from "../pods/pods.ts";
import { type TurnsPod, turnsPod } from "../pods/turn-pods.ts";
import { claimOf, JOURNAL } from "../protocol/claims.ts";
import { fakeContext } from "../sessions/fake-context.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const ASSIGNED = { "berth.dev/assigned-at": "2030-01-01T00:00:00Z" };

const WINDOW_MS = windowMs(DEFAULT_TIMING);

const parked = (metadata: Pod["metadata"] = {}) => pod({}, { metadata: { uid: JOURNAL.podUid, ...metadata } });

const failure = (kind: WorkErrorKind, maybeApplied: boolean) =>
  new WorkApiError({ kind, call: "ack", message: kind, maybeApplied });

/**
 * Sets up an item that was just polled. `read` returns the Pod on the API server, `ack` the `acknowledged_at` of the
 * Work API's answer to the nth request.
 */
function setUp(
  of: { read?: () => Pod; ack?: (times: number) => string | null; isClosing?: boolean; guard?: () => void } = {},
) {
  const clock = new VirtualClock();
  const sentAtMs: number[] = [];
  const context = fakeContext({
    clock,
    guard: of.guard ?? (() => {}),
    kube: { get: async () => (of.read ?? parked)() },
    work: () => ({
      ack: async () => {
        sentAtMs.push(clock.monotonic());
        if (!of.ack) throw failure("timeout", true);
        const acknowledged = of.ack(sentAtMs.length);
        return {
          value: { state: "starting", acknowledged_at: acknowledged, latest_heartbeat_at: null, started_at: null },
          ...{ sentAtMs: clock.monotonic(), answeredAtMs: clock.monotonic(), sentAtWallMs: clock.now() },
        };
      },
    }),
  });
  const serverTime = new ServerTime((ms) => ms);
  const acknowledging = new Acknowledging({ context, serverTime, gate: { isClosing: of.isClosing ?? false } });
  const polledMs = clock.monotonic();
  const window = new AckWindow(clock, { sentAtMs: polledMs, sentAtWallMs: clock.now() }, WINDOW_MS);
  const claim = claimOf();
  /** Tells the operator that the server's clock equals its own wall clock. */
  const knowStamps = () => {
    const at = clock.monotonic();
    serverTime.noteStamp({ fromMs: at, untilMs: at }, { fromMs: clock.now(), beforeMs: clock.now() + 1 });
  };
  return { context, clock, sentAtMs, polledMs, window, claim, acknowledging, knowStamps };
}

/** Acknowledges the item, then advances the clock past the end of the window. */
async function result({ acknowledging, claim, window, clock }: ReturnType<typeof setUp>): Promise<string> {
  const acknowledged = acknowledging.acknowledge(claim, window);
  await clock.advance(WINDOW_MS + 60_000);
  return acknowledged;
}

describe("the acknowledgement window", () => {
  test("ends early enough for a last request to land before the item is offered to other clients", () => {
    const { requestBoundMs, marginMs, othersReclaimMs } = DEFAULT_TIMING;
    expect(WINDOW_MS + requestBoundMs + marginMs).toBe(othersReclaimMs);
  });

  test("shrinks by the uncertainty about the server's clock, but stays open for a server that sends no clock", () => {
    const lengthMs = (unknownMs: number) =>
      ackWindowMs(DEFAULT_TIMING, { ...JOURNAL, polledUntilMs: JOURNAL.polledFromMs + unknownMs });
    expect(lengthMs(0)).toBe(WINDOW_MS);
    expect(lengthMs(400)).toBe(WINDOW_MS - 400);
    expect(lengthMs(1_000_000)).toBeGreaterThan(0);
  });

  test("ends every wait inside it", async () => {
    const { clock, window } = setUp();
    const waiting = window.waits(60_000);
    await clock.advance(WINDOW_MS);
    expect(await Promise.race([waiting, "it still waits"])).toBe(false);
  });

  test.each<[string, (clock: VirtualClock) => void]>([
    [
      "length passed on the monotonic clock, though the wall clock was set back",
      (clock) => {
        clock.pause(WINDOW_MS);
        clock.jumpWall(-3_600_000);
      },
    ],
    ["length passed on the wall clock during a suspend", (clock) => clock.pause(WINDOW_MS, { suspended: true })],
  ])("has ended once its %s", async (_, pass) => {
    const world = setUp({ ack: () => null });
    pass(world.clock);
    expect(await result(world)).toBe("late");
    expect(world.sentAtMs).toEqual([]);
  });
});

describe("the live read of the Pod before an acknowledgement", () => {
  const readBy = (read: () => Pod) => {
    const { acknowledging, claim } = setUp({ read });
    return acknowledging.readPod(claim);
  };

  test("accepts the parked Pod of the claim", async () => {
    expect(await readBy(parked)).toMatchObject({ isParked: true, isRefused: false });
  });

  test.each([
    ["has the same name but another uid", parked({ uid: "another" })],
    ["is being deleted", parked({ deletionTimestamp: "2030-01-01T00:00:00Z" })],
    [
      "is already running",
      pod({ containerStatuses: [{ name: "worker", state: { running: {} } }] }, { metadata: { uid: JOURNAL.podUid } }),
    ],
  ])("rejects a Pod that %s", async (_, live) => {
    expect(await readBy(() => live)).toMatchObject({ isParked: false, isRefused: false });
  });

  test("accepts a sleeping Pod only before the claimed turn, and notes the version that it read", async () => {
    const RUNNING = { running: { startedAt: "2030-01-01T00:00:00Z" } };
    const read = async (of: TurnsPod) => {
      const metadata = { uid: JOURNAL.podUid, resourceVersion: "7" };
      const { acknowledging, claim } = setUp({ read: () => turnsPod({ phase: "sleeping", ...of, metadata }) });
      const { isParked } = await acknowledging.readPod({ ...claim, turn: 2 });
      return { isParked, version: claim.record.podVersion };
    };
    expect(await read({ ended: 1, turns: { 2: RUNNING } })).toEqual({ isParked: true, version: "7" });
    // Another process served an item in the claimed turn meanwhile, or skipped it.
    expect(await read({ ended: 2, turns: { 2: { terminated: { exitCode: 0 } }, 3: RUNNING } })).toMatchObject({
      isParked: false,
    });
    expect(await read({ ended: 1, turns: { 2: { terminated: { exitCode: 143 } }, 3: RUNNING } })).toMatchObject({
      isParked: false,
    });
    expect(await read({ phase: "running", ended: 1, turns: { 2: RUNNING }, annotations: ASSIGNED })).toMatchObject({
      isParked: false,
    });
  });

  test("accepts the claimed turn only in the container that the claim was made for", async () => {
    const turns = { 2: { running: { startedAt: "2030-01-01T00:00:00Z" } } };
    const live = turnsPod({
      ...{ phase: "sleeping", ended: 1, turns, ids: { 2: "containerd://2" } },
      metadata: { uid: JOURNAL.podUid },
    });
    const read = async (container: string | undefined) => {
      const { acknowledging, claim } = setUp({ read: () => live });
      const journal = { ...claim.record.journal, container };
      return (await acknowledging.readPod({ ...claim, turn: 2, record: { ...claim.record, journal } })).isParked;
    };
    expect(await read("containerd://2")).toBe(true);
    // The kubelet lost its record, and started the turn again.
    expect(await read("containerd://1")).toBe(false);
  });

  test.each([0, 500])("rejects a Pod that it can't read: status %i", async (status) => {
    const read = () => {
      throw new KubeApiError("failed", { status });
    };
    const { acknowledging, claim, context, clock } = setUp({ read });
    expect(await acknowledging.readPod(claim)).toEqual({ isParked: false, isRefused: true });
    // The next claim would fail the same way, so polling pauses.
    expect(context.holds.pollsFromMs).toBeGreaterThan(clock.monotonic());
  });
});

describe("an acknowledgement", () => {
  test("is repeated while its window is open when no answer comes", async () => {
    const world = setUp();
    expect(await result(world)).toBe("unanswered");
    expect(world.sentAtMs.length).toBeGreaterThan(1);
    for (const sentMs of world.sentAtMs) expect(sentMs - world.polledMs).toBeLessThanOrEqual(WINDOW_MS);
  });

  test("is not sent after the window, even if reading the Pod took that long", async () => {
    const world = setUp({
      read: () => {
        world.clock.pause(30_000);
        return parked();
      },
    });
    expect(await result(world)).toBe("unanswered");
    expect(world.sentAtMs).toHaveLength(1);
  });

  test("is not repeated once its Pod is lost", async () => {
    const world = setUp({ read: () => parked({ uid: "another" }) });
    expect(await result(world)).toBe("unanswered");
    expect(world.sentAtMs).toHaveLength(1);
  });

  test("is not repeated before a pause ends that began while its Pod was read", async () => {
    const world = setUp({
      read: () => {
        world.context.holds.failed("acknowledge", { error: failure("server", false) });
        return parked();
      },
    });
    expect(await result(world)).toBe("unanswered");
    expect(world.sentAtMs).toHaveLength(1);
  });

  test("that is refused because another client was faster doesn't pause others, unless the item is refused again", async () => {
    const world = setUp({
      ack: () => {
        throw failure("conflict", false);
      },
    });
    expect(await world.acknowledging.acknowledge(world.claim, world.window)).toBe("refused");
    expect(world.context.holds.fromMs("acknowledge")).toBeNull();
    expect(await world.acknowledging.acknowledge(world.claim, world.window)).toBe("refused");
    expect(world.context.holds.fromMs("acknowledge")).toBeGreaterThan(world.clock.monotonic());
  });

  test("is not sent for an Environment that is closing", async () => {
    const world = setUp({ isClosing: true });
    expect(await result(world)).toBe("late");
    expect(world.sentAtMs).toEqual([]);
  });

  test("is not sent by a process that is no longer the leader", async () => {
    const world = setUp({
      guard: () => {
        throw new LeadershipLostError("not the leader");
      },
    });
    await expect(world.acknowledging.acknowledge(world.claim, world.window)).rejects.toThrow(LeadershipLostError);
    expect(world.sentAtMs).toEqual([]);
  });

  test("belongs to another client when its time lies between our poll and our request", async () => {
    const world = setUp({ ack: () => new Date(world.clock.now() - 1_000).toISOString() });
    world.knowStamps();
    world.clock.pause(2_000);
    expect(await result(world)).toBe("refused");
  });

  test("is our own when its time is slightly before our poll: server timestamps can differ by that much", async () => {
    const world = setUp({ ack: () => new Date(world.clock.now() - 2_050).toISOString() });
    world.knowStamps();
    world.clock.pause(2_000);
    expect(await result(world)).toBe("acked");
  });

  test("counts as unanswered when the answer holds no time", async () => {
    expect(await result(setUp({ ack: () => null }))).toBe("unanswered");
  });

  test.each([
    ["on the first request has failed", 1, "refused"],
    ["on a repeat may have taken effect the first time", 2, "unanswered"],
  ])("that is refused %s", async (_, refusedOn, expected) => {
    const world = setUp({
      ack: (times) => {
        throw times < refusedOn ? failure("timeout", true) : failure("conflict", false);
      },
    });
    expect(await result(world)).toBe(expected);
    expect(world.claim.lease.memory.is === "unanswered").toBe(expected === "unanswered");
  });
});
