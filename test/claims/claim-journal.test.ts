import { describe, expect, test } from "vitest";
import { AckWindow, windowMs } from "../../src/claims/ack-window.ts";
import { ClaimJournal } from "../../src/claims/claim-journal.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { LeadershipLostError } from "../../src/kube/errors.ts";
import type { Journal } from "../../src/protocol/journal.ts";
import { claimOf } from "../protocol/claims.ts";
import { type Answer, FakeKube, notFound, refusal } from "../reconcile/fake-kube.ts";
import { claimSecret, fakeContext, noAnswer } from "../sessions/fake-context.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const CLAIM = { secretVersion: "", secretUid: "" };
const EXISTS = () => refusal(409, "AlreadyExists", "there is one");

/** Journals one claim on an API server that gives this answer. */
async function write(answer: Answer) {
  const clock = new VirtualClock();
  const kube = new FakeKube(answer);
  const claim = claimOf(CLAIM);
  const context = fakeContext({ clock, kube: kube.client });
  const journal = new ClaimJournal(context);
  const window = new AckWindow(
    clock,
    { sentAtMs: clock.monotonic(), sentAtWallMs: clock.now() },
    windowMs(DEFAULT_TIMING),
  );
  const writing = journal.write(claim, "secret", window);
  const startMs = clock.monotonic();
  await clock.settle();
  const isPaused = context.holds.pollsFromMs > startMs;
  await clock.advance(60_000);
  return { result: await writing, calls: kube.calls, claim, isPaused };
}

describe("the Secret of a claim", () => {
  test("is created within a protocol request's timeout, and the claim keeps its uid and resourceVersion", async () => {
    const { result, calls, claim } = await write(() => claimSecret());
    expect(result).toBe("done");
    expect(calls).toMatchObject([{ verb: "create", timeoutMs: DEFAULT_TIMING.requestBoundMs }]);
    expect(claim.record).toMatchObject({ secretUid: "secret-uid", secretVersion: "7" });
  });

  test("is not retried after a refusal, which pauses polling", async () => {
    const { result, calls, isPaused } = await write(() => refusal(403, "Forbidden", "no"));
    expect(result).toBe("failed");
    expect(calls).toHaveLength(1);
    expect(isPaused).toBe(true);
  });

  test("is created again while the window is open when no answer comes, and may exist after that", async () => {
    const { result, calls } = await write(noAnswer);
    expect(result).toBe("unknown");
    expect(calls.length).toBeGreaterThan(1);
  });

  test("may exist when the first create got no answer and the repeat was refused", async () => {
    let sent = 0;
    const { result } = await write(() => {
      sent += 1;
      return sent === 1 ? noAnswer() : refusal(403, "Forbidden", "no");
    });
    expect(result).toBe("unknown");
  });

  test("is not created again by a process that is no longer the leader", async () => {
    let sent = 0;
    const { result, calls } = await write(() => {
      sent += 1;
      return sent === 1 ? noAnswer() : new LeadershipLostError("not the leader");
    });
    expect(result).toBe("unknown");
    expect(calls).toHaveLength(2);
  });
});

describe("a Secret that already has the name", () => {
  const over = (found: Partial<Journal>) =>
    write(({ verb }) => (verb === "create" ? EXISTS() : claimSecret(found, { resourceVersion: "9" })));

  test("is our own when it names the same item and the same Pod", async () => {
    const { result, claim } = await over({});
    expect(result).toBe("done");
    expect(claim.record).toMatchObject({ secretUid: "secret-uid", secretVersion: "9" });
  });

  test.each<[string, Partial<Journal>]>([
    ["item", { workId: "work_2" }],
    ["Pod", { podUid: "another" }],
  ])("blocks the claim when it names another %s", async (_, found) => {
    const { result, claim } = await over(found);
    expect(result).toMatchObject({ takenBy: { metadata: { resourceVersion: "9" } } });
    expect(claim.record).toMatchObject(CLAIM);
  });

  test.each([
    ["blocks this attempt when it is gone by then", () => notFound("secrets", "berth-research-x"), { takenBy: null }],
    ["may be our own when it can't be read", () => refusal(500, "InternalError", "failed"), "unknown"],
  ])("%s", async (_, answer, expected) => {
    expect((await write(({ verb }) => (verb === "create" ? EXISTS() : answer()))).result).toEqual(expected);
  });
});
