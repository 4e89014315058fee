import { expect, test } from "vitest";
import { OperatorError } from "../../src/core/errors.ts";
import { type PointEvent, type PointObserver, pointsOf } from "../../src/core/points.ts";
import { KubeApiError } from "../../src/kube/errors.ts";
import { WorkApiError } from "../../src/work/errors.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const clock = new VirtualClock(1_000);

function traced(observer?: PointObserver) {
  const events: PointEvent[] = [];
  const observe: PointObserver = (event) => {
    events.push(event);
    return observer?.(event);
  };
  return { events, points: pointsOf(observe, { operator: "replica-1", clock })("agents/research") };
}

const CLAIM = { workId: "work_1", pod: "berth-research-x" };

test("reports a request before and after, with its parameters and the selected parts of its answer", async () => {
  const { events, points } = traced();
  const answer = await points.run(
    "session.stop",
    { ...CLAIM, asks: { force: true } },
    async () => ({ alreadyStopped: true, secret: "hidden" }),
    ({ alreadyStopped }) => ({ alreadyStopped }),
  );
  expect(answer.secret).toBe("hidden");
  const common = {
    point: "session.stop",
    ...CLAIM,
    asks: { force: true },
    call: 1,
    environment: "agents/research",
    operator: "replica-1",
    atMs: clock.now(),
    monotonicMs: clock.monotonic(),
  };
  expect(events).toEqual([
    { ...common, phase: "before", details: {} },
    { ...common, phase: "after", outcome: "ok", details: { alreadyStopped: true } },
  ]);
});

test("reports an answer with its own refusal as refused", async () => {
  const { events, points } = traced();
  await points.run(
    "session.fence",
    CLAIM,
    async () => 412,
    () => ({ outcome: "refused", accepted: false }),
  );
  expect(events[1]).toMatchObject({ outcome: "refused", details: { accepted: false } });
});

const work = (more: { kind: "server" | "precondition" | "network" | "rate-limited"; status?: number }, maybe = false) =>
  new WorkApiError({ call: "stop", message: "no", maybeApplied: maybe, ...more });

test.each([
  ["a request without a usable answer", work({ kind: "server", status: 502 }, true), "unanswered"],
  ["a refused request", work({ kind: "precondition", status: 412 }), "refused"],
  ["a request that was not sent", work({ kind: "network" }), "failed"],
  ["a request over the rate limit", work({ kind: "rate-limited", status: 429 }), "failed"],
  ["a conflict at the API server", new KubeApiError("no", { status: 409, reason: "Conflict" }), "refused"],
  [
    "a write without an answer from the API server",
    new KubeApiError("no", { status: 0, maybeApplied: true }),
    "unanswered",
  ],
  ["an error of the operator", new OperatorError("LeadershipLost", "not the leader"), "failed"],
  ["any other error", new TypeError("a bug"), "failed"],
])("rethrows %s and reports its outcome", async (_name, error, outcome) => {
  const { events, points } = traced();
  await expect(points.run("session.stop", CLAIM, () => Promise.reject(error))).rejects.toBe(error);
  expect(events[1]).toMatchObject({ phase: "after", outcome });
});

test("reports a refusal with its status and reason", async () => {
  const { events, points } = traced();
  const error = new KubeApiError("taken", { status: 409, reason: "AlreadyExists" });
  await points.run("claim.journal", CLAIM, () => Promise.reject(error)).catch(() => {});
  expect(events[1]?.details).toEqual({ error: "KubeApi", status: 409, why: "AlreadyExists" });
});

test("reports a decision once", () => {
  const { events, points } = traced();
  points.note("session.own", CLAIM, { acknowledgedAt: "2030-01-01T00:00:00Z" });
  expect(events).toMatchObject([{ phase: "note", details: { acknowledgedAt: "2030-01-01T00:00:00Z" } }]);
});

test("does not send a request while the observer delays it", async () => {
  const gate = Promise.withResolvers<void>();
  const { points } = traced(({ phase }) => (phase === "before" ? gate.promise : undefined));
  let sent = false;
  const running = points.run("session.stop", CLAIM, async () => {
    sent = true;
  });
  await Promise.resolve();
  expect(sent).toBe(false);
  gate.resolve();
  await running;
  expect(sent).toBe(true);
});

test("sends a request at once and reports nothing without an observer", async () => {
  const points = pointsOf(undefined, { operator: "replica-1", clock })("agents/research");
  let sent = false;
  const running = points.run("session.stop", CLAIM, async () => {
    sent = true;
    return "answer";
  });
  expect(sent).toBe(true);
  expect(await running).toBe("answer");
});

test("numbers the calls of all Environments of one operator together", () => {
  const calls: number[] = [];
  const of = pointsOf(({ call }) => void calls.push(call), { operator: "replica-1", clock });
  of("agents/one").note("session.own", {});
  of("agents/two").note("session.own", {});
  expect(calls).toEqual([1, 2]);
});
