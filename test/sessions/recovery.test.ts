import { describe, expect, test } from "vitest";
import { ServerTime } from "../../src/core/server-time.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { Pod, Secret } from "../../src/kube/resource.ts";
import { ClaimTable } from "../../src/protocol/claim-table.ts";
import type { Journal } from "../../src/protocol/journal.ts";
import { STEP_NAMES } from "../../src/protocol/tracked-steps.ts";
import { findLateRecords, Recovery } from "../../src/sessions/recovery.ts";
import { pod } from "../pods/pods.ts";
import { claimOf, JOURNAL, OURS } from "../protocol/claims.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { claimSecret, fakeContext } from "./fake-context.ts";

const { othersReclaimMs, marginMs, lateRecordsMs } = DEFAULT_TIMING;
const STARTED = "2030-01-01T00:00:05Z";

/** Sets up an operator start that finds these Secrets, and this Pod in the cache. The first `fails` lists fail. */
function start({
  secrets = [],
  cached,
  fails = 0,
}: {
  secrets?: readonly Secret[];
  cached?: Pod;
  fails?: number;
} = {}) {
  const clock = new VirtualClock();
  let lists = 0;
  const claims = new ClaimTable();
  const removed: string[] = [];
  const serverTime = new ServerTime((ms) => ms - clock.monotonic() + clock.now());
  const context = fakeContext({
    clock,
    kube: { now: () => clock.now() },
    claimLists: {
      list: async () => {
        lists += 1;
        if (lists <= fails) throw new Error("no list");
        return secrets;
      },
    },
    pods: { get: () => cached },
    servingSinceMs: 500,
  });
  const removals = { adopt: ({ metadata }: Secret) => removed.push(metadata.name ?? ""), has: () => false };
  const recovery = new Recovery({
    context,
    into: { claims, removals, serverTime, releases: { recover: async () => {} } } as never,
    sessions: { poke: () => {} },
    pool: { poke: () => {}, leave: () => {} },
  });
  const run = () => recovery.run(new AbortController().signal);
  return { context, clock, claims, removed, serverTime, run, recovery };
}

/**
 * How long from now a claim waits for an acknowledgement when its poll was sent this long ago by the server's clock.
 */
async function waitsMs(polledAgoMs: number, tellsTime = true): Promise<number> {
  const { clock, claims, serverTime, run, recovery } = start();
  const polledUntilMs = clock.now() - polledAgoMs;
  if (tellsTime) {
    const atMs = clock.monotonic();
    for (const dateMs of [clock.now() - 999, clock.now()]) serverTime.observe(atMs, atMs, dateMs);
  }
  await run();
  recovery.takeUp(claimSecret({ polledUntilMs }));
  const [claim] = claims;
  return (claim?.lateAckUntilMs ?? Number.NaN) - clock.monotonic();
}

describe("a claim of an earlier process", () => {
  test("is adopted from its Secret, with the preconditions for its patches and deletes", async () => {
    const { claims, run } = start({ secrets: [claimSecret()] });
    expect(await run()).toBe(true);
    expect([...claims]).toMatchObject([
      { name: "berth-research-x", record: { secretUid: "secret-uid", secretVersion: "7" }, othersUntilMs: 500 },
    ]);
  });

  test("is adopted later when the Secrets can't be listed at first", async () => {
    const { context, clock, claims, run } = start({ secrets: [claimSecret()], fails: 2 });
    const running = run();
    await clock.settle();
    expect(claims.size).toBe(0);
    await clock.advance(60_000);
    expect(await running).toBe(true);
    expect(claims.size).toBe(1);
    expect(context.holds.failing(STEP_NAMES)).toBeNull();
  });

  test("that is already known stays unchanged", () => {
    const { claims, recovery } = start();
    const known = claimOf();
    claims.add(known);
    recovery.takeUp(claimSecret());
    expect(claims.get(known.name)).toBe(known);
  });

  test("that only removes a Pod is not added as a claim", async () => {
    const { claims, removed, run } = start({ secrets: [claimSecret({ use: "removal" })] });
    await run();
    expect(claims.size).toBe(0);
    expect(removed).toEqual(["berth-research-x"]);
  });

  test.each<[string, string, number | null]>([
    ["takes the start time of the Pod that it names", JOURNAL.podUid, Date.parse(STARTED)],
    ["takes no start time from another Pod", "another", null],
  ])("%s", async (_, uid, startedAtMs) => {
    const running = { containerStatuses: [{ name: "worker", state: { running: { startedAt: STARTED } } }] };
    const opened: Partial<Journal> = { opened: true, acknowledgedAt: OURS };
    const { claims, run } = start({ secrets: [claimSecret(opened)], cached: pod(running, { metadata: { uid } }) });
    await run();
    expect([...claims]).toMatchObject([{ observed: { startedAtMs } }]);
  });

  test("waits until its acknowledgement can no longer take effect", async () => {
    expect(await waitsMs(1_000)).toBeGreaterThanOrEqual(othersReclaimMs - 1_000);
    expect(await waitsMs(1_000)).toBeLessThanOrEqual(othersReclaimMs + marginMs);
    expect(await waitsMs(60_000)).toBe(0);
  });

  test("waits for the whole window while the server's time is unknown, or the poll time is unreadable", async () => {
    expect(await waitsMs(60_000, false)).toBe(othersReclaimMs + marginMs);
    expect(await waitsMs(Number.NaN)).toBe(othersReclaimMs + marginMs);
  });
});

test("a claim whose item is offered again has waited since its poll, which the Work API's time shows", async () => {
  const { clock, claims, serverTime, run, recovery } = start();
  const polledUntilMs = clock.now();
  const adoptedMs = clock.monotonic();
  await run();
  recovery.takeUp(claimSecret({ polledUntilMs }));
  const [claim = claimOf()] = claims;
  expect(claim.lateAckUntilMs).toBe(adoptedMs + othersReclaimMs + marginMs);
  recovery.reoffered(claim);
  expect(claim.lateAckUntilMs).toBe(adoptedMs + othersReclaimMs + marginMs);
  await clock.advance(15_000);
  const atMs = clock.monotonic();
  for (const dateMs of [clock.now() - 999, clock.now()]) serverTime.observe(atMs, atMs, dateMs);
  recovery.reoffered(claim);
  expect(claim.lateAckUntilMs).toBeGreaterThanOrEqual(adoptedMs + othersReclaimMs);
  expect(claim.lateAckUntilMs).toBeLessThanOrEqual(adoptedMs + othersReclaimMs + marginMs / 2);
});

/** Searches for late Secrets. The known names change from `before` to `after` while the list is read. */
async function findLate(list: readonly string[], before: readonly string[], after = before, failures = 0) {
  const clock = new VirtualClock();
  const listedMs: number[] = [];
  const adopted: string[] = [];
  let known = before;
  const context = fakeContext({
    clock,
    claimLists: {
      list: async () => {
        listedMs.push(clock.monotonic() - startMs);
        known = after;
        if (listedMs.length <= failures) throw new Error("failed");
        return list.map((name) => claimSecret({}, { name }));
      },
    },
  });
  const startMs = clock.monotonic();
  const knownNames = () => new Set(known);
  const ending = new AbortController();
  const searching = findLateRecords(
    context,
    knownNames,
    ({ metadata }) => adopted.push(metadata.name ?? ""),
    ending.signal,
  );
  await clock.advance(10 * lateRecordsMs);
  ending.abort();
  await searching;
  return { adopted, listedMs };
}

test("adopts a Secret that was written late, once no write can be under way", async () => {
  const { adopted, listedMs } = await findLate(["known", "late"], ["known"]);
  expect(adopted).toEqual(["late"]);
  expect(listedMs).toEqual([lateRecordsMs]);
});

test("does not adopt a Secret that was settled or created during the list", async () => {
  expect((await findLate(["settled"], ["settled"], [])).adopted).toEqual([]);
  expect((await findLate(["begun"], [], ["begun"])).adopted).toEqual([]);
});

test("retries a failed list", async () => {
  const { adopted, listedMs } = await findLate(["late"], [], [], 2);
  expect(listedMs).toHaveLength(3);
  expect(adopted).toEqual(["late"]);
});
