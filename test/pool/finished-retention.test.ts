import { describe, expect, test } from "vitest";
import type { Pod, Secret } from "../../src/kube/resource.ts";
import { Retention } from "../../src/pool/finished-retention.ts";
import { ClaimTable } from "../../src/protocol/claim-table.ts";
import { pod } from "../pods/pods.ts";
import { type TurnsPod, turnsPod } from "../pods/turn-pods.ts";
import { opened } from "../protocol/claims.ts";
import { FakeKube, type KubeCall, notFound } from "../reconcile/fake-kube.ts";
import { claimSecret, fakeContext, OWNER } from "../sessions/fake-context.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const assigned = (name: string, metadata: Pod["metadata"] = {}) =>
  pod(
    {},
    {
      metadata: {
        ...{ name, uid: `${name}-uid`, resourceVersion: "1", ownerReferences: [OWNER] },
        labels: { "berth.dev/phase": "running" },
        ...metadata,
      },
    },
  );

/** The assigned Pods of the cache that are deleted, on a server with these live Pods and Secrets. */
async function deleted(
  cached: readonly Pod[],
  answers: {
    secret?: Secret;
    live?: (call: KubeCall) => Pod;
    claims?: ClaimTable;
  } = {},
) {
  const clock = new VirtualClock();
  const { claims = new ClaimTable() } = answers;
  const foreign: Secret[] = [];
  const byName = new Map(cached.map((each) => [each.metadata.name, each]));
  const kube = new FakeKube((call) => {
    if (call.verb === "delete") return {};
    if (call.plural === "secrets") return answers.secret ?? notFound("secrets", call.ref.name);
    return answers.live?.(call) ?? byName.get(call.ref.name);
  }, clock);
  const sessions = { retainEndedSeconds: 600, retainFailedSeconds: 600 };
  const context = fakeContext({
    clock,
    kube: kube.client,
    environment: () => ({ spec: { sessions } }),
    pods: { list: () => cached, get: (name: string) => byName.get(name) },
  });
  const retention = new Retention({ context, claims, onForeignSlot: (secret) => foreign.push(secret) });
  const ending = new AbortController();
  retention.start(ending.signal);
  await clock.advance(500);
  ending.abort();
  await retention.ended();
  const deletes = kube.calls.filter(({ verb }) => verb === "delete").map(({ ref, query }) => [ref.name, query]);
  const records = kube.calls.filter(({ plural }) => plural === "secrets").map(({ ref }) => ref.name);
  return { deletes, foreign, records };
}

test("deletes an assigned Pod without a claim, after looking for its record", async () => {
  expect((await deleted([assigned("a")])).deletes).toEqual([["a", { uid: "a-uid" }]]);
});

test("keeps a Pod whose record exists, and adopts the record", async () => {
  const { deletes, foreign } = await deleted([assigned("a")], { secret: claimSecret() });
  expect(deletes).toEqual([]);
  expect(foreign).toHaveLength(1);
});

test("does not count a Secret of another type with the Pod's name as a record", async () => {
  const { deletes, foreign } = await deleted([assigned("a")], { secret: { ...claimSecret(), type: "Opaque" } });
  expect(deletes).toHaveLength(1);
  expect(foreign).toEqual([]);
});

test.each([
  ["another one", { uid: "another" }],
  ["ended", { labels: { "berth.dev/phase": "ended" } }],
])("keeps a Pod that turns out to be %s when read live", async (_, metadata) => {
  expect((await deleted([assigned("a")], { live: () => assigned("a", metadata) })).deletes).toEqual([]);
});

test("keeps a Pod that gets a claim while others are deleted", async () => {
  const claims = new ClaimTable();
  const names = Array.from({ length: 17 }, (_, n) => `pod-${n}`);
  const { deletes, records } = await deleted(
    names.map((name) => assigned(name)),
    {
      claims,
      live: ({ ref }) => {
        if (!claims.has("pod-16")) claims.add(opened({ name: "pod-16" } as never));
        return assigned(ref.name);
      },
    },
  );
  expect(deletes.map(([name]) => name)).toEqual(names.slice(0, 16));
  expect(records).toEqual(names.slice(0, 16));
});

test("keeps a Pod that gets a claim while it is read", async () => {
  const claims = new ClaimTable();
  const live = () => {
    claims.add(opened({ name: "a" }));
    return assigned("a");
  };
  expect((await deleted([assigned("a")], { claims, live })).deletes).toEqual([]);
});

describe("an assigned Pod with turns, without a claim,", () => {
  const RUNNING = { running: { startedAt: "2030-01-01T00:00:00Z" } };
  const inTurn = (of: TurnsPod = {}) =>
    turnsPod({
      ...{ name: "a", phase: "running", ended: 1, turns: { 2: RUNNING }, ...of },
      metadata: { uid: "a-uid", resourceVersion: "7", ownerReferences: [OWNER], ...of.metadata },
    });

  test("is deleted in the version that was read, after looking for the record of its turn", async () => {
    const live = () => inTurn({ metadata: { resourceVersion: "8" } });
    const { deletes, records } = await deleted([inTurn()], { live });
    expect(records).toEqual(["a-t2"]);
    expect(deletes).toEqual([["a", { uid: "a-uid", resourceVersion: "8" }]]);
  });

  test("is kept if it serves its session's next item by now", async () => {
    const live = () => inTurn({ ended: 2, turns: { 2: { terminated: { exitCode: 0 } }, 3: RUNNING } });
    expect((await deleted([inTurn()], { live })).deletes).toEqual([]);
  });
});

test("keeps the newest 100 finished Pods", async () => {
  const pods = Array.from({ length: 102 }, (_, n) =>
    assigned(`p${n}`, {
      labels: { "berth.dev/phase": "ended" },
      annotations: { "berth.dev/ended-at": new Date(new VirtualClock().now() + n).toISOString() },
    }),
  );
  const { deletes } = await deleted(pods);
  expect(deletes.map(([name]) => name).sort()).toEqual(["p0", "p1"]);
});
