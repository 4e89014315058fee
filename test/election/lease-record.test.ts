import { describe, expect, test } from "vitest";
import { LeaseAges, LeaseRecord } from "../../src/election/lease-record.ts";
import { KubeApiError } from "../../src/kube/errors.ts";
import type { Lease } from "../../src/kube/resource.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const failure = (status: number, reason: string) => new KubeApiError(reason, { status, reason });
const held = (holderIdentity: string): Lease => ({
  metadata: { name: "berth", namespace: "berth-system", uid: "u1", resourceVersion: "1" },
  spec: { holderIdentity, leaseDurationSeconds: 15 },
});

/** One process's Lease record. `answers` by verb, in the order of the requests. */
function record(answers: Partial<Record<"get" | "create" | "replace" | "delete", unknown[]>>) {
  const calls: unknown[] = [];
  const answer = (verb: keyof typeof answers) => async (_: unknown, subject: unknown, query?: unknown) => {
    calls.push(verb === "delete" ? [verb, query] : verb);
    const next = answers[verb]?.shift() ?? subject;
    if (next instanceof Error) throw next;
    return next;
  };
  const client = { get: answer("get"), create: answer("create"), replace: answer("replace"), delete: answer("delete") };
  const options = { namespace: "berth-system", name: "berth", identity: "me", leaseDurationMs: 15_000 };
  return { calls, lease: new LeaseRecord({ ...options, client: client as never, clock: new VirtualClock() }) };
}

describe("LeaseRecord", () => {
  test("does not create the Lease after a failed read", async () => {
    const { calls, lease } = record({ get: [failure(500, "InternalError")] });
    await expect(lease.acquireOrRenew({})).rejects.toThrow("InternalError");
    expect(calls).toEqual(["get"]);
  });

  test("does not acquire the Lease again after a failed renewal", async () => {
    const { calls, lease } = record({ get: [held("me")], replace: [held("me"), failure(500, "InternalError")] });
    expect(await lease.acquireOrRenew({})).toBe("renewed");
    await expect(lease.acquireOrRenew({})).rejects.toThrow("InternalError");
    expect(calls).toEqual(["get", "replace", "replace"]);
  });

  test("deletes the Lease by its uid, and only while it holds it", async () => {
    const ours = record({ get: [held("me")], replace: [held("me")] });
    await ours.lease.acquireOrRenew({});
    await ours.lease.remove(1_000);
    expect(ours.calls.at(-1)).toEqual(["delete", { uid: "u1" }]);
    const theirs = record({ get: [held("another")] });
    expect(await theirs.lease.acquireOrRenew({})).toBe("others");
    await theirs.lease.remove(1_000);
    expect(theirs.calls).toEqual(["get"]);
  });

  test("does not release the Lease once another process holds it", async () => {
    const { calls, lease } = record({
      get: [held("me"), held("another")],
      replace: [held("me"), failure(409, "Conflict")],
    });
    await lease.acquireOrRenew({});
    await lease.release(1_000);
    expect(calls).toEqual(["get", "replace", "replace", "get"]);
  });
});

test("a Lease that was never seen before counts as held", () => {
  const clock = new VirtualClock();
  expect(new LeaseAges(clock).isHeld(held("another"), 15_000)).toBe(true);
});
