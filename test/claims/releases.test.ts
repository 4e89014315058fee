import { describe, expect, test, vi } from "vitest";
import { KEPT_MS, MOST_RELEASES, RELEASES_TYPE, Releases } from "../../src/claims/releases.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import { SECRETS, type Secret } from "../../src/kube/resource.ts";
import type { Claim } from "../../src/protocol/claim.ts";
import type { SessionContext } from "../../src/protocol/context.ts";
import { JOURNAL, opened } from "../protocol/claims.ts";
import { ApiServer } from "../sessions/loops/api-server.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const NAMESPACE = "agents";
const NAME = "berth-releases-env-uid";

/** A claim of an item, by the uid of its Secret. */
const claimOf = (secretUid: string, workId = "work_1"): Claim => opened({ secretUid, journal: { ...JOURNAL, workId } });

function setUp() {
  const clock = new VirtualClock();
  const server = new ApiServer(clock);
  const environment = { spec: { sessions: { onPodFailure: "Release" } } };
  const claims: Claim[] = [];
  const kube = {
    now: () => clock.now(),
    get: async (_: unknown, { name }: { name: string }) => server.get(SECRETS, NAMESPACE, name),
    create: async (_: unknown, secret: Secret) => server.create(SECRETS, secret),
    patch: async (_: unknown, { name }: { name: string }, patch: unknown) =>
      server.patch(SECRETS, NAMESPACE, name, patch),
  };
  const context = {
    namespace: NAMESPACE,
    name: "research",
    uid: "env-uid",
    kube,
    points: NO_POINTS,
  } as unknown as SessionContext;
  /** Starts a new process that recovers the record. */
  const start = async () => {
    const releases = new Releases({ context: { ...context, environment: () => environment } as never, claims });
    await releases.recover(server.list(SECRETS, NAMESPACE));
    return releases;
  };
  const record = () => server.find(SECRETS, NAMESPACE, NAME);
  return { clock, server, environment, claims, start, record };
}

/** Releases the item this many times, each time from a new claim. */
async function release(releases: Releases, times: number, workId = "work_1"): Promise<void> {
  for (let n = 1; n <= times; n += 1) await releases.note(claimOf(`${workId}-claim-${n}`, workId));
}

describe("whether an item may return to the queue", () => {
  test("denies it with onPodFailure: Stop", async () => {
    const { environment, start } = setUp();
    environment.spec.sessions.onPodFailure = "Stop";
    expect((await start()).mayRelease(claimOf("a"))).toBe(false);
  });

  test("allows it three times", async () => {
    const releases = await setUp().start();
    await release(releases, MOST_RELEASES - 1);
    expect(releases.mayRelease(claimOf("next"))).toBe(true);
    await releases.note(claimOf("next"));
    expect(releases.mayRelease(claimOf("last"))).toBe(false);
  });

  test("counts each item separately", async () => {
    const releases = await setUp().start();
    await release(releases, MOST_RELEASES, "work_2");
    expect(releases.mayRelease(claimOf("a"))).toBe(true);
  });

  test("allows a counted claim again, and counts it once", async () => {
    const releases = await setUp().start();
    await release(releases, MOST_RELEASES - 1);
    for (let n = 0; n < 3; n += 1) await releases.note(claimOf("again"));
    expect(releases.mayRelease(claimOf("again"))).toBe(true);
    expect(releases.mayRelease(claimOf("next"))).toBe(false);
  });
});

describe("the record of releases", () => {
  test("survives the process, and counts a claim of the earlier process once", async () => {
    const { start } = setUp();
    await release(await start(), MOST_RELEASES);
    const releases = await start();
    expect(releases.mayRelease(claimOf("next"))).toBe(false);
    expect(releases.mayRelease(claimOf(`work_1-claim-${MOST_RELEASES}`))).toBe(true);
  });

  test("survives with an item whose stop was answered with 409, and with no item that was only released", async () => {
    const { start } = setUp();
    const before = await start();
    await release(before, MOST_RELEASES, "work_2");
    await before.noteStopped(claimOf("a"));
    const releases = await start();
    expect(["work_1", "work_2"].map((id) => releases.isStopped(id))).toEqual([true, false]);
  });

  test("is one Secret with its own type, owned by the Environment", async () => {
    const { start, record } = setUp();
    const releases = await start();
    await Promise.all(Array.from({ length: 20 }, (_, n) => release(releases, 1, `work_${n}`)));
    expect(record()).toMatchObject({ type: RELEASES_TYPE, metadata: { ownerReferences: [{ uid: "env-uid" }] } });
    expect(Object.keys(record()?.data ?? {})).toHaveLength(20);
  });

  test("adds a failed write to the next one", async () => {
    const { server, start, record } = setUp();
    const releases = await start();
    await release(releases, 1, "first");
    const patch = vi.spyOn(server, "patch").mockImplementation(() => {
      throw new Error("not now");
    });
    await expect(release(releases, 1, "second")).rejects.toThrow("not now");
    patch.mockRestore();
    await release(releases, 1, "third");
    expect(Object.keys(record()?.data ?? {})).toHaveLength(3);
  });

  test("is written once for all releases during a write, and all of them learn of its failure", async () => {
    const { server, start, record } = setUp();
    const releases = await start();
    await release(releases, 1, "first");
    const patch = vi.spyOn(server, "patch");
    const all = () => Promise.allSettled(Array.from({ length: 20 }, (_, n) => release(releases, 1, `work_${n}`)));
    patch.mockImplementation(() => {
      throw new Error("not now");
    });
    expect((await all()).map(({ status }) => status)).toEqual(Array.from({ length: 20 }, () => "rejected"));
    expect(patch.mock.calls.length).toBeLessThanOrEqual(2);
    patch.mockRestore();
    expect((await all()).every(({ status }) => status === "fulfilled")).toBe(true);
    expect(Object.keys(record()?.data ?? {})).toHaveLength(21);
  });

  test("forgets an ended item with the next write", async () => {
    const { start, record } = setUp();
    const releases = await start();
    await release(releases, 1);
    releases.ended(claimOf("a"));
    await release(releases, 1, "work_2");
    expect(Object.keys(record()?.data ?? {})).toHaveLength(1);
  });

  test("forgets an item after a day, unless it is claimed", async () => {
    const { clock, claims, start } = setUp();
    const releases = await start();
    await release(releases, MOST_RELEASES);
    await release(releases, MOST_RELEASES, "work_2");
    claims.push(claimOf("running", "work_2"));
    await clock.advance(KEPT_MS + 1_000);
    await release(releases, 1, "work_3");
    for (const each of [releases, await start()]) {
      expect(each.mayRelease(claimOf("a"))).toBe(true);
      expect(each.mayRelease(claimOf("b", "work_2"))).toBe(false);
    }
  });

  test("is rewritten completely after its deletion", async () => {
    const { server, start, record } = setUp();
    const releases = await start();
    await release(releases, 2);
    server.delete(SECRETS, NAMESPACE, NAME);
    await expect(release(releases, 1, "work_2")).rejects.toThrow();
    await release(releases, 1, "work_2");
    expect(Object.keys(record()?.data ?? {})).toHaveLength(2);
  });

  test("keeps the entry of an earlier process that wrote late", async () => {
    const { start, record } = setUp();
    const releases = await start();
    await release(await start(), 1, "work_2");
    await release(releases, 1);
    expect(Object.keys(record()?.data ?? {})).toHaveLength(2);
  });

  test("ignores a malformed entry", async () => {
    const { server, start } = setUp();
    await release(await start(), 1);
    const [key = ""] = Object.keys(server.get(SECRETS, NAMESPACE, NAME).data ?? {});
    server.patch(SECRETS, NAMESPACE, NAME, { data: { [key]: Buffer.from("9 x 1").toString("base64") } });
    expect((await start()).mayRelease(claimOf("a"))).toBe(true);
  });
});
