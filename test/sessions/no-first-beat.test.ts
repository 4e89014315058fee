import { describe, expect, test } from "vitest";
import type { Environment } from "../../src/api/environment.ts";
import { noFirstBeatMessage } from "../../src/sessions/lease-steps.ts";

const message = (firstBeatTimeoutSeconds: number, maxDurationSeconds: number, metadata = {}) =>
  noFirstBeatMessage({
    metadata,
    spec: { sessions: { firstBeatTimeoutSeconds, maxDurationSeconds } },
  } as unknown as Environment);

describe("the message of a session without a heartbeat", () => {
  test("names the timeout and the fix", () => {
    expect(message(60, 86_400)).toBe(
      "the container sent no heartbeat within 60 s of its start (firstBeatTimeoutSeconds); a program that does not beat by itself needs lease: Operator",
    );
  });

  test("names maxDurationSeconds when that is shorter than the timeout", () => {
    expect(message(60, 5)).toContain("within 5 s of its start (maxDurationSeconds)");
  });

  test("names deletionGraceSeconds when the Environment is being deleted", () => {
    const metadata = { deletionTimestamp: "2026-01-01T00:00:00Z" };
    expect(message(60, 86_400, metadata)).toContain("or before the Environment's deletionGraceSeconds were over");
  });
});
