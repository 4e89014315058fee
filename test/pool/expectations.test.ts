import { expect, test } from "vitest";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { Expectations } from "../../src/pool/expectations.ts";
import { pod } from "../pods/pods.ts";
import { FakeKube, notFound, refusal } from "../reconcile/fake-kube.ts";
import { fakeContext, noAnswer } from "../sessions/fake-context.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

/** Expectations with a cache that shows these Pods, and a server that answers live reads with this. */
function setUp(shown: ReadonlySet<string> = new Set(), live: unknown = pod()) {
  const clock = new VirtualClock();
  const kube = new FakeKube(() => live);
  const pods = { get: (name: string) => (shown.has(name) ? pod() : undefined) };
  return { clock, kube, expected: new Expectations(fakeContext({ clock, kube: kube.client, pods })) };
}

test("counts a creation until the cache shows its Pod", async () => {
  const shown = new Set<string>();
  const { expected } = setUp(shown);
  expected.add("a", "sesn_1");
  await expected.settle();
  expect(expected.size).toBe(1);
  expect([...expected.sessions]).toEqual(["sesn_1"]);
  shown.add("a");
  await expected.settle();
  expect(expected.size).toBe(0);
  expect(expected.sessions.size).toBe(0);
});

test("does not count a refused creation, but counts one without an answer", () => {
  const { expected } = setUp();
  expected.add("refused");
  expected.add("unanswered");
  expected.failed("refused", refusal(403, "Forbidden", "no"));
  expected.failed("unanswered", noAnswer());
  expect(expected.size).toBe(1);
});

test.each([
  ["exists", pod(), 1],
  ["doesn't exist: it was lost", notFound("pods", "a"), 0],
  ["can't be read", refusal(500, "InternalError", "failed"), 1],
])("judges an overdue Pod by a live read: it %s", async (_, live, size) => {
  const { clock, kube, expected } = setUp(new Set(), live);
  expected.add("a");
  await clock.advance(DEFAULT_TIMING.expectationMs);
  await expected.settle();
  expect(kube.calls).toEqual([]);
  await clock.advance(1);
  await expected.settle();
  expect(kube.calls).toHaveLength(1);
  expect(expected.size).toBe(size);
});
