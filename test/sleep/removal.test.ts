import { describe, expect, test } from "vitest";
import type { Pod, Secret } from "../../src/kube/resource.ts";
import type { Journal } from "../../src/protocol/journal.ts";
import { Removals } from "../../src/sleep/removal.ts";
import { pod } from "../pods/pods.ts";
import { JOURNAL } from "../protocol/claims.ts";
import { FakeKube, type KubeCall, refusal } from "../reconcile/fake-kube.ts";
import { claimSecret, fakeContext, OWNER } from "../sessions/fake-context.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const free = (metadata: Pod["metadata"] = {}, status: Pod["status"] = {}) =>
  pod(status, {
    metadata: { uid: JOURNAL.podUid, ownerReferences: [OWNER], labels: { "berth.dev/phase": "parked" }, ...metadata },
  });
const exists = () => refusal(409, "AlreadyExists", "there is one");
const conflict = () => refusal(409, "Conflict", "not that uid");

/** Removes a free Pod on a server with these answers by request; all other requests succeed. */
async function remove(answers: Record<string, (call: KubeCall) => unknown> = {}, seen = free()) {
  const all: Record<string, (call: KubeCall) => unknown> = {
    "create secrets": () => claimSecret({ use: "removal" }, { uid: "lock-uid" }),
    "get pods": () => free(),
    ...answers,
  };
  const kube = new FakeKube((call) => (all[`${call.verb} ${call.plural}`] ?? (() => ({})))(call));
  const foreign: Secret[] = [];
  const context = fakeContext({ clock: new VirtualClock(), kube: kube.client, pods: { get: () => seen } });
  const removals = new Removals({ context, onForeignSlot: (secret) => foreign.push(secret) });
  const result = await removals.remove(seen);
  const deletes = kube.calls.flatMap(({ verb, plural, query }) => (verb === "delete" ? [[plural, query]] : []));
  return { result, calls: kube.calls, deletes, foreign, isUnderWay: removals.has("berth-research-x") };
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
    ["assigned meanwhile", { labels: { "berth.dev/phase": "assigned" } }],
  ])("keeps a Pod that is %s, and releases its slot", async (_, metadata) => {
    const { result, deletes } = await remove({ "get pods": () => free(metadata) });
    expect(result).toBe("taken");
    expect(deletes).toEqual([["secrets", { uid: "lock-uid" }]]);
  });

  test("gives running containers their grace period", async () => {
    const running = free({}, { initContainerStatuses: [{ name: "gate", state: { running: {} } }] });
    expect((await remove({}, running)).deletes[0]).toEqual(["pods", { uid: JOURNAL.podUid }]);
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
