import { beforeEach, describe, expect, test } from "vitest";
import { type ConditionReason, eventType, REASONS } from "../../src/api/condition-reasons.ts";
import { conditionFor } from "../../src/api/conditions.ts";
import type { EnvironmentStatus } from "../../src/api/environment.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { LeadershipLostError } from "../../src/kube/errors.ts";
import { createLogger } from "../../src/observe/logger.ts";
import { createMetrics, type Metrics } from "../../src/observe/metrics.ts";
import { COUNTS_EVERY_MS, type StatusParts, StatusWriter } from "../../src/reconcile/status-writer.ts";
import { metricValue } from "../support/metric-value.ts";
import { VIRTUAL_EPOCH_MS, VirtualClock } from "../support/virtual-clock.ts";
import { FakeKube, noAnswer, notFound, refusal } from "./fake-kube.ts";

const REF = { namespace: "agents", name: "research", uid: "uid-1" };
const LABELS = { namespace: REF.namespace, environment: REF.name };
const NOW = new Date(VIRTUAL_EPOCH_MS).toISOString().replace(".000Z", "Z");

const SESSIONS = { warm: 1, preparing: 0, running: 0, stopping: 0, ended: 0 };

let clock: VirtualClock;
let kube: FakeKube;
let announced: { reason: string; message: string }[];
let logged: Record<string, string>[];
/** The status in the API server, following merge-patch rules. */
let stored: Record<string, unknown>;
let metrics: Metrics;

beforeEach(() => {
  clock = new VirtualClock();
  announced = [];
  logged = [];
  stored = {};
  metrics = createMetrics();
  kube = new FakeKube(({ body }) => {
    stored = merged(stored, (body as { status: Record<string, unknown> }).status);
    return { metadata: {} };
  });
});

function merged(into: unknown, patch: Record<string, unknown>): Record<string, unknown> {
  const result: Record<string, unknown> = typeof into === "object" && into !== null ? { ...into } : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete result[name];
    else if (typeof value === "object" && !Array.isArray(value)) {
      result[name] = merged(result[name], value as Record<string, unknown>);
    } else result[name] = value;
  }
  return result;
}

function writer(found?: EnvironmentStatus): StatusWriter {
  const announce = (reason: string, message: string) => void announced.push({ reason, message });
  const logger = createLogger("debug", { write: (line) => void logged.push(JSON.parse(line)) });
  const { namespace, name } = REF;
  const child = logger.child({ namespace, environment: name });
  return new StatusWriter({
    ...{ kube: kube.client, ref: REF, points: NO_POINTS, clock, logger: child, announce, found },
    ...{ random: () => 0.5, timing: DEFAULT_TIMING, metrics },
  });
}

function parts(reasons: readonly ConditionReason[], over: Partial<StatusParts> = {}): StatusParts {
  return {
    generation: 1,
    mode: "Sessions",
    max: 10,
    conditions: reasons.map((reason) => conditionFor(reason, `words of ${reason}`, 1)),
    queue: null,
    sessions: null,
    ...over,
  };
}

const announcedReasons = () => announced.map(({ reason }) => reason);

describe("the written status", () => {
  test("is one merge patch of the status, for the object with this uid only", async () => {
    await writer().write(parts(["KeyAccepted"], { sessions: SESSIONS }));
    expect(kube.calls).toEqual([
      {
        verb: "patch",
        plural: "environments",
        ref: { namespace: "agents", name: "research" },
        query: { type: "merge", subresource: "status" },
        body: {
          metadata: { uid: "uid-1" },
          status: {
            observedGeneration: 1,
            mode: "Sessions",
            max: 10,
            sessions: SESSIONS,
            conditions: [{ ...conditionFor("KeyAccepted", "words of KeyAccepted", 1), lastTransitionTime: NOW }],
          },
        },
      },
    ]);
  });

  test("is not written again if it is the same, however much time passes", async () => {
    const writing = writer();
    await writing.write(parts(["Ready"], { sessions: SESSIONS }));
    await clock.advance(3_600_000);
    expect(await writing.write(parts(["Ready"], { sessions: { ...SESSIONS } }))).toBeNull();
    expect(kube.calls).toHaveLength(1);
  });

  test("is not written again if an earlier process wrote the same, in any key order", async () => {
    await writer().write(parts(["Ready"], { sessions: SESSIONS, queue: { depth: 1, pending: 0 } }));
    const found = Object.fromEntries(Object.entries(stored).reverse()) as EnvironmentStatus;
    const second = writer(found);
    await second.write(parts(["Ready"], { sessions: SESSIONS, queue: { pending: 0, depth: 1 } }));
    expect(kube.calls).toHaveLength(1);
  });

  test("has counts 5 s after they began to change, however old the last write is, and only the latest", async () => {
    const writing = writer();
    const running = (count: number) => parts(["Ready"], { sessions: { ...SESSIONS, running: count } });
    await writing.write(running(0));
    await clock.advance(3_600_000);
    expect(await writing.write(running(1))).toBe(COUNTS_EVERY_MS);
    await clock.advance(1_000);
    expect(await writing.write(running(2))).toBe(COUNTS_EVERY_MS - 1_000);
    expect(kube.calls).toHaveLength(1);
    await clock.advance(COUNTS_EVERY_MS - 1_000);
    expect(await writing.write(running(2))).toBeNull();
    expect(kube.calls).toHaveLength(2);
    expect(stored).toMatchObject({ sessions: { running: 2 } });
    // The next change starts a new wait.
    expect(await writing.write(running(3))).toBe(COUNTS_EVERY_MS);
  });

  test.each([
    ["parking", { mode: "Key" }],
    ["sleep", { enabled: false }],
  ])("has the failure of %s at once, and no longer when it is solved", async (part, choice) => {
    const writing = writer();
    const saying = (words: object) => parts(["Ready"], { [part]: { ...choice, ...words } });
    await writing.write(saying({ message: "no command" }));
    expect(await writing.write(saying({ message: "no shell" }))).toBe(COUNTS_EVERY_MS);
    expect(await writing.write(saying({ message: "no shell", failure: "exit code 127" }))).toBeNull();
    expect(stored[part]).toEqual({ ...choice, message: "no shell", failure: "exit code 127" });
    expect(await writing.write(saying({ message: "no command" }))).toBeNull();
    expect(stored[part]).toEqual({ ...choice, message: "no command" });
  });

  test("has no counts that have changed back in the meantime", async () => {
    const writing = writer();
    const running = (count: number) => parts(["Ready"], { sessions: { ...SESSIONS, running: count } });
    await writing.write(running(0));
    await writing.write(running(1));
    await clock.advance(COUNTS_EVERY_MS - 1_000);
    expect(await writing.write(running(0))).toBeNull();
    expect(kube.calls).toHaveLength(1);
    // They do not shorten the next wait either.
    expect(await writing.write(running(1))).toBe(COUNTS_EVERY_MS);
  });

  test("has a changed message as late as counts", async () => {
    const writing = writer();
    await writing.write(parts(["QuotaExceeded"]));
    const reworded = parts([], { conditions: [conditionFor("QuotaExceeded", "other words", 1)] });
    expect(await writing.write(reworded)).toBe(COUNTS_EVERY_MS);
    await clock.advance(COUNTS_EVERY_MS);
    await writing.write(reworded);
    expect(stored).toMatchObject({ conditions: [{ message: "other words", lastTransitionTime: NOW }] });
    expect(announcedReasons()).toEqual(["QuotaExceeded"]);
  });

  test.each<[string, ConditionReason, ConditionReason]>([
    ["a status", "Reachable", "Unreachable"],
    ["a bad reason", "Unreachable", "RateLimited"],
    ["a good reason for one that warns", "Accepted", "AcceptedWithWarning"],
  ])("has a turn of %s at once", async (_what, before, after) => {
    const writing = writer();
    await writing.write(parts([before]));
    expect(await writing.write(parts([after]))).toBeNull();
    expect(stored).toMatchObject({ conditions: [{ reason: after }] });
  });

  test("has one good reason after another as late as counts: at its maximum, an Environment turns all day", async () => {
    const writing = writer();
    await writing.write(parts(["Available"]));
    expect(await writing.write(parts(["AtMaximum"]))).toBe(COUNTS_EVERY_MS);
    expect(kube.calls).toHaveLength(1);
  });

  test("has a new generation at once, so that clients waiting for it see it", async () => {
    const writing = writer();
    await writing.write(parts(["Ready"]));
    await writing.write(parts(["Ready"], { generation: 2 }));
    expect(stored).toMatchObject({ observedGeneration: 2 });
  });

  test("has a new lastTransitionTime only if a status changed", async () => {
    const writing = writer();
    await writing.write(parts(["Unreachable"]));
    await clock.advance(10_000);
    await writing.write(parts(["RateLimited"]));
    expect(stored).toMatchObject({ conditions: [{ reason: "RateLimited", lastTransitionTime: NOW }] });
    await writing.write(parts(["Reachable"]));
    expect(stored).toMatchObject({
      conditions: [{ reason: "Reachable", lastTransitionTime: NOW.replace("00Z", "10Z") }],
    });
  });

  test("removes obsolete fields: of the queue, and the counts of another mode", async () => {
    const writing = writer();
    const queue = { depth: 1, pending: 0, oldestQueuedAt: NOW };
    await writing.write(parts(["Ready"], { queue, sessions: SESSIONS }));
    await writing.write(parts(["InvalidSpec"], { queue: { depth: 0, pending: 0 } }));
    expect(stored["queue"]).toEqual({ depth: 0, pending: 0 });
    expect(stored).not.toHaveProperty("sessions");
  });

  test("keeps the last queue reading if the queue was not read: an error is never read as zero", async () => {
    const writing = writer();
    await writing.write(parts(["Reachable"], { queue: { depth: 4, pending: 0 } }));
    await writing.write(parts(["Unreachable"]));
    expect(stored["queue"]).toEqual({ depth: 4, pending: 0 });
  });

  test("keeps conditions that this version does not know", async () => {
    const strange = { ...conditionFor("Ready", "", 1), type: "OfTomorrow", reason: "Odd", lastTransitionTime: NOW };
    await writer({ conditions: [strange] }).write(parts(["Ready"]));
    expect(stored).toMatchObject({ conditions: [strange, { type: "Ready" }] });
    expect(announced).toEqual([]);
  });
});

describe("failed writes", () => {
  test.each([
    ["is gone", notFound("environments", "research")],
    ["was replaced by another of the same name", refusal(409, "Conflict", "Precondition failed: UID in precondition")],
  ])("ignores an Environment that %s, and announces nothing", async (_how, error) => {
    kube.answer(() => error);
    await writer().write(parts(["KeyRejected"]));
    expect(announced).toEqual([]);
  });

  test("throws when the process may not write any more", async () => {
    kube.answer(() => new LeadershipLostError("not the leader"));
    await expect(writer().write(parts(["KeyRejected"]))).rejects.toThrow("not the leader");
    expect(announced).toEqual([]);
  });

  test("retries a failed write after a pause, and announces its Events once, after success", async () => {
    const writing = writer();
    kube.answer(() => noAnswer("patch environments/status"));
    const waitMs = await writing.write(parts(["KeyRejected"]));
    expect(waitMs).toBeGreaterThanOrEqual(DEFAULT_TIMING.retryBaseMs / 2);
    // Even a condition that turns meanwhile waits for the pause.
    expect(await writing.write(parts(["KeyRejected", "Unreachable"]))).toBe(waitMs);
    expect(kube.calls).toHaveLength(1);
    expect(announced).toEqual([]);
    kube.answer(() => ({ metadata: {} }));
    await clock.advance(waitMs ?? 0);
    expect(await writing.write(parts(["KeyRejected"]))).toBeNull();
    await writing.write(parts(["KeyRejected"]));
    expect(announcedReasons()).toEqual(["KeyRejected"]);
  });

  const failing = () => metricValue(metrics.failingSteps, { ...LABELS, step: "status" });

  /** Writes whenever a condition turns, twice a second, and returns the number of requests. */
  async function requestsIn(writing: StatusWriter, minutes: number): Promise<number> {
    const before = kube.calls.length;
    for (let n = 0; n < minutes * 120; n += 1) {
      await writing.write(parts([n % 2 === 0 ? "Reachable" : "Unreachable"]));
      await clock.advance(500);
    }
    return kube.calls.length - before;
  }

  test.each([403, 409, 422, 429, 500])(
    "reports writes that are always answered with %d by one Event and a metric, and backs off",
    async (status) => {
      const writing = writer();
      await writing.write(parts(["Reachable"]));
      kube.answer(() => refusal(status, "", "a webhook says no"));
      expect(await requestsIn(writing, 15)).toBeLessThanOrEqual(60);
      const told = announced.filter(({ reason }) => reason === "StatusOutdated");
      expect(told).toEqual([{ reason: "StatusOutdated", message: expect.stringContaining("a webhook says no") }]);
      expect(told[0]?.message).toContain("the status stays old while Berth cannot write it");
      expect(await failing()).toBe(1);
      kube.answer(() => ({ metadata: {} }));
      expect(await requestsIn(writing, 1)).toBeGreaterThan(1);
      expect(await failing()).toBe(0);
    },
  );

  test("reports a missing permission at once, and conditions that turn although it can't write them", async () => {
    const writing = writer();
    await writing.write(parts(["KeyAccepted"]));
    kube.answer(() => refusal(403, "Forbidden", "may not"));
    const waitMs = await writing.write(parts(["KeyRejected"]));
    expect(announced).toEqual([
      { reason: "StatusOutdated", message: expect.stringContaining("permission to patch environments/status") },
      { reason: "KeyRejected", message: "words of KeyRejected" },
    ]);
    kube.answer(() => ({ metadata: {} }));
    await clock.advance(waitMs ?? 0);
    await writing.write(parts(["KeyRejected"]));
    expect(announced).toHaveLength(2);
  });

  test("notices that writes work again although nothing has changed since the last one", async () => {
    const writing = writer();
    await writing.write(parts(["KeyAccepted"]));
    kube.answer(() => refusal(403, "Forbidden", "may not"));
    const waitMs = await writing.write(parts(["KeyRejected"]));
    kube.answer(() => ({ metadata: {} }));
    await clock.advance(waitMs ?? 0);
    expect(await writing.write(parts(["KeyAccepted"]))).toBeNull();
    expect(await failing()).toBe(0);
  });
});

describe("Events", () => {
  test("announces nothing for an Environment that is good from the start", async () => {
    const writing = writer();
    await writing.write(parts(["Pending", "KeyUnchecked", "QueueUnchecked", "NoSessionYet"]));
    await writing.write(parts(["Ready", "KeyAccepted", "Reachable", "Accepted", "Available", "Starting"]));
    expect(announced).toEqual([]);
  });

  test("announces a fault once with its message, and its end once", async () => {
    const writing = writer();
    await writing.write(parts(["Reachable"]));
    for (let round = 0; round < 3; round += 1) {
      await writing.write(parts(["Unreachable"]));
      await clock.advance(COUNTS_EVERY_MS);
    }
    expect(announced).toEqual([{ reason: "Unreachable", message: "words of Unreachable" }]);
    await writing.write(parts(["Reachable"]));
    await writing.write(parts(["Reachable"]));
    expect(announcedReasons()).toEqual(["Unreachable", "Reachable"]);
  });

  test("announces the end of a fault even if its status was unknown in between", async () => {
    const writing = writer();
    for (const reason of ["KeyRejected", "KeyUnchecked", "KeyAccepted"] as const) await writing.write(parts([reason]));
    expect(announcedReasons()).toEqual(["KeyRejected", "KeyAccepted"]);
  });

  test("does not repeat a fault that an earlier process announced, but announces its end", async () => {
    await writer().write(parts(["KeyRejected"]));
    const second = writer(stored as EnvironmentStatus);
    await second.write(parts(["KeyRejected"]));
    await second.write(parts(["KeyUnchecked"]));
    await second.write(parts(["KeyAccepted"]));
    expect(announcedReasons()).toEqual(["KeyRejected", "KeyAccepted"]);
  });

  test("announces only once what Ready repeats from another condition", async () => {
    const writing = writer();
    const ready = { ...conditionFor("KeyRejected", "words of KeyRejected", 1), type: "Ready" as const };
    await writing.write(parts([], { conditions: [ready, conditionFor("KeyRejected", "words of KeyRejected", 1)] }));
    await writing.write(parts(["Ready", "KeyAccepted"]));
    expect(announcedReasons()).toEqual(["KeyRejected", "KeyAccepted"]);
  });

  test.each<ConditionReason>(["Paused", "InvalidSpec", "NothingStarts", "Deleting"])(
    "announces what only Ready says: %s, and its end",
    async (reason) => {
      const writing = writer();
      await writing.write(parts(["KeyAccepted", "Ready"]));
      await writing.write(parts(["KeyAccepted", reason]));
      await writing.write(parts(["KeyAccepted", "Ready"]));
      expect(announcedReasons()).toEqual([reason, "Ready"]);
    },
  );

  test("announces a pause even if something else blocked Ready before", async () => {
    const writing = writer();
    const ready = { ...conditionFor("Unreachable", "x", 1), type: "Ready" as const };
    await writing.write(parts([], { conditions: [ready, conditionFor("Unreachable", "x", 1)] }));
    await writing.write(parts(["Paused", "Unreachable"]));
    expect(announcedReasons()).toEqual(["Unreachable", "Paused"]);
  });

  test("announces every warning reason when its condition turns to it, whatever its status", async () => {
    const warnings = (Object.keys(REASONS) as ConditionReason[]).filter((reason) => eventType(reason) === "Warning");
    expect(warnings.length).toBeGreaterThan(15);
    for (const reason of warnings) {
      announced = [];
      await writer().write(parts([reason]));
      expect(announcedReasons()).toEqual([reason]);
    }
  });
});

describe("the log", () => {
  const info = () =>
    logged
      .filter(({ level }) => level !== "debug")
      .map(({ level, environment, msg }) => `${level} ${environment} ${msg}`);

  test("has a line for each condition that turns, with its Environment, reason and message", async () => {
    const writing = writer();
    const ready = { ...conditionFor("KeyRejected", "words of KeyRejected", 1), type: "Ready" as const };
    await writing.write(parts(["Ready", "KeyAccepted"]));
    await writing.write(parts([], { conditions: [ready, conditionFor("KeyRejected", "words of KeyRejected", 1)] }));
    await writing.write(parts(["Ready", "KeyAccepted"]));
    expect(info()).toEqual([
      "info research Ready=True Ready: words of Ready",
      "warn research Ready=False KeyRejected: words of KeyRejected",
      "warn research Authenticated=False KeyRejected: words of KeyRejected",
      "info research Ready=True Ready: words of Ready",
      "info research Authenticated=True KeyAccepted: words of KeyAccepted",
    ]);
    expect(logged.at(-1)).toMatchObject({
      namespace: "agents",
      condition: "Authenticated",
      status: "True",
      reason: "KeyAccepted",
    });
  });

  test("has no line for what was not checked yet, nor for another good reason", async () => {
    const writing = writer();
    await writing.write(parts(["Pending", "KeyUnchecked", "Available"]));
    await clock.advance(COUNTS_EVERY_MS);
    await writing.write(parts(["Pending", "KeyUnchecked", "AtMaximum"]));
    await clock.advance(COUNTS_EVERY_MS);
    await writing.write(parts(["Pending", "KeyUnchecked", "AtMaximum"]));
    expect(info()).toEqual([]);
  });

  test("of a new process reports a fault that an earlier one wrote, once", async () => {
    await writer().write(parts(["KeyRejected", "Refused", "Available"]));
    logged = [];
    const second = writer(stored as EnvironmentStatus);
    for (let round = 0; round < 3; round += 1) await second.write(parts(["KeyRejected", "Refused", "Available"]));
    expect(info()).toEqual([
      "warn research Authenticated=False KeyRejected: words of KeyRejected",
      "warn research TemplateAccepted=False Refused: words of Refused",
    ]);
  });

  test("has no line about a condition whose status is not written yet", async () => {
    const writing = writer();
    kube.answer(() => noAnswer("patch environments/status"));
    await writing.write(parts(["KeyRejected"]));
    expect(info()).toEqual([expect.stringContaining("cannot write the status")]);
  });
});
