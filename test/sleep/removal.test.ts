import { describe, expect, test } from "vitest";
import type { Pod, Secret } from "../../src/kube/resource.ts";
import type { Journal } from "../../src/protocol/journal.ts";
import { type EndingSleep, Removals } from "../../src/sleep/removal.ts";
import { pod } from "../pods/pods.ts";
import { type TurnsPod, turnsPod } from "../pods/turn-pods.ts";
import { JOURNAL } from "../protocol/claims.ts";
import { FakeKube, type KubeCall, refusal } from "../reconcile/fake-kube.ts";
import { claimSecret, fakeContext, OWNER } from "../sessions/fake-context.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const free = (metadata: Pod["metadata"] = {}, status: Pod["status"] = {}) =>
  pod(status, {
    metadata: { uid: JOURNAL.podUid, ownerReferences: [OWNER], labels: { "berth.dev/phase": "warm" }, ...metadata },
  });
const exists = () => refusal(409, "AlreadyExists", "there is one");
const conflict = () => refusal(409, "Conflict", "not that uid");

/** Removes a free Pod on a server with these answers by request; all other requests succeed. */
async function remove(answers: Record<string, (call: KubeCall) => unknown> = {}, seen = free(), sleep?: EndingSleep) {
  const all: Record<string, (call: KubeCall) => unknown> = {
    "create secrets": () => claimSecret({ use: "removal" }, { uid: "lock-uid" }),
    "get pods": () => free(),
    ...answers,
  };
  const kube = new FakeKube((call) => (all[`${call.verb} ${call.plural}`] ?? (() => ({})))(call));
  const foreign: Secret[] = [];
  const clock = new VirtualClock();
  const context = fakeContext({ clock, kube: kube.client, pods: { get: () => seen } });
  const told: string[] = [];
  const report = { ended: (sessionId: string, _: unknown, why: string) => told.push(`${sessionId} ${why}`) };
  const removals = new Removals({ context, onForeignSlot: (secret) => foreign.push(secret), report });
  const result = await removals.remove(seen, sleep);
  const deletes = kube.calls.flatMap(({ verb, plural, query }) => (verb === "delete" ? [[plural, query]] : []));
  const isUnderWay = removals.has("berth-research-x");
  return { result, calls: kube.calls, deletes, foreign, isUnderWay, told, clock, removals };
}

describe("the removal of a free Pod", () => {
  test("takes its slot, and deletes the Pod and then the lock by their uids", async () => {
    const { result, calls, deletes } = await remove();
    expect(result).toBe("removed");
    expect(calls.map(({ verb, plural }) => `${verb} ${plural}`)).toEqual([
      ...["create secrets", "get pods", "delete pods", "delete secrets"],
    ]);
    expect(deletes).toEqual([
      ["pods", { uid: JOURNAL.podUid, gracePeriodSeconds: 0 }],
      ["secrets", { uid: "lock-uid" }],
    ]);
  });

  test.each([
    ["another one by now", { uid: "another" }],
    ["assigned meanwhile", { labels: { "berth.dev/phase": "running" } }],
  ])("keeps a Pod that is %s, and releases its slot", async (_, metadata) => {
    const { result, deletes } = await remove({ "get pods": () => free(metadata) });
    expect(result).toBe("kept");
    expect(deletes).toEqual([["secrets", { uid: "lock-uid" }]]);
  });

  test("gives running containers their grace period", async () => {
    const running = free({}, { initContainerStatuses: [{ name: "gate", state: { running: {} } }] });
    expect((await remove({}, running)).deletes[0]).toEqual(["pods", { uid: JOURNAL.podUid }]);
  });
});

describe("the removal of a sleeping Pod", () => {
  const RUNNING = { running: { startedAt: "2030-01-01T00:00:00Z" } };
  const asleep = (of: TurnsPod = {}) =>
    turnsPod({
      ...{ phase: "sleeping", ended: 1, turns: { 2: RUNNING }, ...of },
      metadata: { uid: JOURNAL.podUid, resourceVersion: "7", ownerReferences: [OWNER], ...of.metadata },
    });

  test("takes the slot of its next turn, and deletes it in the version that it read", async () => {
    const live = asleep({ metadata: { resourceVersion: "8" } });
    const { result, calls, deletes } = await remove({ "get pods": () => live }, asleep());
    expect(result).toBe("removed");
    expect(calls.map(({ verb, plural, ref }) => `${verb} ${plural} ${ref.name}`)).toEqual([
      "create secrets berth-research-x-t2",
      "get pods berth-research-x",
      "delete pods berth-research-x",
      "delete secrets berth-research-x-t2",
    ]);
    expect(deletes).toEqual([
      ["pods", { uid: JOURNAL.podUid, resourceVersion: "8" }],
      ["secrets", { uid: "lock-uid" }],
    ]);
  });

  test.each<[string, TurnsPod]>([
    ["assigned meanwhile", { phase: "running" }],
    ["in a later turn", { ended: 2, turns: { 3: RUNNING } }],
    ["before a turn that was added after its lock", { turns: { 3: RUNNING } }],
  ])("keeps a Pod that is %s, and releases its slot", async (_, of) => {
    const { result, deletes } = await remove({ "get pods": () => asleep(of) }, asleep());
    expect(result).toBe("kept");
    expect(deletes).toEqual([["secrets", { uid: "lock-uid" }]]);
  });

  const EXPIRED = { sessionId: "sesn_1", why: "Expired" } as const;

  test("reports the end of the sleep once, when the Pod is deleted", async () => {
    const found = () => claimSecret({ use: "removal" }, { uid: "lock-uid" });
    const answers = { "get pods": () => asleep(), "delete secrets": conflict, "get secrets": found };
    const { result, told, clock, removals } = await remove(answers, asleep(), EXPIRED);
    await clock.advance(60_000);
    await Promise.all(removals.retryDue().map(([, retried]) => retried));
    expect([result, told]).toEqual(["failed", ["sesn_1 Expired"]]);
  });

  test("reports nothing if the Pod stays", async () => {
    const { told } = await remove({ "get pods": () => asleep({ phase: "running" }) }, asleep(), EXPIRED);
    expect(told).toEqual([]);
  });

  test("is retried under its lock if the Pod changed since it was read", async () => {
    const answers = { "get pods": () => asleep(), "delete pods": conflict };
    const { result, deletes, isUnderWay } = await remove(answers, asleep());
    expect([result, isUnderWay]).toEqual(["failed", true]);
    expect(deletes.map(([plural]) => plural)).toEqual(["pods"]);
  });
});

describe("a slot that is already locked", () => {
  const over = (found: Partial<Journal>) =>
    remove({ "create secrets": exists, "get secrets": () => claimSecret(found, { uid: "found-uid" }) });

  test("is ours if the lock is for this Pod", async () => {
    const { result, deletes } = await over({ use: "removal" });
    expect(result).toBe("removed");
    expect(deletes[1]).toEqual(["secrets", { uid: "found-uid" }]);
  });

  test.each<[string, Partial<Journal>]>([
    ["a claim holds it", { use: "session" }],
    ["the lock is for another Pod of that name", { use: "removal", podUid: "another" }],
  ])("is left alone if %s", async (_, found) => {
    const { result, deletes, foreign, calls } = await over(found);
    expect(result).toBe("taken");
    expect(deletes).toEqual([]);
    expect(foreign).toHaveLength(1);
    expect(calls.map(({ plural }) => plural)).not.toContain("pods");
  });
});

test.each([
  ["still exists is retried", "lock-uid", "failed"],
  ["was replaced counts as gone", "another", "removed"],
])("a lock whose deletion meets a conflict and that %s", async (_, uid, expected) => {
  const { result, isUnderWay } = await remove({
    "delete secrets": conflict,
    "get secrets": () => claimSecret({ use: "removal" }, { uid }),
  });
  expect(result).toBe(expected);
  expect(isUnderWay).toBe(expected === "failed");
});
