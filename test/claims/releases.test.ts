import { describe, expect, test } from "vitest";
import { ANNOTATION_RELEASES } from "../../src/api/names.ts";
import { KEPT_MS, MOST_KEPT, MOST_RELEASES, Releases } from "../../src/claims/releases.ts";
import type { Claim } from "../../src/protocol/claim.ts";
import type { SessionContext } from "../../src/protocol/context.ts";
import { JOURNAL, opened } from "../protocol/claims.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

/** A claim of an item, by the uid of its Secret. */
const claimOf = (secretUid: string, workId = "work_1"): Claim => opened({ secretUid, journal: { ...JOURNAL, workId } });

function setUp() {
  const clock = new VirtualClock();
  const annotations: Record<string, string> = {};
  const sessions = { onPodFailure: "Release" };
  const server = { isDown: false, writes: 0 };
  /** Starts a new process. */
  const start = (cached = annotations) =>
    new Releases({
      kube: { now: () => clock.now() },
      environment: () => ({ metadata: { annotations: cached }, spec: { sessions } }),
      recordReleases: async (text: string) => {
        server.writes += 1;
        if (server.isDown) throw new Error("not now");
        annotations[ANNOTATION_RELEASES] = text;
      },
    } as unknown as SessionContext);
  const record = () => annotations[ANNOTATION_RELEASES]?.split(",") ?? [];
  return { clock, annotations, sessions, server, start, record };
}

/** Releases the item this many times, each time from a new claim. */
async function release(releases: Releases, times: number, workId = "work_1"): Promise<void> {
  for (let n = 1; n <= times; n += 1) await releases.note(claimOf(`${workId}-claim-${n}`, workId));
}

describe("whether an item may return to the queue", () => {
  test("denies it with onPodFailure: Stop", () => {
    const { sessions, start } = setUp();
    sessions.onPodFailure = "Stop";
    expect(start().mayRelease(claimOf("a"))).toBe(false);
  });

  test("allows it three times", async () => {
    const releases = setUp().start();
    await release(releases, MOST_RELEASES - 1);
    expect(releases.mayRelease(claimOf("next"))).toBe(true);
    await releases.note(claimOf("next"));
    expect(releases.mayRelease(claimOf("last"))).toBe(false);
  });

  test("counts each item separately", async () => {
    const releases = setUp().start();
    await release(releases, MOST_RELEASES, "work_2");
    expect(releases.mayRelease(claimOf("a"))).toBe(true);
  });

  test("allows a counted claim again, and counts it once", async () => {
    const releases = setUp().start();
    await release(releases, MOST_RELEASES - 1);
    for (let n = 0; n < 3; n += 1) await releases.note(claimOf("again"));
    expect(releases.mayRelease(claimOf("again"))).toBe(true);
    expect(releases.mayRelease(claimOf("next"))).toBe(false);
  });
});

describe("the record of releases", () => {
  test("survives the process, and counts a claim of the earlier process once", async () => {
    const { start } = setUp();
    await release(start(), MOST_RELEASES);
    const releases = start();
    expect(releases.mayRelease(claimOf("next"))).toBe(false);
    expect(releases.mayRelease(claimOf(`work_1-claim-${MOST_RELEASES}`))).toBe(true);
  });

  test("counts before the cache shows what was written", async () => {
    const releases = setUp().start({});
    await release(releases, MOST_RELEASES);
    expect(releases.mayRelease(claimOf("next"))).toBe(false);
  });

  test("adds a failed write to the next one", async () => {
    const { server, start, record } = setUp();
    const releases = start();
    server.isDown = true;
    await expect(release(releases, 1, "first")).rejects.toThrow("not now");
    server.isDown = false;
    await release(releases, 1, "second");
    expect(record()).toHaveLength(2);
  });

  test("is written once for all releases during a write, and all of them learn of its failure", async () => {
    const { server, start, record } = setUp();
    const releases = start();
    const all = () => Promise.allSettled(Array.from({ length: 20 }, (_, n) => release(releases, 1, `work_${n}`)));
    server.isDown = true;
    expect((await all()).map(({ status }) => status)).toEqual(Array.from({ length: 20 }, () => "rejected"));
    expect(server.writes).toBeLessThanOrEqual(2);
    server.isDown = false;
    expect((await all()).every(({ status }) => status === "fulfilled")).toBe(true);
    expect(record()).toHaveLength(20);
  });

  test("forgets an item after a day, with the next write", async () => {
    const { clock, start, record } = setUp();
    const releases = start();
    await release(releases, MOST_RELEASES);
    await clock.advance(KEPT_MS + 1_000);
    await release(releases, 1, "work_2");
    expect(releases.mayRelease(claimOf("a"))).toBe(true);
    expect(record()).toHaveLength(1);
  });

  test("keeps the newest items, within the size that the API server allows for annotations", async () => {
    const { clock, start, record, annotations } = setUp();
    const releases = start();
    await release(releases, 1, "oldest");
    await clock.advance(1_000);
    await Promise.all(Array.from({ length: MOST_KEPT }, (_, n) => release(releases, 1, `work_${n}`)));
    expect(record()).toHaveLength(MOST_KEPT);
    expect(annotations[ANNOTATION_RELEASES]?.length).toBeLessThan(128 * 1024);
    await release(releases, MOST_RELEASES - 1, "oldest");
    expect(releases.mayRelease(claimOf("next", "oldest"))).toBe(true);
  });

  test("keeps and reads the counts of another process, also those written late", async () => {
    const { start, record } = setUp();
    const [one, other] = [start(), start()];
    await release(one, 1);
    await release(other, MOST_RELEASES, "work_2");
    await release(one, 1, "work_3");
    expect(record()).toHaveLength(3);
    expect(one.mayRelease(claimOf("next", "work_2"))).toBe(false);
  });

  test("ignores a malformed entry", async () => {
    const { annotations, start } = setUp();
    await release(start(), MOST_RELEASES);
    annotations[ANNOTATION_RELEASES] = `9 x 1,${annotations[ANNOTATION_RELEASES]}`;
    expect(start().mayRelease(claimOf("a"))).toBe(false);
  });
});
