import { describe, expect, test } from "vitest";
import type { EnvironmentStatus } from "../../src/api/environment.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { ObjectRef } from "../../src/kube/client.ts";
import { parkingCheck, sleepCheck } from "../../src/reconcile/ability-check.ts";
import { type Json, parsed, podTemplate, sessionsSpec, stored, workersSpec } from "../api/environments.ts";
import { FakeStream } from "../attach/fake-stream.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { FakeKube, noAnswer, notFound, refusal } from "./fake-kube.ts";

const WITH_COMMAND = podTemplate({ containers: [{ name: "worker", image: "worker:1", command: ["worker"] }] });
const environmentOf = (sessions: Json = {}, generation = 1) => {
  const { metadata, ...rest } = stored(sessionsSpec({ template: WITH_COMMAND, ...sessions }));
  return parsed({ ...rest, metadata: { ...(metadata as Json), generation } });
};
const FORBIDDEN = refusal(403, "Forbidden", 'get pods "x" is forbidden: no');
const NONE = notFound("pods", "x");
/** How long a right that was there must be refused before it counts as missing. */
const CONFIRM_MS = 10_000;

/** A check of the right to attach, on an API server that gives these answers in turn. */
function checkOf(answers: (Error | FakeStream)[], found?: Partial<EnvironmentStatus>) {
  const clock = new VirtualClock();
  const asked: ObjectRef[] = [];
  const attach = async (ref: ObjectRef) => {
    asked.push(ref);
    const answer = answers.shift();
    if (answer instanceof FakeStream) return answer;
    throw answer ?? new Error("not foreseen");
  };
  const check = parkingCheck({
    kube: { attach } as never,
    points: NO_POINTS,
    clock,
    timing: DEFAULT_TIMING,
    found: found as EnvironmentStatus | undefined,
  });
  const next = () => clock.advance(check.nextLookMs(clock.monotonic()));
  return { check, clock, asked, next };
}

describe("the right to attach", () => {
  test("exists when the API server only misses the Pod, which never exists", async () => {
    const { check, asked } = checkOf([NONE]);
    await check.check(environmentOf());
    expect([check.refused, check.failure]).toEqual([null, null]);
    expect(asked).toEqual([{ namespace: "agents", name: expect.stringContaining("research") }]);
  });

  test("is missing as the status says until the first check is answered", async () => {
    const parking = {
      mode: "Key",
      message: "the operator has no permission to attach to Pods: no; sessions start slower with a key",
    };
    const { check, next } = checkOf([noAnswer("attach"), NONE], { parking } as EnvironmentStatus);
    expect(check.refused).toBe("the operator has no permission to attach to Pods: no");
    await check.check(environmentOf());
    expect(check.refused).toBe("the operator has no permission to attach to Pods: no");
    await next();
    await check.check(environmentOf());
    expect([check.refused, check.failure]).toEqual([null, null]);
  });

  test("is missing after Pods refused it for some time, until the next check finds that it is there again", async () => {
    const { check, next, clock } = checkOf([NONE, NONE, NONE, NONE]);
    await check.check(environmentOf());
    check.failed("attaching to Pods is refused", environmentOf(), true);
    await check.check(environmentOf());
    expect(check.refused).toBeNull();
    await clock.advance(CONFIRM_MS);
    check.failed("attaching to Pods is refused", environmentOf(), true);
    await check.check(environmentOf());
    expect([check.refused, check.failure]).toEqual(["attaching to Pods is refused", null]);
    await next();
    await check.check(environmentOf());
    expect(check.refused).toBeNull();
  });

  test("is not missing because an API server that starts refuses it for a moment", async () => {
    const { check, clock, asked } = checkOf([NONE, FORBIDDEN, NONE, NONE]);
    await check.check(environmentOf());
    await clock.advance(60_000);
    check.failed("attaching to Pods is refused", environmentOf(), true);
    await check.check(environmentOf());
    expect([check.refused, check.nextLookMs(clock.monotonic())]).toEqual([null, CONFIRM_MS]);
    await clock.advance(CONFIRM_MS);
    await check.check(environmentOf());
    expect([check.refused, asked.length]).toEqual([null, 3]);
    expect(check.nextLookMs(clock.monotonic())).toBe(DEFAULT_TIMING.policyCheckMs);
  });

  test("is missing if it was taken away", async () => {
    const { check, clock } = checkOf([NONE, FORBIDDEN, FORBIDDEN]);
    await check.check(environmentOf());
    await clock.advance(60_000);
    check.failed("attaching to Pods is refused", environmentOf(), true);
    await check.check(environmentOf());
    await clock.advance(CONFIRM_MS);
    await check.check(environmentOf());
    expect(check.refused).toMatch(/^the operator has no permission to attach/);
  });

  test("that an earlier process had is not missing because of one refusal at the start", async () => {
    const { check, clock } = checkOf([FORBIDDEN, NONE], {
      parking: { mode: "Shell", message: "" },
    } as EnvironmentStatus);
    await check.check(environmentOf());
    expect(check.refused).toBeNull();
    await clock.advance(CONFIRM_MS);
    await check.check(environmentOf());
    expect(check.refused).toBeNull();
  });

  test("is missing when the API server forbids it, and Pods then don't wait in a shell", async () => {
    const { check, next } = checkOf([FORBIDDEN, NONE]);
    await check.check(environmentOf());
    expect(check.refused).toMatch(/^the operator has no permission to attach to Pods: .*forbidden/);
    // The next process finds this out again.
    expect(check.failure).toBeNull();
    await next();
    await check.check(environmentOf());
    expect(check.refused).toBeNull();
  });

  test.each([
    ["no answer", noAnswer("attach")],
    ["an error of the server", refusal(500, "InternalError", "error dialing backend")],
  ])("stays as it is known after %s", async (_, failure) => {
    const { check, next } = checkOf([failure, FORBIDDEN, failure]);
    await check.check(environmentOf());
    expect(check.refused).toBeNull();
    await next();
    await check.check(environmentOf());
    await next();
    await check.check(environmentOf());
    expect(check.refused).toMatch(/^the operator has no permission to attach/);
  });

  test("exists if the attach succeeds, and its connection is closed", async () => {
    const stream = new FakeStream();
    const { check } = checkOf([stream]);
    await check.check(environmentOf());
    expect([check.refused, stream.isOpen]).toEqual([null, false]);
  });

  test("is checked at intervals, not at each reconcile", async () => {
    const { check, clock, asked } = checkOf([NONE, NONE]);
    expect(check.nextLookMs(clock.monotonic())).toBe(Number.POSITIVE_INFINITY);
    for (let n = 0; n < 3; n += 1) await check.check(environmentOf());
    expect(asked).toHaveLength(1);
    expect(check.nextLookMs(clock.monotonic())).toBe(DEFAULT_TIMING.policyCheckMs);
    await clock.advance(DEFAULT_TIMING.policyCheckMs);
    await check.check(environmentOf());
    expect(asked).toHaveLength(2);
  });

  test.each<[string, ReturnType<typeof environmentOf>]>([
    ["the spec chooses Shell", environmentOf({ parking: "Shell" })],
    ["the spec chooses Key", environmentOf({ parking: "Key" })],
    ["the template keeps Pods from waiting in a shell", environmentOf({ template: podTemplate() })],
    ["there are no sessions", parsed(stored(workersSpec()))],
  ])("is not checked when %s", async (_, environment) => {
    const { check, clock, asked } = checkOf([]);
    await check.check(environment);
    expect(asked).toEqual([]);
    expect(check.nextLookMs(clock.monotonic())).toBe(Number.POSITIVE_INFINITY);
  });

  test("is checked at once when the spec leaves the choice to Berth again", async () => {
    const { check, asked } = checkOf([NONE, NONE]);
    for (const sessions of [{}, { parking: "Key" }, {}]) await check.check(environmentOf(sessions));
    expect(asked).toHaveLength(2);
  });
});

describe("a fault that only a Pod shows", () => {
  test("keeps Pods from waiting in a shell until the spec changes", async () => {
    const { check } = checkOf([NONE, NONE]);
    check.failed("the image has no /bin/sh", environmentOf({}, 3));
    await check.check(environmentOf({}, 3));
    expect([check.refused, check.failure]).toEqual(["the image has no /bin/sh", "the image has no /bin/sh"]);
    await check.check(environmentOf({}, 4));
    expect([check.refused, check.failure]).toEqual([null, null]);
  });

  test("counts before a missing right", async () => {
    const { check } = checkOf([FORBIDDEN]);
    await check.check(environmentOf());
    check.failed("the image has no /bin/sh", environmentOf());
    expect(check.refused).toBe("the image has no /bin/sh");
  });

  test("is read from the status of an earlier process, for the same spec", async () => {
    const found = (mode: "Key" | "Shell", more: Partial<EnvironmentStatus> = { observedGeneration: 3 }) =>
      checkOf([NONE], { parking: { mode, message: "m", failure: "no shell" }, ...more }).check;
    const same = found("Key");
    await same.check(environmentOf({}, 3));
    expect(same.refused).toBe("no shell");
    expect(found("Shell").refused).toBeNull();
    expect(found("Key", {}).refused).toBeNull();
    const changed = found("Key");
    await changed.check(environmentOf({}, 4));
    expect(changed.refused).toBeNull();
  });
});

describe("the right to add turns to Pods", () => {
  const SLEEPING = { workspace: { type: "Pod", mountPath: "/workspace", sleepSeconds: 600 } };
  const wanting = (sessions: Json = {}, generation = 1) => environmentOf({ ...SLEEPING, ...sessions }, generation);

  /** A check of the right to patch `pods/ephemeralcontainers`, on an API server that gives these answers in turn. */
  function turnCheckOf(answers: Error[], found?: Partial<EnvironmentStatus>) {
    const clock = new VirtualClock();
    const kube = new FakeKube(() => answers.shift() ?? new Error("not foreseen"), clock);
    const check = sleepCheck({
      ...{ kube: kube.client, points: NO_POINTS, clock, timing: DEFAULT_TIMING },
      found: found as EnvironmentStatus | undefined,
    });
    const next = () => clock.advance(check.nextLookMs(clock.monotonic()));
    return { check, clock, calls: kube.calls, next };
  }

  test("exists when the API server only misses the Pod, which never exists", async () => {
    const { check, calls } = turnCheckOf([NONE]);
    await check.check(wanting());
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
    const { check, next } = turnCheckOf([error, NONE]);
    await check.check(wanting());
    expect(check.refused).toMatch(/^the operator has no permission to add ephemeral containers to Pods: ./);
    expect(check.failure).toBeNull();
    await next();
    await check.check(wanting());
    expect(check.refused).toBeNull();
  });

  test("stays as it is known without an answer", async () => {
    const { check, next } = turnCheckOf([noAnswer("patch"), FORBIDDEN, noAnswer("patch")]);
    await check.check(wanting());
    expect(check.refused).toBeNull();
    await next();
    await check.check(wanting());
    await next();
    await check.check(wanting());
    expect(check.refused).toMatch(/^the operator has no permission to add/);
  });

  test("is read from the status of an earlier process until the first check", async () => {
    const message = "the operator has no permission to add ephemeral containers to Pods: no";
    const sleep = { enabled: false, message: `${message}; each work item gets a new Pod` };
    const { check } = turnCheckOf([NONE], { sleep } as EnvironmentStatus);
    expect(check.refused).toBe(message);
    await check.check(wanting());
    expect(check.refused).toBeNull();
    expect(turnCheckOf([], { sleep: { enabled: true, message: "m" } } as EnvironmentStatus).check.refused).toBeNull();
  });

  test("does not outweigh what failed in a Pod, which counts until the spec changes", async () => {
    const found = {
      ...{ observedGeneration: 3, sleep: { enabled: false, message: "m", failure: "the image has no date" } },
    } as EnvironmentStatus;
    const { check } = turnCheckOf([NONE, NONE], found);
    await check.check(wanting({}, 3));
    expect([check.refused, check.failure]).toEqual(["the image has no date", "the image has no date"]);
    await check.check(wanting({}, 4));
    expect([check.refused, check.failure]).toEqual([null, null]);
  });

  test.each<[string, ReturnType<typeof environmentOf>]>([
    ["no session sleeps", environmentOf()],
    ["sleepSeconds is 0", wanting({ workspace: { ...SLEEPING.workspace, sleepSeconds: 0 } })],
    ["the template keeps sessions from sleeping", wanting({ template: podTemplate() })],
    ["there are no sessions", parsed(stored(workersSpec()))],
  ])("is not checked when %s", async (_, environment) => {
    const { check, clock, calls } = turnCheckOf([]);
    await check.check(environment);
    expect(calls).toEqual([]);
    expect(check.nextLookMs(clock.monotonic())).toBe(Number.POSITIVE_INFINITY);
  });
});
