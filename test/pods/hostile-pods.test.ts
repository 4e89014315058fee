import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { LABEL_PHASE } from "../../src/api/names.ts";
import type { ContainerStatus, Pod, PodStatus } from "../../src/kube/resource.ts";
import { readFinished } from "../../src/pods/finished.ts";
import { readPodState } from "../../src/pods/pod-state.ts";
import { freePodOf } from "../../src/pool/free-pods.ts";
import { CLAIM_SECRET_TYPE, readJournal, renderJournal } from "../../src/protocol/journal.ts";
import { anyStatus, anyTime, int32 } from "./arbitrary-pod-status.ts";
import { pod, SESSION } from "./pods.ts";

const anyPod: fc.Arbitrary<Pod> = fc
  .record({ status: anyStatus, deletionTimestamp: anyTime, grace: int32, labelled: fc.boolean() })
  .map(({ status, deletionTimestamp, grace, labelled }) => {
    const made = pod();
    const deleting = deletionTimestamp === undefined ? {} : { deletionTimestamp, deletionGracePeriodSeconds: grace };
    const labels = labelled ? { [LABEL_PHASE]: "ended" } : {};
    return { ...made, metadata: { ...made.metadata, ...deleting, labels }, status };
  });

const KINDS = ["unscheduled", "preparing", "parked", "running", "ended"];

describe("any status of a Pod", () => {
  test("gives one state, and an end has a cause and a time or null", () => {
    fc.assert(
      fc.property(anyPod, (one) => {
        const read = readPodState(one);
        expect(KINDS).toContain(read.is);
        if (read.is === "ended") {
          expect(read.end.cause).toMatch(/^[A-Z]\w+$/);
          for (const ms of [read.end.startedAtMs, read.end.finishedAtMs]) expect(Number.isNaN(ms ?? 0)).toBe(false);
        }
        if (read.is === "running") expect(Number.isNaN(read.startedAtMs)).toBe(false);
        expect(() => [readFinished(one), freePodOf(one, "stays", {})]).not.toThrow();
      }),
      { numRuns: 1_000 },
    );
  });

  test("never shows an ended container as a Pod that can get a session", () => {
    fc.assert(
      fc.property(anyPod, int32, (one, exitCode) => {
        const others = (one.status?.containerStatuses ?? []).filter(({ name }) => name !== SESSION);
        const ended: ContainerStatus = { name: SESSION, state: { terminated: { exitCode } } };
        const status: PodStatus = { ...one.status, containerStatuses: [...others, ended] };
        expect(readPodState({ ...one, status }).is).toBe("ended");
      }),
    );
  });

  test("with a thousand containers can be read", () => {
    const containerStatuses = Array.from({ length: 1_000 }, (_, i) => ({ name: `c${i}`, state: {} }));
    expect(readPodState(pod({ containerStatuses })).is).toBe("preparing");
  });
});

describe("a forged Secret with our type and labels", () => {
  const where = { name: "berth-research-x", namespace: "agents", environment: "research" };
  const good = renderJournal(
    where,
    {
      ...{ use: "session", lease: "Worker", environmentUid: "e", podUid: "p" },
      ...{ workId: "work_1", sessionId: "sesn_1", queuedAt: "", polledFromMs: 1, polledUntilMs: 2 },
    },
    "secret",
  ).stringData as Record<string, string>;

  test("is a journal or null, and its times are numbers or NaN", () => {
    const data = fc.dictionary(
      fc.constantFrom(...Object.keys(good), "work-secret", "acknowledged-at"),
      fc.base64String(),
    );
    fc.assert(
      fc.property(data, (some) => {
        const read = readJournal({ metadata: where, type: CLAIM_SECRET_TYPE, data: some });
        if (!read) return;
        expect(["session", "refusal", "removal"]).toContain(read.use);
        expect(["Worker", "Operator"]).toContain(read.lease);
        expect(typeof read.polledFromMs).toBe("number");
      }),
      { numRuns: 500 },
    );
  });
});
