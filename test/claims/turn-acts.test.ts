import { describe, expect, test } from "vitest";
import { putToSleep, sameState, touchPod } from "../../src/claims/pod-acts.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { readEnded } from "../../src/pods/finished.ts";
import { stopPatienceMs } from "../../src/protocol/facts.ts";
import { type TurnsPod, turnsPod } from "../pods/turn-pods.ts";
import { type ClaimFields, JOURNAL, opened } from "../protocol/claims.ts";
import { FakeKube, type KubeCall, notFound, refusal } from "../reconcile/fake-kube.ts";
import { fakeContext, OWNER } from "../sessions/fake-context.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const GRACE_SECONDS = 40;
const MAX_DURATION_SECONDS = 3_600;
const SLEEP_SECONDS = 600;
const MOST_TRIES = 5;
const RUNNING = { running: { startedAt: "2030-01-01T00:00:00Z" } };
const ENDED = { terminated: { exitCode: 0 } };
const conflict = () => refusal(409, "Conflict", "the object has been modified");

/** A Pod whose session was asleep before its second turn, as the server has it in version 7. */
const podOf = (of: TurnsPod = {}) =>
  turnsPod({
    ...{ phase: "sleeping", ended: 1, turns: { 1: ENDED, 2: RUNNING }, ids: { 2: "containerd://2" }, ...of },
    metadata: { uid: JOURNAL.podUid, resourceVersion: "7", ownerReferences: [OWNER], ...of.metadata },
  });
const claimOf = (of: ClaimFields = {}) =>
  opened({ turn: 2, slot: "berth-research-x-t2", deadlineSeconds: null, touches: 0, touchedMs: null, ...of });

/**
 * A server on which a patch that names another version than the live Pod's meets a conflict. `reads` are the Pods of
 * the live reads, in turn; the last one stays.
 */
function server(reads: readonly (Pod | Error)[]) {
  const clock = new VirtualClock();
  const left = [...reads];
  let live = left[0];
  const kube = new FakeKube(({ verb, body }: KubeCall) => {
    if (verb === "get") {
      live = (left.length > 1 ? left.shift() : left[0]) ?? notFound("pods", "berth-research-x");
      return live;
    }
    if (live === undefined || live instanceof Error) return live ?? notFound("pods", "berth-research-x");
    const { metadata } = body as Pod;
    if (metadata.resourceVersion !== live.metadata.resourceVersion) return conflict();
    return { ...live, metadata: { ...live.metadata, resourceVersion: "100" } };
  }, clock);
  const context = fakeContext({
    ...{ clock, kube: kube.client, template: () => ({ graceSeconds: GRACE_SECONDS }) },
    environment: () => ({
      spec: {
        sessions: {
          ...{ maxDurationSeconds: MAX_DURATION_SECONDS, template: {} },
          workspace: { type: "Pod", sleepSeconds: SLEEP_SECONDS },
        },
      },
    }),
  });
  return {
    ...{ clock, context, kube },
    verbs: () => kube.calls.map(({ verb }) => verb),
    versions: () =>
      kube.calls.flatMap(({ verb, body }) => (verb === "patch" ? [(body as Pod).metadata.resourceVersion] : [])),
    patch: () => kube.calls.findLast(({ verb }) => verb === "patch")?.body as Pod | undefined,
  };
}

const version = (resourceVersion: string, of: TurnsPod = {}) =>
  podOf({ ...of, metadata: { ...of.metadata, resourceVersion } });

describe("touching a Pod with turns", () => {
  const touch = async (reads: readonly (Pod | Error)[], claim = claimOf(), cached: Pod = podOf()) => {
    const world = server(reads);
    const result = await touchPod(world.context, claim, cached).catch((error: unknown) => error);
    return { ...world, result, claim };
  };

  test("assigns the claimed turn, in the container that waits now, and ends the sleep", async () => {
    const { patch, clock } = await touch([podOf()]);
    expect(patch()?.metadata).toMatchObject({
      ...{ uid: JOURNAL.podUid, resourceVersion: "7" },
      labels: { "berth.dev/phase": "running" },
      annotations: {
        "kubectl.kubernetes.io/default-container": "berth-turn-2",
        "berth.dev/turn-container": "containerd://2",
        "berth.dev/assigned-at": new Date(clock.now()).toISOString(),
        "berth.dev/sleeps-since": null,
        "berth.dev/sleeps-until": null,
        "berth.dev/session-id": JOURNAL.sessionId,
      },
    });
  });

  test("names the container that the claim was made for, even if the kubelet has started the turn again", async () => {
    const { patch } = await touch([podOf()], claimOf({ journal: { ...JOURNAL, container: "containerd://1" } }));
    expect(patch()?.metadata.annotations?.["berth.dev/turn-container"]).toBe("containerd://1");
  });

  test("gives the keeper a deadline from now on, and leaves that of the Pod, which counts from its start", async () => {
    const cached = podOf({ status: { startTime: new Date(new VirtualClock().now() - 86_400_000).toISOString() } });
    const { patch, clock, claim } = await touch([podOf()], claimOf(), cached);
    const lastsSeconds =
      MAX_DURATION_SECONDS + GRACE_SECONDS + stopPatienceMs(GRACE_SECONDS * 1_000, DEFAULT_TIMING) / 1_000;
    const deadline = patch()?.metadata.annotations?.["berth.dev/deadline"];
    expect(Number(deadline) - clock.now() / 1_000).toBe(lastsSeconds);
    expect(patch()).not.toHaveProperty("spec");
    expect(claim.record.deadlineSeconds).toBe(lastsSeconds);
  });

  test("names the version of the live read before the acknowledgement, not that of the cache", async () => {
    const { versions, claim, result } = await touch([version("9")], claimOf({ podVersion: "9" }), version("3"));
    expect([result, versions()]).toEqual([undefined, ["9"]]);
    expect(claim.record).toMatchObject({ podVersion: "100", assigned: true, touches: 1 });
  });

  test("reads the Pod after a conflict, and tries again with its version", async () => {
    const { verbs, versions, result } = await touch([version("8"), version("8")], claimOf({ podVersion: "5" }));
    expect(result).toBeUndefined();
    expect([verbs(), versions()]).toEqual([
      ["patch", "get", "patch"],
      ["5", "8"],
    ]);
  });

  test.each<[string, TurnsPod]>([
    ["sleeps again: the end of the claimed turn is on record", { ended: 2 }],
    ["waits for another claim in its third turn", { ended: 2, turns: { 2: ENDED, 3: RUNNING } }],
    ["has skipped the claimed turn", { turns: { 2: ENDED, 3: RUNNING } }],
    ["is being deleted", { metadata: { deletionTimestamp: "2030-01-01T00:00:00Z" } }],
    ["is another one of that name", { metadata: { uid: "another" } }],
  ])("is refused with the conflict if the live Pod %s", async (_, of) => {
    const { result, verbs, claim } = await touch([version("8", of)], claimOf({ podVersion: "5" }));
    expect(result).toMatchObject({ status: 409 });
    expect(verbs()).toEqual(["patch", "get"]);
    expect(claim.record).toMatchObject({ assigned: false, touches: 0 });
  });

  test("is given up after some conflicts in a row", async () => {
    // Each read is outdated by the time of its patch.
    const world = server([podOf()]);
    world.kube.answer(({ verb }) => (verb === "get" ? podOf() : conflict()));
    await expect(touchPod(world.context, claimOf(), podOf())).rejects.toMatchObject({ status: 409 });
    expect(world.versions()).toHaveLength(MOST_TRIES);
  });

  test.each([
    ["refused", refusal(403, "Forbidden", "no")],
    ["not answered", refusal(0, "", "no answer")],
  ])("is not repeated at once if it was %s", async (_, error) => {
    const { result, verbs } = await touch([error]);
    expect([result, verbs()]).toEqual([error, ["patch"]]);
  });
});

describe("putting a session to sleep", () => {
  const assigned = (of: TurnsPod = {}) => podOf({ phase: "running", turns: { 1: ENDED, 2: ENDED }, ...of });
  const SERVED = { failed: false, inARow: 0, message: "" };
  const sleep = async (reads: readonly (Pod | Error)[], seen: Pod = assigned(), claim = claimOf(), start = SERVED) => {
    const world = server(reads);
    const result = await putToSleep(world.context, claim, seen, start).catch((error: unknown) => error);
    return { ...world, result, claim };
  };

  test("marks the Pod that was seen, in its version, with the end of the claimed turn", async () => {
    const { patch, result, verbs, clock } = await sleep([assigned()]);
    expect(verbs()).toEqual(["patch"]);
    expect(patch()?.metadata).toMatchObject({
      ...{ uid: JOURNAL.podUid, resourceVersion: "7", labels: { "berth.dev/phase": "sleeping" } },
      annotations: {
        "berth.dev/ended-turn": "2",
        "berth.dev/session-id": JOURNAL.sessionId,
        "berth.dev/sleeps-until": new Date(clock.now() + SLEEP_SECONDS * 1_000).toISOString(),
      },
    });
    expect(result).toMatchObject({ metadata: { resourceVersion: "100" } });
  });

  test("records a failed start for the next process, and forgets an earlier one", async () => {
    const marksOf = async (start: typeof SERVED) => {
      const { patch } = await sleep([assigned()], assigned(), claimOf(), start);
      const { annotations = {} } = patch()?.metadata ?? {};
      const { uid, labels } = assigned().metadata;
      const marked = {
        ...assigned(),
        metadata: { uid, labels: { ...labels, ...patch()?.metadata.labels }, annotations },
      };
      return readEnded(marked as Pod);
    };
    expect(await marksOf({ failed: true, inARow: 2, message: "exit code 1" })).toMatchObject({
      ...{ startFailure: true, startFailures: 2, message: "exit code 1" },
      finishedAtMs: expect.any(Number),
    });
    expect(await marksOf(SERVED)).toMatchObject({ startFailure: false, startFailures: 0, message: "" });
  });

  test("records which work item a Pod has served that was never assigned to it", async () => {
    const seen = podOf({ turns: { 1: ENDED, 2: ENDED } });
    const { patch } = await sleep([seen], seen, claimOf({ assignedAtMs: 1_000 }));
    expect(patch()?.metadata).toMatchObject({
      labels: { "berth.dev/phase": "sleeping", "berth.dev/work-id": JOURNAL.workId },
      annotations: {
        ...{ "berth.dev/ended-turn": "2", "berth.dev/work-id": JOURNAL.workId },
        "berth.dev/assigned-at": "1970-01-01T00:00:01.000Z",
        "kubectl.kubernetes.io/default-container": "berth-turn-2",
      },
    });
  });

  test("leaves a Pod's last work item on record if the line was never sent", async () => {
    const seen = podOf({ turns: { 1: ENDED, 2: ENDED } });
    const { patch } = await sleep([seen], seen);
    expect(Object.keys(patch()?.metadata.annotations ?? {})).not.toContain("berth.dev/work-id");
  });

  test("reads the Pod after a conflict, and marks the version that it read", async () => {
    const live = assigned({ metadata: { resourceVersion: "8" } });
    const { verbs, versions, result } = await sleep([live, live], assigned({ metadata: { resourceVersion: "6" } }));
    expect([verbs(), versions()]).toEqual([
      ["patch", "get", "patch"],
      ["6", "8"],
    ]);
    expect(result).toMatchObject({ metadata: { resourceVersion: "100" } });
  });

  test.each<[string, TurnsPod]>([
    ["the turn's own end", { phase: "sleeping", ended: 2 }],
    // The claim's Secret outlived an operator, and so did that of a later claim.
    ["that of a later turn, which a session runs in", { phase: "running", ended: 2, turns: { 2: ENDED, 3: RUNNING } }],
    ["that of a later turn", { phase: "sleeping", ended: 5 }],
  ])("changes nothing if the Pod has on record %s", async (_, of) => {
    const seen = assigned(of);
    const { verbs, result } = await sleep([seen], seen);
    expect([verbs(), result]).toEqual([[], seen]);
    const late = await sleep([version("8", of)], assigned());
    late.kube.answer(({ verb }) => (verb === "get" ? version("8", of) : conflict()));
    expect(await putToSleep(late.context, claimOf(), assigned(), SERVED)).toEqual(version("8", of));
  });

  test.each<[string, TurnsPod["metadata"]]>([
    ["another one of that name", { uid: "another" }],
    ["being deleted", { deletionTimestamp: "2030-01-01T00:00:00Z" }],
  ])("is impossible if the Pod is %s, seen or read live", async (_, metadata = {}) => {
    const seen = await sleep([], assigned({ metadata }));
    expect([seen.verbs(), seen.result]).toEqual([[], null]);
    const live = await sleep([assigned({ metadata: { ...metadata, resourceVersion: "8" } })]);
    expect([live.verbs(), live.result]).toEqual([["patch", "get"], null]);
  });

  test("is impossible if the Pod is gone", async () => {
    const gone = await sleep([notFound("pods", "berth-research-x")]);
    expect([gone.verbs(), gone.result]).toEqual([["patch"], null]);
    const world = server([podOf()]);
    world.kube.answer(({ verb }) => (verb === "get" ? notFound("pods", "berth-research-x") : conflict()));
    expect(await putToSleep(world.context, claimOf(), assigned(), SERVED)).toBeNull();
  });

  test("fails after some conflicts in a row, and at once on another error", async () => {
    const world = server([podOf()]);
    world.kube.answer(({ verb }) => (verb === "get" ? assigned() : conflict()));
    await expect(putToSleep(world.context, claimOf(), assigned(), SERVED)).rejects.toMatchObject({ status: 409 });
    expect(world.versions()).toHaveLength(MOST_TRIES);
    const refused = await sleep([refusal(403, "Forbidden", "no")]);
    expect([refused.result, refused.verbs()]).toEqual([expect.objectContaining({ status: 403 }), ["patch"]]);
  });
});

test("a Pod is deleted for its claim's turn, and not once that has ended", () => {
  const step = { do: "delete-pod", why: "LeaseLost", message: "" } as const;
  const live = podOf({ turns: { 1: ENDED, 2: RUNNING } });
  expect([sameState(live, step, 1), sameState(live, step, 2)]).toEqual([false, true]);
});
