import { describe, expect, test } from "vitest";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { ClaimFacts } from "../../src/sessions/claim-facts.ts";
import type { SessionRecorder } from "../../src/sessions/session-recorder.ts";
import { pod } from "../pods/pods.ts";
import { JOURNAL, opened } from "../protocol/claims.ts";
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
function factsOf({ cached, live }: { cached?: Pod; live?: unknown }) {
  const clock = new VirtualClock();
  const kube = new FakeKube(() => live, clock);
  const context = fakeContext({
    clock,
    kube: kube.client,
    pods: { get: () => cached, list: () => [] },
    environment: () => ({ spec: { sessions: { onPodFailure: "Stop", maxDurationSeconds: 3_600 } } }),
    template: () => ({ graceSeconds: GRACE_SECONDS }),
  });
  const notes = { started: () => {}, ended: () => {}, ran: () => {} } as unknown as SessionRecorder;
  const facts = new ClaimFacts(context, notes, { mayRelease: () => false }, () => {});
  return { clock, kube, facts, read: async () => (await facts.read(opened())).facts };
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

test("a drain limits the grace period of sessions to its own", () => {
  const { facts } = factsOf({});
  expect(facts.limits(opened()).graceMs).toBe(GRACE_SECONDS * 1_000);
  facts.drain(0);
  expect(facts.limits(opened()).graceMs).toBeLessThan(drainBoundMs);
});
