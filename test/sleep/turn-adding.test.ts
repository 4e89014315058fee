import { describe, expect, test } from "vitest";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { LeadershipLostError } from "../../src/kube/errors.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { MOST_TURNS } from "../../src/pods/turns.ts";
import { TurnAdding } from "../../src/sleep/turn-adding.ts";
import { pod } from "../pods/pods.ts";
import { type TurnsPod, turnsPod } from "../pods/turn-pods.ts";
import { FakeKube, type KubeCall, notFound, refusal } from "../reconcile/fake-kube.ts";
import { fakeContext, noAnswer, OWNER } from "../sessions/fake-context.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const { expectationMs } = DEFAULT_TIMING;
const RUNNING = { running: { startedAt: "2030-01-01T00:00:00Z" } };
const ENDED = { terminated: { exitCode: 0 } };

const podOf = (of: TurnsPod = {}) =>
  turnsPod({
    ...of,
    metadata: { uid: "pod-uid", resourceVersion: "7", ownerReferences: [OWNER], ...of.metadata },
  });
const asleep = (of: TurnsPod = {}) => podOf({ phase: "sleeping", ended: 1, turns: { 1: ENDED }, ...of });

/** TurnAdding on a server that gives these answers; by default a read finds `live`, and each turn is added. */
function adding(live: Pod | Error = podOf(), answer: (call: KubeCall) => unknown = () => undefined) {
  const clock = new VirtualClock();
  const kube = new FakeKube((call) => answer(call) ?? (call.verb === "get" ? live : {}), clock);
  const failures: [message: string, isForMoment: boolean | undefined][] = [];
  const cache = new Map<string, Pod>();
  const context = fakeContext({
    ...{ clock, kube: kube.client, pods: cache },
    sleepFailed: (message: string, isForMoment?: boolean) => failures.push([message, isForMoment]),
  });
  let changes = 0;
  const turns = new TurnAdding(context, () => {
    changes += 1;
  });
  const keep = async (...pods: Pod[]) => {
    for (const each of pods) cache.set(each.metadata.name ?? "", each);
    const nextMs = turns.keep(pods);
    await turns.ended();
    return nextMs === null ? null : nextMs - clock.monotonic();
  };
  const add = async (of: Pod, isLive = false) => {
    turns.add(of, isLive);
    await turns.ended();
  };
  return {
    ...{ turns, clock, kube, failures, cache, keep, add },
    changes: () => changes,
    verbs: () => kube.calls.map(({ verb }) => verb),
    /** The names of the added turns. */
    added: () =>
      kube.calls.flatMap(({ verb, body }) =>
        verb === "patch" ? (body as Pod).spec.ephemeralContainers?.map(({ name }) => name) : [],
      ),
  };
}

describe("a Pod that needs its next turn", () => {
  test.each<[string, TurnsPod, string]>([
    ["was just created", {}, "berth-turn-1"],
    ["sleeps after its first turn", { phase: "sleeping", ended: 1, turns: { 1: ENDED } }, "berth-turn-2"],
    ["sleeps, and its waiting turn was killed", { phase: "sleeping", ended: 1, turns: { 2: ENDED } }, "berth-turn-3"],
  ])("and %s gets it in the version that was read", async (_, of, name) => {
    const { keep, kube, added } = adding(podOf(of));
    await keep(podOf(of));
    expect(added()).toEqual([name]);
    expect(kube.calls).toMatchObject([
      { verb: "get" },
      {
        verb: "patch",
        query: { type: "strategic", subresource: "ephemeralcontainers" },
        body: { metadata: { uid: "pod-uid", resourceVersion: "7" } },
      },
    ]);
  });

  test("is not read first if the API server has just returned it", async () => {
    const { add, verbs } = adding();
    await add(podOf(), true);
    expect(verbs()).toEqual(["patch"]);
  });

  test("is read and tried again if it changed since the API server returned it", async () => {
    let conflicts = 1;
    const { add, verbs, changes } = adding(podOf(), ({ verb }) =>
      verb === "patch" && conflicts-- > 0 ? refusal(409, "Conflict", "modified") : undefined,
    );
    await add(podOf(), true);
    expect([verbs(), changes()]).toEqual([["patch", "get", "patch"], 1]);
  });

  test("is requested only once until the cache shows the turn", async () => {
    const { turns, keep, clock, added, cache } = adding();
    cache.set("berth-research-x", podOf());
    for (let n = 0; n < 3; n += 1) turns.add(podOf());
    expect(await keep(podOf())).toBeNull();
    expect(await keep(podOf())).toBe(expectationMs);
    await clock.advance(expectationMs);
    // The patch had no effect after all.
    await keep(podOf());
    expect(added()).toEqual(["berth-turn-1", "berth-turn-1"]);
    await keep(podOf({ turns: { 1: RUNNING } }));
    await keep(asleep());
    expect(added()).toHaveLength(3);
  });

  test("of the same name as an earlier one does not wait for that", async () => {
    const { keep, added, kube } = adding();
    await keep(podOf());
    kube.answer(({ verb }) => (verb === "get" ? podOf({ metadata: { uid: "another" } }) : {}));
    await keep(podOf({ metadata: { uid: "another" } }));
    expect(added()).toHaveLength(2);
  });
});

describe("a Pod gets no turn", () => {
  test.each<[string, Pod]>([
    ["that has none", pod()],
    ["that waits for its session", podOf({ turns: { 1: RUNNING } })],
    ["whose session runs", podOf({ phase: "running", turns: { 1: RUNNING } })],
    ["whose end is not recorded yet", podOf({ phase: "running", turns: { 1: ENDED } })],
    ["that is being deleted", podOf({ metadata: { deletionTimestamp: "2030-01-01T00:00:00Z" } })],
    ["whose keeper has ended", asleep({ keeper: ENDED, turns: {} })],
    ["that has had the most", asleep({ ended: MOST_TURNS, turns: { [MOST_TURNS]: ENDED } })],
  ])("%s", async (_, of) => {
    const { keep, kube } = adding();
    expect(await keep(of)).toBeNull();
    expect(kube.calls).toEqual([]);
  });

  test.each<[string, Pod]>([
    ["another Pod of that name", podOf({ metadata: { uid: "another" } })],
    ["a Pod of another Environment", podOf({ metadata: { ownerReferences: [{ ...OWNER, uid: "another" }] } })],
    ["a Pod whose turn waits by now", podOf({ turns: { 1: RUNNING } })],
    ["a Pod that is being deleted", podOf({ metadata: { deletionTimestamp: "2030-01-01T00:00:00Z" } })],
  ])("if the live read finds %s", async (_, live) => {
    const { keep, verbs, failures } = adding(live);
    await keep(podOf());
    expect([verbs(), failures]).toEqual([["get"], []]);
  });

  test("but the last one after all others", async () => {
    const { keep, added } = adding(asleep({ ended: MOST_TURNS - 1, turns: {} }));
    await keep(asleep({ ended: MOST_TURNS - 1, turns: {} }));
    expect(added()).toEqual([`berth-turn-${MOST_TURNS}`]);
  });

  test("if admission added another container, which would outlive the keeper", async () => {
    const live = podOf();
    const containers = [...live.spec.containers, { name: "istio-proxy" }];
    const { keep, verbs, failures } = adding({ ...live, spec: { ...live.spec, containers } });
    await keep(podOf());
    expect(verbs()).toEqual(["get"]);
    expect(failures).toEqual([["admission adds the container istio-proxy, which must be a native sidecar", undefined]]);
  });
});

describe("a failed try", () => {
  test.each([
    ["without an answer", noAnswer()],
    ["after a conflict", refusal(409, "Conflict", "modified")],
  ])("%s is repeated with backoff, and reported to the caller", async (_, error) => {
    const { keep, clock, changes, added, failures } = adding(podOf(), ({ verb }) =>
      verb === "patch" ? error : undefined,
    );
    await keep(podOf());
    expect(changes()).toBe(1);
    const first = (await keep(podOf())) ?? 0;
    expect(first).toBeGreaterThan(0);
    await clock.advance(first);
    await keep(podOf());
    expect(added()).toHaveLength(2);
    expect(await keep(podOf())).toBeGreaterThan(first);
    // It says nothing about the cluster.
    expect(failures).toEqual([]);
  });

  test("is not repeated for a Pod that is gone", async () => {
    const { keep, clock, verbs, changes } = adding(notFound("pods", "berth-research-x"));
    await keep(podOf());
    await clock.advance(expectationMs);
    expect(await keep(podOf())).toBeNull();
    expect([verbs(), changes()]).toEqual([["get"], 0]);
  });

  test("is forgotten with its Pod", async () => {
    const { keep, cache, kube, added } = adding(notFound("pods", "berth-research-x"));
    await keep(podOf());
    cache.clear();
    await keep();
    kube.answer(({ verb }) => (verb === "get" ? podOf() : {}));
    await keep(podOf());
    expect(added()).toHaveLength(1);
  });

  test("of a process that does not lead any more is not reported", async () => {
    const { keep, changes, failures } = adding(podOf(), ({ verb }) =>
      verb === "patch" ? new LeadershipLostError("not the leader") : undefined,
    );
    await keep(podOf());
    expect([changes(), failures]).toEqual([0, []]);
  });

  test.each<[string, Error, boolean]>([
    [
      "a missing right, until the next check",
      refusal(403, "Forbidden", 'pods "x" is forbidden: User "berth" cannot patch resource "pods/ephemeralcontainers"'),
      true,
    ],
    ["a policy that answers with 403", refusal(403, "Forbidden", "ephemeral containers are not allowed here"), false],
    ["a policy that answers with 422", refusal(422, "Invalid", "ephemeral containers need limits"), false],
  ])("shows that sessions can't sleep because of %s", async (_, error, isForMoment) => {
    const { keep, failures } = adding(podOf(), ({ verb }) => (verb === "patch" ? error : undefined));
    await keep(podOf());
    expect(failures).toEqual([[expect.stringMatching(/^the cluster refuses ephemeral containers: ./), isForMoment]]);
  });
});

test("turns are added to eight Pods at a time", async () => {
  const clock = new VirtualClock();
  const answers: (() => void)[] = [];
  const kube = {
    now: () => clock.now(),
    get: () => new Promise((resolve) => answers.push(() => resolve(pod()))),
  };
  const turns = new TurnAdding(fakeContext({ clock, kube, pods: new Map() }), () => {});
  for (let n = 0; n < 20; n += 1) turns.add(podOf({ name: `pod-${n}` }));
  await clock.settle();
  expect(answers).toHaveLength(8);
  for (let n = 0; n < 20; n += 1) {
    answers[n]?.();
    await clock.settle();
  }
  expect(answers).toHaveLength(20);
  await turns.ended();
});
