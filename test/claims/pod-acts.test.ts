import { describe, expect, test } from "vitest";
import { fence, stopItem } from "../../src/claims/item-acts.ts";
import { sameState, touchPod } from "../../src/claims/pod-acts.ts";
import { dropSecret, openSecret, StaleClaimError } from "../../src/claims/secret-acts.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { LeadershipLostError } from "../../src/kube/errors.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { deleteAsSeen, deletePod } from "../../src/pods/delete.ts";
import { NO_DEADLINE_SECONDS } from "../../src/pods/pod-render.ts";
import type { Claim } from "../../src/protocol/claim.ts";
import { stopPatienceMs } from "../../src/protocol/facts.ts";
import { isRefusal, WorkApiError } from "../../src/work/errors.ts";
import { pod } from "../pods/pods.ts";
import { acknowledged, JOURNAL, OURS, opened, PARKED } from "../protocol/claims.ts";
import { type Answer, FakeKube, notFound, refusal } from "../reconcile/fake-kube.ts";
import { claimSecret, fakeContext, noAnswer } from "../sessions/fake-context.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const conflict = () => refusal(409, "Conflict", "the object has been modified");
const GRACE_SECONDS = 40;
const MAX_DURATION_SECONDS = 3_600;

const controlledBy = (uid: string) => ({
  ownerReferences: [{ apiVersion: "berth.dev/v1alpha1", kind: "Environment", name: "research", uid, controller: true }],
});
const sessionPod = (metadata: Pod["metadata"] = {}, spec: Partial<Pod["spec"]> = {}): Pod =>
  pod({}, { metadata: { uid: JOURNAL.podUid, resourceVersion: "3", ...controlledBy("env-uid"), ...metadata }, spec });

/** Performs one act on an API server that gives this answer. */
async function on<T>(answer: Answer, act: (context: ReturnType<typeof fakeContext>) => Promise<T>) {
  const clock = new VirtualClock();
  const kube = new FakeKube(answer, clock);
  const context = fakeContext({
    clock,
    kube: kube.client,
    environment: () => ({ spec: { sessions: { maxDurationSeconds: MAX_DURATION_SECONDS, template: {} } } }),
    template: () => ({ graceSeconds: GRACE_SECONDS }),
  });
  const result = await act(context).catch((error: unknown) => error);
  return { result, calls: kube.calls };
}

describe("opening the Secret of a claim", () => {
  const open = (claim: Claim, answer: Answer) => on(answer, (context) => openSecret(context, claim, OURS, false));

  test("names the Secret by its uid and resourceVersion, and keeps the new resourceVersion", async () => {
    const claim = acknowledged({ credential: "c2VjcmV0" });
    const { calls } = await open(claim, () => claimSecret({}, { resourceVersion: "8" }));
    expect(calls).toMatchObject([{ verb: "patch", body: { metadata: { uid: "secret-uid", resourceVersion: "1" } } }]);
    expect(claim.record.secretVersion).toBe("8");
  });

  test.each([
    ["changed", conflict()],
    ["is gone", notFound("secrets", "berth-research-x")],
  ])("reports a stale claim when the Secret %s", async (_, answer) => {
    expect((await open(acknowledged({ credential: "c2VjcmV0" }), () => answer)).result).toBeInstanceOf(StaleClaimError);
  });

  test.each([
    [true, "c2VjcmV0"],
    [false, null],
  ])("keeps the credential only for the line of a waiting container: %j", async (keeps, expected) => {
    const claim = acknowledged({ credential: "c2VjcmV0" });
    await on(
      () => claimSecret(),
      (context) => openSecret(context, claim, OURS, keeps),
    );
    expect(claim.record.credential).toBe(expected);
  });

  test("does not read the credential from another Secret of the same name", async () => {
    const { result, calls } = await open(acknowledged(), () => claimSecret({}, { uid: "another" }));
    expect(result).toBeInstanceOf(StaleClaimError);
    expect(calls.map(({ verb }) => verb)).toEqual(["get"]);
  });
});

describe("deleting the Secret of a claim", () => {
  const drop = (answer: Answer) => on(answer, (context) => dropSecret(context, opened(), "session.settled", "stopped"));

  test("names the Secret by its uid and resourceVersion", async () => {
    const { calls } = await drop(() => ({}));
    expect(calls).toMatchObject([{ verb: "delete", query: { uid: "secret-uid", resourceVersion: "1" } }]);
  });

  test("reports a stale claim when the Secret changed, and succeeds when it is gone", async () => {
    expect((await drop(conflict)).result).toBeInstanceOf(StaleClaimError);
    expect((await drop(() => notFound("secrets", "x"))).result).toBeUndefined();
  });
});

describe("touching a Pod", () => {
  const touch = (of: Pod, claim = opened({ deadlineSeconds: null })) =>
    on(
      () => of,
      (context) => touchPod(context, claim, of),
    );
  const deadlineOf = ({ calls }: Awaited<ReturnType<typeof touch>>) =>
    (calls[0]?.body as Pod | undefined)?.spec.activeDeadlineSeconds;
  /**
   * How long (seconds) the operator waits for a session to stop before it deletes the Pod, which then has its grace
   * period.
   */
  const patienceSeconds = stopPatienceMs(GRACE_SECONDS * 1_000, DEFAULT_TIMING) / 1_000;

  test("names the Pod by its uid", async () => {
    expect((await touch(sessionPod())).calls).toMatchObject([{ body: { metadata: { uid: JOURNAL.podUid } } }]);
  });

  test.each([
    ["Shell", true],
    ["Program", true],
    [undefined, false],
  ])("says since when it is assigned if it waits for a line: parking %s", async (parking, says) => {
    const claim = opened({ deadlineSeconds: null });
    const of = sessionPod(parking === undefined ? {} : { annotations: { "berth.dev/parking": parking } });
    const { calls } = await touch(of, claim);
    const now = new Date(new VirtualClock().now()).toISOString();
    const annotations = (calls[0]?.body as Pod | undefined)?.metadata.annotations ?? {};
    expect(annotations["berth.dev/assigned-at"]).toBe(says ? now : undefined);
    expect(claim.record).toMatchObject({ assigned: true, assignedAtMs: Date.parse(now) });
  });

  test("keeps the time of the first assignment, of this process or an earlier one", async () => {
    const earlier = "2029-12-31T23:00:00.000Z";
    const annotations = { "berth.dev/parking": "Shell", "berth.dev/assigned-at": earlier };
    const said = async (of: Pod, claim: Claim) =>
      ((await touch(of, claim)).calls[0]?.body as Pod | undefined)?.metadata.annotations?.["berth.dev/assigned-at"];
    expect(await said(sessionPod({ annotations }), opened())).toBe(earlier);
    const unseen = sessionPod({ annotations: { "berth.dev/parking": "Shell" } });
    expect(await said(unseen, opened({ assignedAtMs: Date.parse(earlier) }))).toBe(earlier);
  });

  test("has not assigned the Pod if its patch was refused", async () => {
    const claim = opened();
    const refused = await on(
      () => refusal(403, "Forbidden", "no"),
      (context) => touchPod(context, claim, sessionPod()),
    );
    expect([refused.result, claim.record.assigned]).toEqual([expect.any(Error), false]);
  });

  test("sets the deadline to age, longest duration, the operator's patience and the grace period", async () => {
    const made = new Date(new VirtualClock().now() - 500_000).toISOString();
    const bound = MAX_DURATION_SECONDS + patienceSeconds + GRACE_SECONDS;
    expect(deadlineOf(await touch(sessionPod()))).toBe(bound);
    const old = pod({ startTime: made }, { metadata: { uid: JOURNAL.podUid } });
    expect(deadlineOf(await touch(old))).toBe(500 + bound);
  });

  test("never raises the deadline", async () => {
    expect(deadlineOf(await touch(sessionPod({}, { activeDeadlineSeconds: 10 })))).toBe(10);
    const unbounded = sessionPod({}, { activeDeadlineSeconds: NO_DEADLINE_SECONDS });
    expect(deadlineOf(await touch(unbounded, opened({ deadlineSeconds: 77 })))).toBe(77);
  });
});

describe("deleting a Pod", () => {
  const remove = (answer: Answer, unless: (live: Pod) => boolean = () => false) =>
    on(answer, (context) => deletePod(context, { by: "session", name: "berth-research-x" }, unless));
  const verbs = ({ calls }: Awaited<ReturnType<typeof remove>>) => calls.map(({ verb }) => verb);

  test("names the Pod by the uid from a live read", async () => {
    const { result, calls } = await remove(({ verb }) => (verb === "get" ? sessionPod() : {}));
    expect(result).toBeNull();
    expect(calls).toMatchObject([{ verb: "get" }, { verb: "delete", query: { uid: JOURNAL.podUid } }]);
  });

  test("is skipped when the live Pod is another one", async () => {
    const live = sessionPod({ uid: "another" });
    const removed = await remove(
      () => live,
      ({ metadata }) => metadata.uid !== JOURNAL.podUid,
    );
    expect(removed.result).toBe(live);
    expect(verbs(removed)).toEqual(["get"]);
  });

  test("is skipped for a Pod that isn't a session Pod of this Environment", async () => {
    expect(verbs(await remove(() => sessionPod(controlledBy("another"))))).toEqual(["get"]);
  });

  test.each([
    ["the same Pod still exists: a server may report a conflict for a mere race", sessionPod(), true],
    ["another Pod has the name", sessionPod({ uid: "another" }), false],
  ])("compares the Pods after a conflict: %s", async (_, after, hasFailed) => {
    let reads = 0;
    const { result } = await remove(({ verb }) => {
      if (verb === "delete") return conflict();
      reads += 1;
      return reads === 1 ? sessionPod() : after;
    });
    expect(result instanceof Error).toBe(hasFailed);
  });
});

describe("deleting a Pod as the cache shows it", () => {
  const remove = (seen: Pod, answer: unknown = {}) =>
    on(
      () => answer,
      (context) => deleteAsSeen(context, { by: "retention", name: "berth-research-x" }, seen),
    );

  test("names the Pod by its uid and resourceVersion", async () => {
    const { result, calls } = await remove(sessionPod());
    expect(result).toBe(true);
    expect(calls.map(({ query }) => query)).toEqual([{ uid: JOURNAL.podUid, resourceVersion: "3" }]);
  });

  test.each([
    ["isn't a session Pod of this Environment", sessionPod(controlledBy("another"))],
    ["has no resourceVersion", pod({}, { metadata: { uid: "pod-uid" } })],
  ])("is skipped for a Pod that %s", async (_, seen) => {
    const { result, calls } = await remove(seen);
    expect(result).toBe(false);
    expect(calls).toEqual([]);
  });

  test("leaves the decision to the next run when the Pod changed", async () => {
    expect((await remove(sessionPod(), conflict())).result).toBe(false);
  });
});

describe("requests to the Work API", () => {
  const BEAT = { state: "active", lease_extended: true, last_heartbeat: "ours", ttl_seconds: 90 };
  const beaten = (beat: Partial<typeof BEAT> = {}) => ({ kind: "beat", beat: { ...BEAT, ...beat } });

  function workApi(answer: (expected: string) => unknown, guard = () => {}) {
    const sent: string[] = [];
    const times = { sentAtMs: 1_000, sentAtWallMs: 1_000 };
    const context = fakeContext({
      guard,
      work: () => ({
        heartbeat: async (_: string, { expected }: { expected: string }) => {
          sent.push(expected);
          return { ...times, value: answer(expected) };
        },
        stop: async () => {
          sent.push("stop");
          return { ...times, value: { alreadyStopped: false } };
        },
      }),
    });
    return { context, sent };
  }

  const NOT_LEADING = () => {
    throw new LeadershipLostError("not the leader");
  };

  test("are not sent by a process that is no longer the leader", async () => {
    const { context, sent } = workApi(() => beaten(), NOT_LEADING);
    await expect(fence(context, opened(), "seen")).rejects.toThrow(LeadershipLostError);
    await expect(stopItem(context, opened(), true)).rejects.toThrow(LeadershipLostError);
    expect(sent).toEqual([]);
  });

  test.each([
    ["that extends the lease of an active item takes the lease", beaten(), true],
    ["that extends nothing does not take the lease", beaten({ lease_extended: false }), false],
    ["of a stopping item does not take the lease", beaten({ state: "stopping" }), false],
    ["that is refused does not take the lease", { kind: "refused", current: null }, false],
  ])("a fence %s", async (_, answer, isHeld) => {
    const { context } = workApi(() => answer);
    const claim = opened();
    expect(await fence(context, claim, "seen")).toBe(isHeld);
    expect(claim.lease.memory.is).toBe(isHeld ? "fenced" : "refused");
  });

  test.each([
    ["again with the server's spelling of the same instant", "2030-01-01T00:00:00.000Z", 2],
    ["only once when the server reports a later heartbeat: another client sent it", "2030-01-01T00:00:07Z", 1],
  ])("a fence is sent %s", async (_, last_heartbeat, times) => {
    const { context, sent } = workApi(() => ({ kind: "refused", current: { state: "active", last_heartbeat } }));
    await fence(context, opened(), "2030-01-01T00:00:00Z");
    expect(sent).toHaveLength(times);
  });
});

test("only a refusal that can't have taken effect counts as refused", () => {
  const error = (maybeApplied: boolean) =>
    new WorkApiError({ kind: "conflict", call: "ack", message: "409", maybeApplied });
  expect(isRefusal(error(false))).toBe(true);
  expect(isRefusal(error(true))).toBe(false);
  expect(isRefusal(noAnswer())).toBe(false);
});

test("a Pod whose container runs by now has not failed to start", () => {
  const step = (why: "StartFailed" | "LeaseLost") => ({ do: "delete-pod", why, message: "" }) as const;
  const running = pod({ containerStatuses: [{ name: "worker", state: { running: {} } }] });
  expect(PARKED.is).toBe("parked");
  expect(sameState(pod(), step("StartFailed"), 0)).toBe(true);
  expect(sameState(running, step("StartFailed"), 0)).toBe(false);
  expect(sameState(running, step("LeaseLost"), 0)).toBe(true);
});

test("a Pod that has not read its line has failed to start, although its container runs", () => {
  const step = { do: "delete-pod", why: "StartFailed", message: "" } as const;
  const annotations = { "berth.dev/parking": "Shell", "berth.dev/assigned-at": new Date(0).toISOString() };
  const of = (state: "running" | "terminated") =>
    pod(
      { containerStatuses: [{ name: "worker", state: { [state]: { exitCode: 1 } } }] },
      { metadata: { annotations } },
    );
  expect(sameState(of("running"), step, 0)).toBe(true);
  expect(sameState(of("terminated"), step, 0)).toBe(false);
});
