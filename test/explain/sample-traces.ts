/** Sample traces of one session: its Pod, claim, work item, Events and Environment. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import type { Condition } from "../../src/api/conditions.ts";
import { type Environment, parseEnvironment } from "../../src/api/environment.ts";
import { asStored } from "../../src/commands/preview.ts";
import type { ClaimTrace, ItemTrace, Traces } from "../../src/explain/traces.ts";
import type { KubeEvent, Pod, PodStatus } from "../../src/kube/resource.ts";
import { sessionTemplate } from "../../src/pods/pod-render.ts";
import type { WorkItem } from "../../src/work/types.ts";
import { ROOT } from "../project/lint-gate.ts";
import { keeperPod } from "../support/keeper-pods.ts";

/** Seconds after the beginning of a session, as a time. */
export const at = (seconds: number) => new Date(Date.parse("2026-01-02T03:04:05Z") + seconds * 1_000).toISOString();

export const POD = "berth-research-x";
export const WORK_ID = "work_1";
export const SESSION_ID = "session_1";

export function environment(conditions: readonly Partial<Condition>[] = [], example = "minimal"): Environment {
  const manifest = parse(readFileSync(join(ROOT, "examples/environments", `${example}.yaml`), "utf8"));
  if (manifest.spec.sessions) manifest.spec.sessions.parking = "Key";
  const parsed = parseEnvironment(asStored(manifest, "agents"));
  if (!parsed.ok) throw new Error(parsed.problems.join("\n"));
  const base = { status: "True", reason: "Ready", message: "", lastTransitionTime: at(0), observedGeneration: 1 };
  const status = {
    conditions: conditions.map((condition) => ({ ...base, type: "Ready", ...condition })) as Condition[],
  };
  return { ...parsed.environment, status };
}

export function pod(
  status: PodStatus = {},
  phase: "running" | "ended" | "warm" = "running",
  annotations: Record<string, string> = {},
): Pod {
  const made = sessionTemplate(environment()).render(POD);
  const ids = phase === "warm" ? {} : { "berth.dev/work-id": WORK_ID, "berth.dev/session-id": SESSION_ID };
  return {
    ...made,
    metadata: {
      ...made.metadata,
      uid: "pod-uid",
      creationTimestamp: at(0),
      labels: { ...made.metadata.labels, "berth.dev/phase": phase },
      annotations: { ...made.metadata.annotations, ...ids, ...annotations },
    },
    spec: { ...made.spec, nodeName: "node-1" },
    status,
  };
}

/** A Pod whose shell has waited since its first second, and perhaps was assigned to its session. */
export function waitingPod(annotations: Record<string, string>): Pod {
  const isAssigned = "berth.dev/assigned-at" in annotations;
  return pod(running(1), isAssigned ? "running" : "warm", { "berth.dev/parking": "Shell", ...annotations });
}

/** A Pod whose turns started and ended at these seconds. The keeper runs since its first second. */
export function turnsPod(
  phase: "running" | "sleeping",
  turns: readonly (readonly [startSeconds: number, endSeconds?: number])[],
  annotations: Record<string, string> = {},
): Pod {
  const made = keeperPod({ name: POD, namespace: "agents", annotations, spec: { nodeName: "node-1" } });
  const statuses = turns.map(([start, end], index) => {
    const startedAt = at(start);
    const exit = { exitCode: 0, reason: "Completed", startedAt };
    const state = end === undefined ? { running: { startedAt } } : { terminated: { ...exit, finishedAt: at(end) } };
    return { name: `berth-turn-${index + 1}`, state };
  });
  return {
    ...made,
    metadata: {
      ...made.metadata,
      uid: "pod-uid",
      creationTimestamp: at(0),
      labels: { "berth.dev/phase": phase },
      annotations: { ...made.metadata.annotations, "berth.dev/session-id": SESSION_ID, ...annotations },
    },
    spec: { ...made.spec, ephemeralContainers: statuses.map(({ name }) => ({ name })) },
    status: { ...running(1), ephemeralContainerStatuses: statuses },
  };
}

/** A Pod whose session slept from the 10th to the 20th second, and runs its second work item. */
export const awakePod = (annotations: Record<string, string> = {}) =>
  turnsPod("running", [[1, 9], [11]], {
    "berth.dev/ended-turn": "1",
    "berth.dev/work-id": "work_2",
    "berth.dev/assigned-at": at(20),
    ...annotations,
  });

/** A Pod whose session sleeps since the 10th second, after its first work item. */
export const asleepPod = (annotations: Record<string, string> = {}) =>
  turnsPod("sleeping", [[1, 9], [11]], {
    ...annotations,
    "berth.dev/ended-turn": "1",
    "berth.dev/work-id": WORK_ID,
    "berth.dev/assigned-at": at(5),
    "berth.dev/sleeps-since": at(10),
    "berth.dev/sleeps-until": at(610),
  });

export const running = (seconds: number): PodStatus => ({
  phase: "Running",
  containerStatuses: [{ name: "worker", state: { running: { startedAt: at(seconds) } } }],
});

export const terminated = (
  startSeconds: number,
  endSeconds: number,
  exitCode = 0,
  reason = "Completed",
): PodStatus => ({
  phase: exitCode === 0 ? "Succeeded" : "Failed",
  containerStatuses: [
    {
      name: "worker",
      state: { terminated: { exitCode, reason, startedAt: at(startSeconds), finishedAt: at(endSeconds) } },
    },
  ],
});

export function claim(over: Partial<ClaimTrace["journal"]> = {}): ClaimTrace {
  return {
    namespace: "agents",
    pod: POD,
    turn: 0,
    journal: {
      use: "session",
      lease: "Worker",
      environmentUid: environment().metadata.uid,
      podUid: "pod-uid",
      workId: WORK_ID,
      sessionId: SESSION_ID,
      queuedAt: at(1),
      polledFromMs: Date.parse(at(2)),
      polledUntilMs: Date.parse(at(2)),
      acknowledgedAt: at(3),
      opened: true,
      ...over,
    },
  };
}

export function item(over: Partial<WorkItem> = {}, of: Environment = environment()): ItemTrace {
  return {
    environment: of,
    item: {
      id: WORK_ID,
      environment_id: of.spec.environmentId,
      state: "queued",
      data: { id: SESSION_ID, type: "session" },
      created_at: at(1),
      acknowledged_at: null,
      latest_heartbeat_at: null,
      started_at: null,
      stop_requested_at: null,
      stopped_at: null,
      metadata: {},
      ...over,
    },
  };
}

export function event(
  reason: string,
  seconds: number,
  message: string,
  kind: "Pod" | "Environment" = "Pod",
): KubeEvent {
  const name = kind === "Pod" ? POD : "research";
  return {
    metadata: { uid: `${reason}-${kind}`, namespace: "agents", creationTimestamp: at(seconds) },
    involvedObject: { kind, namespace: "agents", name },
    reason,
    message,
    lastTimestamp: at(seconds).replace(".000Z", "Z"),
  };
}

export function traces(over: Partial<Traces> = {}): Traces {
  return { asked: SESSION_ID, pods: [], claims: [], events: [], items: [], environments: [], looked: [], ...over };
}
