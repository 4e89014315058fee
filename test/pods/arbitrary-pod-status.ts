/**
 * Arbitrary Pod statuses for property tests. All values have the types of core/v1, since the API server stores no
 * others; their content is arbitrary.
 */
import fc from "fast-check";
import type { ContainerState, ContainerStatus, PodStatus } from "../../src/kube/resource.ts";
import { SESSION } from "./pods.ts";

const text = fc.oneof(
  fc.string(),
  fc.string({ unit: "binary" }),
  fc.constantFrom("", "x".repeat(100_000), "a\u0000b\n"),
);
export const anyTime = fc.constantFrom(
  undefined,
  "0001-01-01T00:00:00Z",
  "1969-12-31T23:59:59Z",
  "2026-04-01T10:00:00Z",
  "9999-12-31T23:59:59Z",
);
export const int32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
const some = <T>(of: Record<string, fc.Arbitrary<unknown>>) =>
  fc.record(of, { requiredKeys: [] }) as unknown as fc.Arbitrary<T>;
const REASONS = ["", "Completed", "OOMKilled", "StartError", "Unknown", "Evicted", "NodeLost", "DeadlineExceeded"];
const reason = fc.oneof(fc.constantFrom(...REASONS, "CreateContainerConfigError"), text);

const state = some<ContainerState>({
  running: some({ startedAt: anyTime }),
  waiting: some({ reason, message: text }),
  terminated: fc.record(
    { exitCode: int32, reason, message: text, startedAt: anyTime, finishedAt: anyTime, signal: int32 },
    { requiredKeys: ["exitCode"] },
  ),
});
const container: fc.Arbitrary<ContainerStatus> = fc.record(
  { name: fc.oneof(fc.constantFrom(SESSION, "setup", ""), text), state, lastState: state, restartCount: int32 },
  { requiredKeys: ["name"] },
) as never;
const condition = fc.record({
  type: fc.constantFrom("DisruptionTarget", "PodScheduled", "Initialized", "PodReadyToStartContainers", "Ready"),
  status: fc.constantFrom("True", "False", "Unknown"),
  reason,
  message: text,
  lastTransitionTime: anyTime,
});
/** A Pod status with valid types and arbitrary content. */
export const anyStatus = some<PodStatus>({
  phase: fc.constantFrom("", "Pending", "Running", "Succeeded", "Failed", "Unknown", "Nonsense"),
  reason,
  message: text,
  startTime: anyTime,
  conditions: fc.array(condition, { maxLength: 6 }),
  containerStatuses: fc.array(container, { maxLength: 4 }),
  initContainerStatuses: fc.array(container, { maxLength: 4 }),
});
