import { expect, test } from "vitest";
import { Releases } from "../../src/claims/releases.ts";
import type { Pod } from "../../src/kube/resource.ts";
import type { Claim } from "../../src/protocol/claim.ts";
import { ClaimTable } from "../../src/protocol/claim-table.ts";
import { SessionLoop } from "../../src/sessions/session-loop.ts";
import { WorkApiError } from "../../src/work/errors.ts";
import { pod } from "../pods/pods.ts";
import { turnsPod } from "../pods/turn-pods.ts";
import { acknowledged, JOURNAL, OURS, opened, over, view } from "../protocol/claims.ts";
import { type Answer, FakeKube, notFound, refusal } from "../reconcile/fake-kube.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { BEATS, claimSecret, fakeContext, OWNER } from "./fake-context.ts";

const METADATA = { uid: JOURNAL.podUid, ownerReferences: [OWNER], labels: { "berth.dev/phase": "running" } };
const running = (status: Pod["status"] = {}) =>
  pod({ containerStatuses: [{ name: "worker", state: { running: {} } }], ...status }, { metadata: METADATA });

/** Runs the loop with one claim, this Pod in the cache, and an API server that gives this answer. */
async function run(
  claim: Claim,
  cached: Pod | undefined | (() => Pod),
  answer: Answer,
  then: (loop: SessionLoop, clock: VirtualClock) => void | Promise<void> = (loop) => loop.poke(claim.name),
) {
  const clock = new VirtualClock();
  const kube = new FakeKube(answer, clock);
  const claims = new ClaimTable();
  claims.add(claim);
  let looks = 0;
  const sent: string[] = [];
  const refused = new WorkApiError({ kind: "not-found", call: "heartbeat", message: "404: no such item", status: 404 });
  const context = fakeContext({
    clock,
    kube: kube.client,
    pods: { get: () => (typeof cached === "function" ? cached() : cached), list: () => [] },
    announce: () => {},
    environment: () => ({
      spec: {
        sessions: { onPodFailure: "Stop", firstBeatTimeoutSeconds: 600, maxDurationSeconds: 86_400, template: {} },
      },
    }),
    template: () => ({ graceSeconds: 30, hash: "hash" }),
    work: () => ({
      beats: BEATS,
      heartbeat: async () => {
        sent.push("heartbeat");
        throw refused;
      },
    }),
  });
  const look = () => {
    looks += 1;
    return new Promise(() => {});
  };
  const loop = new SessionLoop({
    context,
    claims,
    observer: { look } as never,
    gate: { mayAsk: true },
    retention: { isKept: () => true, release: () => {}, marked: () => {} },
    releases: new Releases(context),
    turns: { add: () => {} },
    sleeps: { started: () => null, ended: () => {} } as never,
    streams: { deliver: async () => "started", hasStarted: async () => "started" },
    onChange: () => {},
  });
  const ending = new AbortController();
  void loop.run(ending.signal);
  await then(loop, clock);
  await clock.advance(5_000);
  ending.abort();
  const verbs = kube.calls.map(({ verb, plural }) => `${verb} ${plural}`);
  return { claims, verbs, sent, looks, calls: kube.calls };
}

/** A claim of an ended session whose item was read as stopped afterwards: its Secret is deleted next. */
const settled = () => over(500, { item: view("stopped", 600), startedAtMs: 1 });

test("leaves a Secret that now names another item, and drops the claim", async () => {
  const claim = settled();
  const { claims, verbs } = await run(claim, undefined, ({ verb }) =>
    verb === "delete" ? refusal(409, "Conflict", "changed") : claimSecret({ workId: "work_2" }),
  );
  expect(verbs).toEqual(["delete secrets", "get secrets"]);
  expect(claims.get(claim.name)).toBeUndefined();
});

test("deletes a changed Secret that still belongs to the claim, with its new version", async () => {
  const claim = settled();
  let deletes = 0;
  const { claims, verbs } = await run(claim, undefined, ({ verb }) => {
    if (verb !== "delete") return claimSecret({ opened: true, acknowledgedAt: OURS });
    deletes += 1;
    return deletes === 1 ? refusal(409, "Conflict", "changed") : {};
  });
  expect(verbs).toEqual(["delete secrets", "get secrets", "delete secrets"]);
  expect(claims.get(claim.name)).toBeUndefined();
});

test("does not open a claim again whose Secret was deleted", async () => {
  const claim = acknowledged({ credential: "c2VjcmV0", item: view("starting", 1_000) });
  const parked = pod({}, { metadata: METADATA });
  const { verbs, sent } = await run(claim, parked, () => notFound("secrets", claim.name));
  expect(verbs).toEqual(["patch secrets", "get secrets"]);
  expect(claim.record.gone).toBe(true);
  // It is fenced before its stop.
  expect(sent[0]).toBe("heartbeat");
});

test("does not end a session while the live Pod differs from the cached one", async () => {
  const lost = { is: "lost", by: "refusal", message: "", lapsedMs: 0 } as const;
  const claim = opened({ journal: { ...JOURNAL, lease: "Operator", acknowledgedAt: OURS, opened: true }, lease: lost });
  const { verbs } = await run(claim, running(), () => running({ phase: "Failed" }));
  expect(new Set(verbs)).toEqual(new Set(["get pods"]));
  expect(claim.record.ending).toBeNull();
});

test("deletes a Pod with turns in the version that it read: the session may sleep in it meanwhile", async () => {
  const lost = { is: "lost", by: "refusal", message: "", lapsedMs: 0 } as const;
  const journal = { ...JOURNAL, lease: "Operator", acknowledgedAt: OURS, opened: true } as const;
  const claim = opened({ journal, lease: lost, turn: 2, slot: "berth-research-x-t2" });
  const live = (resourceVersion: string) =>
    turnsPod({
      ...{ phase: "running", ended: 1, turns: { 2: { running: { startedAt: OURS } } } },
      annotations: { "berth.dev/assigned-at": OURS },
      metadata: { uid: JOURNAL.podUid, resourceVersion, ownerReferences: [OWNER] },
    });
  const { calls } = await run(claim, live("7"), ({ verb }) => (verb === "get" ? live("8") : {}));
  const deletes = calls.filter(({ verb, plural }) => verb === "delete" && plural === "pods");
  expect(deletes[0]).toMatchObject({ query: { uid: JOURNAL.podUid, resourceVersion: "8" } });
});

test("lists the item after a final refusal, before it sends anything else", async () => {
  const claim = over(500, { item: view("starting", 600) });
  const { sent, looks } = await run(claim, undefined, () => notFound("pods", claim.name));
  expect(sent).toEqual(["heartbeat"]);
  expect(looks).toBe(1);
});

test.each([
  ["before", -1, "held"],
  ["after", 1, "lost"],
])("an offer from %s the last heartbeat leaves the lease %s", async (_, laterMs, is) => {
  const held = {
    is: "held",
    state: "active",
    echo: "",
    ttlMs: 90_000,
    sentMs: 1_000,
    sentWallMs: 0,
    unansweredMs: null,
  } as const;
  const claim = acknowledged({ claiming: true, lease: held });
  await run(
    claim,
    undefined,
    () => notFound("pods", claim.name),
    (loop) => loop.reoffered(claim, view("queued", held.sentMs + laterMs)),
  );
  expect(claim.lease.own?.is).toBe(is);
});

test("decides again only after time has passed, although a wait may be shorter than the clock can tell", async () => {
  // 5 s after the container started, but for a rounding error.
  const waitedMs = 2_095_666.116410184;
  const nowMs = 2_100_666.1164101837;
  const journal = { ...JOURNAL, lease: "Operator", acknowledgedAt: OURS, opened: true } as const;
  const lease = { is: "held", state: "active", echo: OURS, ttlMs: 180_000, sentMs: nowMs, sentWallMs: 0 } as const;
  const claim = opened({ journal, lease: { ...lease, unansweredMs: null }, waitedMs, firstBeatSeen: false });
  let reads = 0;
  const cached = () => {
    reads += 1;
    if (reads > 10) throw new Error("the Pod is read again and again at one instant");
    return running();
  };
  await run(
    claim,
    cached,
    () => ({}),
    async (loop, clock) => {
      await clock.advance(nowMs - clock.monotonic());
      loop.poke(claim.name);
      await clock.settle();
    },
  );
  expect(reads).toBeLessThanOrEqual(10);
  expect(claim.observed.firstBeatSeen).toBe(true);
});
