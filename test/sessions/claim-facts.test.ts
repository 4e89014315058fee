import { describe, expect, test } from "vitest";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { ContainerState, Pod } from "../../src/kube/resource.ts";
import type { Claim } from "../../src/protocol/claim.ts";
import { ClaimFacts } from "../../src/sessions/claim-facts.ts";
import type { SessionRecorder } from "../../src/sessions/session-recorder.ts";
import { pod } from "../pods/pods.ts";
import { type TurnsPod, turnsPod } from "../pods/turn-pods.ts";
import { type ClaimFields, JOURNAL, OURS, opened } from "../protocol/claims.ts";
import { FakeKube, notFound, refusal } from "../reconcile/fake-kube.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { fakeContext } from "./fake-context.ts";

const { podOverdueMs, drainBoundMs } = DEFAULT_TIMING;
const GRACE_SECONDS = 120;

const ownPod = (metadata: Pod["metadata"] = {}, environmentUid = "env-uid"): Pod => {
  const owner = { apiVersion: "berth.dev/v1alpha1", kind: "Environment", name: "research", uid: environmentUid };
  return pod({}, { metadata: { uid: JOURNAL.podUid, ownerReferences: [{ ...owner, controller: true }], ...metadata } });
};

/** Reads the facts of an opened claim, with this Pod in the cache and this answer to a live read. */
function factsOf({ cached, live, claim = opened() }: { cached?: Pod; live?: unknown; claim?: Claim }) {
  const clock = new VirtualClock();
  const kube = new FakeKube(() => live, clock);
  const context = fakeContext({
    clock,
    kube: kube.client,
    pods: { get: () => cached, list: () => [] },
    environment: () => ({ spec: { sessions: { onPodFailure: "Stop", maxDurationSeconds: 3_600 } } }),
    template: () => ({ graceSeconds: GRACE_SECONDS }),
  });
  const started: (number | null)[] = [];
  const notes = {
    started: (_claim: Claim, atMs: number | null) => started.push(atMs),
    ended: () => {},
    ran: () => {},
  } as unknown as SessionRecorder;
  const facts = new ClaimFacts(context, notes, { mayRelease: () => false }, () => {});
  return { clock, kube, claim, facts, started, read: async () => (await facts.read(claim)).facts };
}

describe("the Pod of a claim", () => {
  test("comes from the cache without a request when the uid matches", async () => {
    const { kube, read } = factsOf({ cached: ownPod() });
    expect((await read()).pod.is).toBe("parked");
    expect(kube.calls).toEqual([]);
  });

  test.each([
    ["is missing from the cache", undefined],
    ["has another uid there", ownPod({ uid: "another" })],
  ])("is read live when it %s", async (_, cached) => {
    const { kube, read } = factsOf({ ...(cached && { cached }), live: ownPod() });
    expect((await read()).pod.is).toBe("parked");
    expect(kube.calls.map(({ verb }) => verb)).toEqual(["get"]);
  });

  test.each([
    ["the server doesn't have it", notFound("pods", "berth-research-x")],
    ["the server has another Pod of that name", ownPod({ uid: "another" })],
    ["the Pod of that name belongs to another Environment", ownPod({}, "another-env")],
  ])("is gone when %s", async (_, live) => {
    expect((await factsOf({ live }).read()).pod.is).toBe("gone");
  });

  test("is not gone when the server fails to answer", async () => {
    await expect(factsOf({ live: refusal(500, "InternalError", "failed") }).read()).rejects.toThrow("failed");
  });

  test("counts as lost with its node when it still exists long after its deletion should have ended", async () => {
    const deletionTimestamp = new Date(new VirtualClock().now()).toISOString();
    const { clock, read } = factsOf({ cached: ownPod({ deletionTimestamp }) });
    await clock.advance(podOverdueMs - 1);
    expect((await read()).pod.is).toBe("parked");
    await clock.advance(1);
    expect((await read()).pod).toMatchObject({ is: "ended", end: { cause: "NodeLost" } });
  });
});

describe("the Pod of a claim that waits for a line", () => {
  const ASSIGNED_AT = new VirtualClock().now() - 5_000;
  const RUNNING = { running: { startedAt: new Date(ASSIGNED_AT - 600_000).toISOString() } };
  const ENDED = { terminated: { exitCode: 1, finishedAt: new Date(ASSIGNED_AT + 1_000).toISOString() } };
  /** A Pod whose container runs, assigned to its session or not. */
  const waiting = (isAssigned: boolean, state: ContainerState = RUNNING): Pod => {
    const annotations = {
      ...{ "berth.dev/session-container": "worker", "berth.dev/parking": "Shell" },
      ...(isAssigned ? { "berth.dev/assigned-at": new Date(ASSIGNED_AT).toISOString() } : {}),
    };
    const labels = { "berth.dev/phase": isAssigned ? "running" : "warm" };
    const { spec, metadata } = ownPod({ annotations, labels });
    return { metadata, spec, status: { phase: "Running", containerStatuses: [{ name: "worker", state }] } };
  };

  test.each(["unsent", "unknown"] as const)("is parked while its line is %s, although it runs", async (delivery) => {
    for (const isAssigned of [false, true]) {
      const { read, started } = factsOf({ cached: waiting(isAssigned), claim: opened({ delivery }) });
      expect(await read()).toMatchObject({
        ...{ waitsForLine: true, pod: { is: "parked" } },
        podAssigned: isAssigned,
      });
      expect(started).toEqual([]);
    }
  });

  test("runs its session since it was assigned, once it has read its line", async () => {
    const { read, started } = factsOf({ cached: waiting(true), claim: opened({ delivery: "done" }) });
    expect(await read()).toMatchObject({ waitsForLine: false, pod: { is: "running", startedAtMs: ASSIGNED_AT } });
    expect(started).toEqual([ASSIGNED_AT]);
  });

  test("runs its session although the cache does not show yet that it is assigned", async () => {
    const claim = opened({ delivery: "done", assignedAtMs: ASSIGNED_AT });
    const { read, started } = factsOf({ cached: waiting(false), claim });
    expect(await read()).toMatchObject({ waitsForLine: false, pod: { is: "running", startedAtMs: ASSIGNED_AT } });
    expect(started).toEqual([ASSIGNED_AT]);
  });

  test.each(["unsent", "unknown", "done"] as const)("has ended when its container has, line: %s", async (delivery) => {
    const { read } = factsOf({ cached: waiting(true, ENDED), claim: opened({ delivery }) });
    expect(await read()).toMatchObject({ waitsForLine: false, pod: { is: "ended" } });
  });

  test.each([
    ["was never sent", {}, null],
    ["was sent", { deliverySentMs: 1 }, ASSIGNED_AT],
    [
      "may have been sent after an opening that this process has not seen",
      { openedMs: null, openedAtMs: null },
      ASSIGNED_AT,
    ],
    ["may have been sent by an earlier process", { openedAtMs: null }, ASSIGNED_AT],
  ])("has ended, and started no session if its line %s", async (_, record, startedAtMs) => {
    const cached = waiting(true, { terminated: { ...ENDED.terminated, startedAt: RUNNING.running.startedAt } });
    const { read, started } = factsOf({ cached, claim: opened(record) });
    expect(await read()).toMatchObject({ pod: { is: "ended", end: { startedAtMs } } });
    expect(started).toEqual([startedAtMs]);
  });

  test("is lost with its node although its line may be on its way", async () => {
    const { metadata, ...rest } = waiting(true);
    const deletionTimestamp = new Date(new VirtualClock().now()).toISOString();
    const cached = { ...rest, metadata: { ...metadata, deletionTimestamp } };
    const { clock, read } = factsOf({ cached, claim: opened({ delivery: "unknown" }) });
    await clock.advance(podOverdueMs);
    expect(await read()).toMatchObject({ pod: { is: "ended", end: { cause: "NodeLost" } } });
  });

  test.each([
    ["unsent", true],
    ["unknown", false],
  ] as const)("was seen waiting only while no line was sent: %s", async (delivery, isSeen) => {
    const { clock, read, claim } = factsOf({ cached: waiting(true), claim: opened({ delivery, waitedMs: null }) });
    await read();
    expect(claim.observed.waitedMs).toBe(isSeen ? clock.monotonic() : null);
  });

  test("that waits for a key is read as before", async () => {
    const cached = ownPod({ labels: { "berth.dev/phase": "running" } });
    const { read } = factsOf({ cached, claim: opened({ delivery: "unknown" }) });
    expect(await read()).toMatchObject({ waitsForLine: false, pod: { is: "parked" } });
  });
});

test("a drain limits the grace period of sessions to its own", () => {
  const { facts } = factsOf({});
  expect(facts.limits(opened()).graceMs).toBe(GRACE_SECONDS * 1_000);
  facts.drain(0);
  expect(facts.limits(opened()).graceMs).toBeLessThan(drainBoundMs);
});

describe("a woken Pod that still looks asleep", () => {
  const NOW = new VirtualClock().now();
  const BEFORE = NOW - 600_000;
  const [RUNS, ENDED] = [{ running: {} }, { terminated: { exitCode: 1, finishedAt: new Date(NOW).toISOString() } }];
  const asleep = (of: TurnsPod): Pod => {
    const annotations = { "berth.dev/parking": "Shell", "berth.dev/assigned-at": new Date(BEFORE).toISOString() };
    return turnsPod({ phase: "sleeping", ended: 1, annotations, metadata: { uid: JOURNAL.podUid }, ...of });
  };
  const claim = (of: ClaimFields) => opened({ turn: 2, ...of });

  test("runs its session since this process first saw so, once its line was read", async () => {
    const { read, started, clock } = factsOf({
      cached: asleep({ turns: { 2: RUNS } }),
      claim: claim({ delivery: "done" }),
    });
    await read();
    await clock.advance(1_000);
    expect(await read()).toMatchObject({ pod: { is: "running", startedAtMs: NOW }, podAssigned: false });
    expect(started).toEqual([NOW, NOW]);
  });

  test.each([
    ["ended its program after its line was sent", { delivery: "unknown", deliverySentMs: 1 }, "Failed"],
    ["ended its program after its log showed no start", { delivery: "unsent", unstartedMs: 1 }, "Failed"],
    ["ended while it waited, before its line was sent", { delivery: "unsent" }, "StartFailed"],
  ] as const)("%s", async (_, record, cause) => {
    const { read } = factsOf({ cached: asleep({ turns: { 2: ENDED } }), claim: claim(record) });
    expect(await read()).toMatchObject({ pod: { is: "ended", end: { cause } } });
  });

  test("runs its session since an earlier process claimed the item", async () => {
    const recordedMs = new VirtualClock().monotonic() - 50_000;
    const { read, clock } = factsOf({
      cached: asleep({ turns: { 2: RUNS } }),
      claim: { ...claim({ delivery: "done" }), recordedMs },
    });
    await clock.advance(60_000);
    expect((await read()).pod).toEqual({ is: "running", startedAtMs: NOW - 50_000 });
  });

  test("ended its program if it was given another container than the one that runs", async () => {
    const journal = { ...JOURNAL, acknowledgedAt: OURS, opened: true, container: "containerd://1" };
    const cached = asleep({ turns: { 2: RUNS }, ids: { 2: "containerd://2" } });
    const { read } = factsOf({ cached, claim: claim({ delivery: "unknown", journal }) });
    expect(await read()).toMatchObject({ pod: { is: "ended", end: { cause: "NodeLost" } } });
  });

  test("sleeps again once the end of its turn is on record", async () => {
    const { read } = factsOf({
      cached: asleep({ ended: 2, turns: { 2: ENDED } }),
      claim: claim({ delivery: "done", deliverySentMs: 1 }),
    });
    expect(await read()).toMatchObject({ pod: { is: "ended", end: { startedAtMs: BEFORE } } });
  });
});
