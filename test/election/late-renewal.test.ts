import { expect, test } from "vitest";
import { LeaderElector, RENEW_DEADLINE_MS, RETRY_PERIOD_MS } from "../../src/election/leader-election.ts";
import type { Lease } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

test("confirms the Lease after a renewal that was answered past the previous deadline", async () => {
  const clock = new VirtualClock();
  let asked = 0;
  const answer = Promise.withResolvers<Lease>();
  const ours: Lease = {
    metadata: { name: "operator", namespace: "berth", uid: "u", resourceVersion: "1" },
    spec: { holderIdentity: "a", leaseDurationSeconds: 15 },
  };
  const client = { get: async () => ({ ...ours, spec: {} }), replace: async () => ours };
  const elector = new LeaderElector({
    ...{ client: client as never, namespace: "berth", name: "operator", identity: "a", clock, logger: silentLogger },
    confirm: async () => {
      asked += 1;
      return true;
    },
    onStartedLeading: () => {
      client.replace = () => answer.promise;
    },
  });
  const ending = new AbortController();
  const running = elector.run(ending.signal);
  await clock.advance(RETRY_PERIOD_MS);
  expect(asked).toBe(1);
  // The process is not scheduled while the answer waits, so others may have led meanwhile.
  clock.pause(RENEW_DEADLINE_MS - 1);
  answer.resolve(ours);
  await clock.settle();
  expect(asked).toBe(2);
  expect(elector.isLeader).toBe(true);
  ending.abort();
  await clock.settle();
  await running;
});

test("limits a renewal's timeout so that another one fits before the deadline", async () => {
  const clock = new VirtualClock();
  const timeoutsMs: number[] = [];
  const record = (_: unknown, __: unknown, ___: unknown, { timeoutMs }: { timeoutMs: number }) => {
    timeoutsMs.push(timeoutMs);
    return Promise.reject(new Error("no answer"));
  };
  const get = async () => ({ metadata: { name: "operator", uid: "u", resourceVersion: "1" }, spec: {} });
  const elector = new LeaderElector({
    ...{ client: { get, replace: record } as never, namespace: "berth", name: "operator", identity: "a" },
    ...{ clock, logger: silentLogger, onStartedLeading: () => {} },
  });
  const ending = new AbortController();
  const running = elector.run(ending.signal);
  await clock.advance(RETRY_PERIOD_MS);
  ending.abort();
  await clock.settle();
  await running;
  expect(timeoutsMs[0]).toBe(RENEW_DEADLINE_MS / 2);
});
