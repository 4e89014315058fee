import { describe, expect, test } from "vitest";
import type { EnvironmentStatus } from "../../src/api/environment.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { SleepCheck } from "../../src/reconcile/sleep-check.ts";
import { type Json, parsed, podTemplate, sessionsSpec, stored, workersSpec } from "../api/environments.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { FakeKube, noAnswer, notFound, refusal } from "./fake-kube.ts";

const SLEEPING = { type: "Pod", mountPath: "/workspace", sleepSeconds: 600 };
const environmentOf = (sessions: Json = {}, generation = 1) => {
  const { metadata, ...rest } = stored(sessionsSpec({ workspace: SLEEPING, ...sessions }));
  return parsed({ ...rest, metadata: { ...(metadata as Json), generation } });
};
const FORBIDDEN = refusal(403, "Forbidden", 'cannot patch resource "pods/ephemeralcontainers"');
const NONE = notFound("pods", "x");
/** How long a right that was there must be refused before it counts as missing. */
const CONFIRM_MS = 10_000;
const ALLOWED = { sleep: { enabled: true, message: "m" } };

/** A check of the right to patch `pods/ephemeralcontainers`, on an API server that gives these answers in turn. */
function checkOf(answers: Error[], found?: Partial<EnvironmentStatus>) {
  const clock = new VirtualClock();
  const kube = new FakeKube(() => answers.shift() ?? new Error("not foreseen"), clock);
  const check = new SleepCheck({
    ...{ kube: kube.client, points: NO_POINTS, clock, timing: DEFAULT_TIMING },
    found: found as EnvironmentStatus | undefined,
  });
  const next = () => clock.advance(check.nextLookMs(clock.monotonic()));
  return { check, clock, calls: kube.calls, next };
}

describe("the right to add turns to Pods", () => {
  test("exists when the API server only misses the Pod, which never exists", async () => {
    const { check, calls } = checkOf([NONE]);
    await check.check(environmentOf());
    expect([check.refused, check.failure]).toEqual([null, null]);
    expect(calls).toMatchObject([
      {
        ...{ verb: "patch", plural: "pods", ref: { namespace: "agents", name: expect.stringContaining("research") } },
        query: { type: "strategic", subresource: "ephemeralcontainers" },
      },
    ]);
  });

  test.each([
    ["the operator's role", FORBIDDEN],
    ["a policy with 422", refusal(422, "Invalid", "ephemeral containers are not allowed here")],
  ])("is missing when %s refuses it, until a later check", async (_, error) => {
    const { check, next } = checkOf([error, NONE]);
    await check.check(environmentOf());
    expect(check.refused).toMatch(/^the operator has no permission to add ephemeral containers to Pods: ./);
    expect(check.failure).toBeNull();
    await next();
    await check.check(environmentOf());
    expect(check.refused).toBeNull();
  });

  test("stays as it is known without an answer", async () => {
    const { check, next } = checkOf([noAnswer("patch"), FORBIDDEN, noAnswer("patch")]);
    await check.check(environmentOf());
    expect(check.refused).toBeNull();
    await next();
    await check.check(environmentOf());
    await next();
    await check.check(environmentOf());
    expect(check.refused).toMatch(/^the operator has no permission to add/);
  });

  test("is missing after Pods refused it for some time, until the next check finds that it is there again", async () => {
    const { check, next, clock } = checkOf([NONE, NONE, NONE, NONE]);
    await check.check(environmentOf());
    check.failed("a policy refuses it", environmentOf(), true);
    await check.check(environmentOf());
    expect(check.refused).toBeNull();
    await clock.advance(CONFIRM_MS);
    check.failed("a policy refuses it", environmentOf(), true);
    await check.check(environmentOf());
    expect([check.refused, check.failure]).toEqual(["a policy refuses it", null]);
    await next();
    await check.check(environmentOf());
    expect(check.refused).toBeNull();
  });

  test("is not missing because an API server that starts refuses it for a moment", async () => {
    const { check, clock, calls } = checkOf([NONE, FORBIDDEN, NONE, NONE]);
    await check.check(environmentOf());
    await clock.advance(60_000);
    check.failed("a policy refuses it", environmentOf(), true);
    await check.check(environmentOf());
    expect([check.refused, check.nextLookMs(clock.monotonic())]).toEqual([null, CONFIRM_MS]);
    await clock.advance(CONFIRM_MS);
    await check.check(environmentOf());
    expect([check.refused, calls.length]).toEqual([null, 3]);
    expect(check.nextLookMs(clock.monotonic())).toBe(DEFAULT_TIMING.policyCheckMs);
  });

  test("is missing if it was taken away", async () => {
    const { check, clock } = checkOf([NONE, FORBIDDEN, FORBIDDEN]);
    await check.check(environmentOf());
    await clock.advance(60_000);
    check.failed("a policy refuses it", environmentOf(), true);
    await check.check(environmentOf());
    await clock.advance(CONFIRM_MS);
    await check.check(environmentOf());
    expect(check.refused).toMatch(/^the operator has no permission to add/);
  });

  test("that an earlier process had is not missing because of one refusal at the start", async () => {
    const { check, clock } = checkOf([FORBIDDEN, NONE], ALLOWED);
    await check.check(environmentOf());
    expect(check.refused).toBeNull();
    await clock.advance(CONFIRM_MS);
    await check.check(environmentOf());
    expect(check.refused).toBeNull();
  });

  test("is checked at intervals, not at each reconcile", async () => {
    const { check, clock, calls } = checkOf([NONE, NONE]);
    expect(check.nextLookMs(clock.monotonic())).toBe(Number.POSITIVE_INFINITY);
    for (let n = 0; n < 3; n += 1) await check.check(environmentOf());
    expect(calls).toHaveLength(1);
    expect(check.nextLookMs(clock.monotonic())).toBe(DEFAULT_TIMING.policyCheckMs);
    await clock.advance(DEFAULT_TIMING.policyCheckMs);
    await check.check(environmentOf());
    expect(calls).toHaveLength(2);
  });

  test("is read from the status of an earlier process until the first check", async () => {
    const message = "the operator has no permission to add ephemeral containers to Pods: no";
    const sleep = { enabled: false, message: `${message}; each work item gets a new Pod` };
    const { check } = checkOf([NONE], { sleep } as EnvironmentStatus);
    expect(check.refused).toBe(message);
    await check.check(environmentOf());
    expect(check.refused).toBeNull();
    expect(checkOf([], ALLOWED).check.refused).toBeNull();
  });

  test("does not outweigh what failed in a Pod, which counts until the spec changes", async () => {
    const found = {
      ...{ observedGeneration: 3, sleep: { enabled: false, message: "m", failure: "the image has no date" } },
    } as EnvironmentStatus;
    const { check } = checkOf([NONE, NONE], found);
    await check.check(environmentOf({}, 3));
    expect([check.refused, check.failure]).toEqual(["the image has no date", "the image has no date"]);
    await check.check(environmentOf({}, 4));
    expect([check.refused, check.failure]).toEqual([null, null]);
  });

  test.each<[string, ReturnType<typeof environmentOf>]>([
    ["no session sleeps", environmentOf({ workspace: { type: "Ephemeral" } })],
    ["sleepSeconds is 0", environmentOf({ workspace: { ...SLEEPING, sleepSeconds: 0 } })],
    [
      "the template keeps sessions from sleeping",
      environmentOf({ template: podTemplate({ shareProcessNamespace: true }) }),
    ],
    ["there are no sessions", parsed(stored(workersSpec()))],
  ])("is not checked when %s", async (_, environment) => {
    const { check, clock, calls } = checkOf([]);
    await check.check(environment);
    expect(calls).toEqual([]);
    expect(check.nextLookMs(clock.monotonic())).toBe(Number.POSITIVE_INFINITY);
  });
});
