import { expect, test } from "vitest";
import { KubeApiError } from "../../src/kube/errors.ts";
import { CacheLag, type LaggingCaches } from "../../src/reconcile/cache-lag.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const FINE = { behindMs: 0, lastError: undefined };
const FORBIDDEN = new KubeApiError("pods is forbidden: no permission", { status: 403, reason: "Forbidden" });

function lagOf(...caches: LaggingCaches[]) {
  return new CacheLag(caches, new VirtualClock());
}

test("reports no short lag, such as during a restart of the API server", () => {
  const pods = { behindMs: 44_000, lastError: FORBIDDEN };
  expect(lagOf({ namespace: undefined, environments: FINE, pods }).of("agents")).toBeNull();
});

test.each([
  [FORBIDDEN, "pods is forbidden: no permission; give the operator permission to list and watch Pods"],
  [new KubeApiError("list pods: 500", { status: 500 }), "list pods: 500; check that the API server is healthy"],
  [undefined, "no answer yet; check that the API server is healthy"],
])("reports the failure and how to fix it: %s", (lastError, words) => {
  const lag = lagOf({ namespace: undefined, environments: FINE, pods: { behindMs: 45_000, lastError } });
  expect(lag.of("agents")).toContain(`Berth misses changes of Pods, because it cannot list or watch them: ${words}`);
});

test("reports each namespace separately", () => {
  const environments = { behindMs: 45_000, lastError: FORBIDDEN };
  const lag = lagOf({ namespace: "a", environments: FINE, pods: FINE }, { namespace: "b", environments, pods: FINE });
  expect([lag.of("a"), lag.of("b")]).toEqual([null, expect.stringContaining("changes of Environments")]);
});

test("notifies once when a lag begins and once when it ends", async () => {
  const clock = new VirtualClock();
  const pods = { ...FINE } as { behindMs: number; lastError: unknown };
  const caches = { namespace: undefined, environments: FINE, pods };
  const told: unknown[] = [];
  const ending = new AbortController();
  const running = new CacheLag([caches], clock).run(ending.signal, (each) => told.push(each));
  await clock.advance(20_000);
  expect(told).toEqual([]);
  Object.assign(pods, { behindMs: 50_000, lastError: FORBIDDEN });
  await clock.advance(20_000);
  expect(told).toEqual([caches]);
  pods.behindMs = 0;
  await clock.advance(20_000);
  expect(told).toEqual([caches, caches]);
  ending.abort();
  await running;
  expect(clock.pendingTimers).toBe(0);
});
