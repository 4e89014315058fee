import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { END_REASONS } from "../../src/api/reasons.ts";
import { markFinished, type StartMark } from "../../src/claims/pod-acts.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import { KubeApiError } from "../../src/kube/errors.ts";
import type { ContainerStatus, Pod } from "../../src/kube/resource.ts";
import { expiredFinished, type FinishedPod, failedRow, readFinished, servedLately } from "../../src/pods/finished.ts";
import type { EndCause } from "../../src/pods/pod-state.ts";
import type { SessionContext } from "../../src/protocol/context.ts";
import { outcomeOf } from "../../src/protocol/outcome.ts";
import { type ClaimFields, claimOf, END, JOURNAL, opened, over, POLLED } from "../protocol/claims.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { containerStatus, pod, SESSION } from "./pods.ts";

describe("how a session ended", () => {
  const endedBy = (cause: EndCause, more: ClaimFields = {}) =>
    over(POLLED, { end: { ...END, cause, message: `by ${cause}` }, ...more });

  test.each<[EndCause, boolean]>([
    ["Completed", false],
    ["Failed", true],
    ["OOMKilled", true],
    ["Killed", true],
    ["Evicted", true],
    ["Preempted", true],
    ["NodeLost", true],
    ["DeadlineExceeded", true],
    ["StartFailed", true],
    ["PodDeleted", true],
  ])("takes %s from its container, failed: %s", (cause, failed) => {
    expect(outcomeOf(endedBy(cause))).toEqual({ reason: cause, message: `by ${cause}`, failed });
  });

  test("prefers Berth's reason to that of the end it caused", () => {
    const ending = { why: "MaxDuration", message: "too long" } as const;
    expect(outcomeOf(endedBy("Killed", { ending }))).toEqual({
      reason: "MaxDuration",
      message: "too long",
      failed: true,
    });
  });

  test("reports a program that exits with 0 without a heartbeat as not serving, with a fix", () => {
    const outcome = outcomeOf(endedBy("Completed", { neverBeaten: true, end: { ...END, message: "" } }));
    expect(outcome).toMatchObject({ reason: "NoFirstBeat", failed: true });
    expect(outcome.message).toContain("lease: Operator");
  });

  test("reports a crash before the first heartbeat as the program's own failure", () => {
    expect(outcomeOf(endedBy("Failed", { neverBeaten: true }))).toMatchObject({
      reason: "Failed",
      message: "by Failed",
    });
  });

  test("reports an item without a credential", () => {
    const refusal = claimOf({ journal: { ...JOURNAL, use: "refusal" } });
    expect(outcomeOf(refusal)).toMatchObject({ reason: "CredentialMissing", failed: true });
  });

  test("counts an unseen end as Unknown and failed", () => {
    expect(outcomeOf(opened())).toEqual({ reason: "Unknown", message: "", failed: true });
  });
});

/** A finished Pod with these annotations. */
const finishedPod = (annotations: Record<string, string>, labels: Record<string, string> = {}): Pod =>
  pod({}, { metadata: { name: "p", labels: { "berth.dev/phase": "ended", ...labels }, annotations } });

describe("reading a finished Pod", () => {
  test("returns what its annotations say", () => {
    const read = readFinished(
      finishedPod(
        {
          "berth.dev/end-reason": "OOMKilled",
          "berth.dev/end-message": "too much",
          "berth.dev/ended-at": "2030-01-01T00:00:00.000Z",
          "berth.dev/start-failure": "true",
          "berth.dev/start-failures": "2",
        },
        { "berth.dev/template-hash": "a1" },
      ),
    );
    expect(read).toMatchObject({
      reason: "OOMKilled",
      message: "too much",
      failed: true,
      finishedAtMs: Date.UTC(2030, 0, 1),
      templateHash: "a1",
      startFailure: true,
      startFailures: 2,
    });
  });

  test.each(["warm", "running", undefined])("returns null for a Pod of phase %s", (phase) => {
    const { metadata, ...rest } = finishedPod({});
    const labels = phase === undefined ? {} : { "berth.dev/phase": phase };
    expect(readFinished({ ...rest, metadata: { ...metadata, labels } })).toBeNull();
  });

  test("reads an unknown reason as Unknown, including names of Object's members", () => {
    for (const reason of ["Melted", "constructor", "toString", ""]) {
      expect(readFinished(finishedPod({ "berth.dev/end-reason": reason }))).toMatchObject({ reason: "Unknown" });
    }
  });

  test.each(["many", "-1", "1e9", "", " 1"])("ignores an invalid count of failed starts: %j", (text) => {
    expect(readFinished(finishedPod({ "berth.dev/start-failures": text }))).toMatchObject({ startFailures: null });
  });

  test("falls back to the creation time, and then to the epoch", () => {
    const odd = finishedPod({ "berth.dev/ended-at": "soon" });
    expect(readFinished(odd)?.finishedAtMs).toBe(0);
    const created = finishedPod({});
    created.metadata.creationTimestamp = "2030-01-01T00:00:00Z";
    expect(readFinished(created)?.finishedAtMs).toBe(Date.UTC(2030, 0, 1));
  });
});

const of = (finishedAtMs: number, more: Partial<FinishedPod> = {}): FinishedPod => ({
  pod: pod(),
  reason: "Completed",
  message: "",
  failed: false,
  finishedAtMs,
  templateHash: "a1",
  startFailure: false,
  startFailures: null,
  ...more,
});
const failed = (finishedAtMs: number) => of(finishedAtMs, { failed: true, reason: "Failed" });

describe("retention", () => {
  const keep = { finishedMs: 600, failedMs: 3_600, limit: 100 };

  test("deletes finished and failed Pods after their own times", () => {
    const pods = [of(0), failed(0), of(100)];
    expect(expiredFinished(pods, 599, keep)).toEqual({ expired: [], nextAtMs: 600 });
    expect(expiredFinished(pods, 600, keep)).toEqual({ expired: [pods[0]], nextAtMs: 700 });
    expect(expiredFinished(pods, 700, keep)).toMatchObject({ nextAtMs: 3_600 });
    expect(expiredFinished(pods, 3_600, keep).expired).toHaveLength(3);
  });

  test("deletes the oldest Pods over the limit, failed or not", () => {
    const pods = [failed(1), of(2), of(3)];
    expect(expiredFinished(pods, 10, { ...keep, limit: 2 }).expired).toEqual([pods[0]]);
    expect(expiredFinished(pods, 10, { ...keep, limit: 0 })).toEqual({
      expired: [pods[2], pods[1], pods[0]],
      nextAtMs: null,
    });
  });

  test("waits for nothing without finished Pods", () => {
    expect(expiredFinished([], 0, keep)).toEqual({ expired: [], nextAtMs: null });
  });

  test("keeps no Pod with a retention of zero", () => {
    expect(expiredFinished([of(5)], 5, { ...keep, finishedMs: 0 }).expired).toHaveLength(1);
  });

  test("keeps Pods within their time and the limit, and wakes when the first one expires", () => {
    const pods = fc.array(
      fc.oneof(
        fc.nat(10_000).map((at) => of(at)),
        fc.nat(10_000).map(failed),
      ),
      { maxLength: 30 },
    );
    fc.assert(
      fc.property(pods, fc.nat(20_000), fc.nat(20), (finished, nowMs, limit) => {
        const { expired, nextAtMs } = expiredFinished(finished, nowMs, { ...keep, limit });
        const kept = finished.filter((one) => !expired.includes(one));
        expect(kept.length).toBeLessThanOrEqual(limit);
        const ends = kept.map((one) => one.finishedAtMs + (one.failed ? keep.failedMs : keep.finishedMs));
        for (const end of ends) expect(end).toBeGreaterThan(nowMs);
        expect(nextAtMs).toBe(ends.length === 0 ? null : Math.min(...ends));
        // No younger Pod is deleted instead of an older one.
        const unripe = expired.filter(
          (one) => one.finishedAtMs + (one.failed ? keep.failedMs : keep.finishedMs) > nowMs,
        );
        for (const one of unripe)
          for (const other of kept) expect(one.finishedAtMs).toBeLessThanOrEqual(other.finishedAtMs);
      }),
    );
  });
});

describe("the memory of failed starts after a restart", () => {
  const KEPT = 100;
  const marked = (at: number, startFailures: number | null, more: Partial<FinishedPod> = {}) =>
    of(at, { startFailures, ...more });
  const failure = (at: number, startFailures: number, more: Partial<FinishedPod> = {}) =>
    marked(at, startFailures, { startFailure: true, failed: true, message: `of ${at}`, ...more });
  const rowOf = (pods: FinishedPod[], nowMs = 10) => failedRow(pods, "a1", { nowMs, keptMs: KEPT });

  test("is what the newest Pod says, regardless of the others", () => {
    expect(rowOf([failure(4, 2), failure(1, 7), failure(5, 3)])).toEqual({ failures: 3, message: "of 5", sinceMs: 5 });
  });

  test("is cleared by a session that served, but not by an earlier one that ends later", () => {
    expect(rowOf([failure(1, 2), marked(2, 0)])).toBeNull();
    expect(rowOf([failure(1, 2), marked(2, 2)])).toEqual({ failures: 2, message: "of 1", sinceMs: 2 });
  });

  test("takes the longest row of Pods marked at the same instant", () => {
    const row = { failures: 3, message: "of 5", sinceMs: 5 };
    expect(rowOf([failure(5, 1), failure(5, 3), failure(5, 2)])).toEqual(row);
  });

  test("ignores other templates and Pods without a count", () => {
    expect(rowOf([failure(1, 1), failure(2, 0, { templateHash: "b2" }), marked(3, null)])).toMatchObject({
      failures: 1,
    });
  });

  test("is forgotten once a session that served may have been deleted", () => {
    expect(rowOf([failure(1, 3)], KEPT)).not.toBeNull();
    expect(rowOf([failure(1, 3)], KEPT + 1)).toBeNull();
  });

  test("is empty without finished Pods", () => {
    expect(rowOf([])).toBeNull();
  });

  test.each<[string, FinishedPod[], boolean]>([
    ["one completed", [marked(1, 0, { reason: "Completed" })], true],
    [
      "one completed, and another was evicted later",
      [marked(1, 0, { reason: "Completed" }), marked(2, 0, { reason: "Evicted" })],
      true,
    ],
    ["one completed, and one failed to start later", [marked(1, 0, { reason: "Completed" }), failure(2, 1)], false],
    ["one was evicted", [marked(1, 0, { reason: "Evicted" })], false],
    ["one of another template completed", [marked(1, 0, { reason: "Completed", templateHash: "b2" })], false],
    ["there are none", [], false],
  ])("served lately: %s", (_what, pods, served) => {
    expect(servedLately(pods, "a1")).toBe(served);
  });
});

test("gives every cause of an end a reason of the closed set", () => {
  const causes: EndCause[] = [
    "Completed",
    "Failed",
    "OOMKilled",
    "Killed",
    "Evicted",
    "Preempted",
    "NodeLost",
    "DeadlineExceeded",
    "StartFailed",
    "PodDeleted",
  ];
  for (const cause of causes) expect(END_REASONS).toHaveProperty(cause);
});

describe("marking a Pod as finished", () => {
  const outcome = { reason: "OOMKilled", message: "x".repeat(2_000), failed: true } as const;
  const clock = new VirtualClock(Date.UTC(2030, 0, 1, 0, 10));
  const STARTED = "2030-01-01T00:00:00Z";

  /** Returns the patches; `fails` is the API server's answer. */
  async function marked(of: Pod, options: { start?: StartMark; fails?: Error } = {}): Promise<unknown[]> {
    const patches: unknown[] = [];
    const patch = (_resource: unknown, ref: unknown, body: unknown) => {
      patches.push({ ref, body });
      return options.fails ? Promise.reject(options.fails) : Promise.resolve(of);
    };
    const context = {
      namespace: "agents",
      clock,
      points: NO_POINTS,
      kube: { patch, now: () => clock.now() },
    } as unknown as SessionContext;
    await markFinished(context, opened(), of, outcome, options.start ?? { failed: false, inARow: null });
    return patches;
  }

  const ran = (others: ContainerStatus[] = [], spec: Partial<Pod["spec"]> = {}) =>
    pod(
      {
        startTime: STARTED,
        containerStatuses: [containerStatus(SESSION, { terminated: { exitCode: 137 } }), ...others],
      },
      { metadata: { name: "p", uid: "u1" }, spec: { activeDeadlineSeconds: 2_147_483_647, ...spec } },
    );
  const sidecar = containerStatus("proxy", { running: { startedAt: STARTED } });

  const answerOf = (status: number) =>
    new KubeApiError("refused", { status, reason: status === 404 ? "NotFound" : status === 409 ? "Conflict" : "" });

  test("records reason and time, removes marks of an earlier failed start, and cuts a long message", async () => {
    expect(await marked(ran())).toEqual([
      {
        ref: { namespace: "agents", name: "p" },
        body: {
          metadata: {
            uid: "u1",
            labels: { "berth.dev/phase": "ended" },
            annotations: {
              "berth.dev/end-reason": "OOMKilled",
              "berth.dev/end-message": "x".repeat(512),
              "berth.dev/ended-at": "2030-01-01T00:10:00.000Z",
              // A Pod that fell asleep after a failed start has these.
              "berth.dev/start-failure": null,
              "berth.dev/start-failures": null,
              "cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
            },
          },
        },
      },
    ]);
  });

  test("writes what a restart reads, including the start failure", async () => {
    const [patch] = (await marked(ran(), { start: { failed: true, inARow: 3 } })) as { body: Pick<Pod, "metadata"> }[];
    const read = readFinished({ ...ran(), metadata: patch?.body.metadata ?? {} });
    expect(read).toMatchObject({
      ...outcome,
      message: "x".repeat(512),
      startFailure: true,
      startFailures: 3,
      finishedAtMs: clock.now(),
    });
  });

  test("ends a sidecar by a deadline ten minutes and a second after the start", async () => {
    expect(await marked(ran([sidecar]))).toMatchObject([{ body: { spec: { activeDeadlineSeconds: 601 } } }]);
  });

  test("only ever lowers a deadline", async () => {
    const [patch] = await marked(ran([sidecar], { activeDeadlineSeconds: 300 }));
    expect(patch).not.toHaveProperty("body.spec");
  });

  test("leaves a Pod alone that is being deleted", async () => {
    const going = ran();
    going.metadata.deletionTimestamp = STARTED;
    expect(await marked(going)).toEqual([]);
  });

  test.each([404, 409])("ignores a Pod that is gone or replaced (%d)", async (status) => {
    await expect(marked(ran(), { fails: answerOf(status) })).resolves.toHaveLength(1);
  });

  test("rejects with any other error, so that the caller retries", async () => {
    await expect(marked(ran(), { fails: answerOf(500) })).rejects.toThrow();
  });
});
