import { REASONS } from "../../../src/api/condition-reasons.ts";
import type { Environment } from "../../../src/api/environment.ts";
import type { World } from "../../support/world.ts";

/** Valid specs that together set every part. */
export function bases(world: World): unknown[] {
  const plain = world.spec();
  const { sessions, ...common } = plain;
  const { template } = sessions as { template: Record<string, unknown> };
  const { containers, ...podSpec } = template["spec"] as { containers: Record<string, unknown>[] };
  const [container] = containers;
  const withCommand = { ...template, spec: { ...podSpec, containers: [{ ...container, command: ["worker"] }] } };
  const full = {
    ...(sessions as object),
    lease: "Operator",
    parking: "Shell",
    template: withCommand,
    disruption: "Protect",
    onPodFailure: "Release",
    warm: 2,
  };
  const workers = {
    minReplicas: 1,
    maxReplicas: 3,
    sessionsPerReplica: 2,
    behavior: {
      scaleDown: { stabilizationWindowSeconds: 1, policies: [{ type: "Pods", value: 1, periodSeconds: 15 }] },
    },
    busyProbe: { httpGet: { path: "/busy", port: 9000 } },
    template,
  };
  return [plain, { ...common, sessions: full }, { ...common, workers }, { ...common, paused: true, sessions }];
}

/** What is wrong with the status of an Environment that the operator has reconciled; null if nothing is. */
export function unclear({ metadata, status }: Environment): string | null {
  const ready = status?.conditions?.find(({ type }) => type === "Ready");
  if (!ready || status?.observedGeneration !== metadata.generation) return "no word about it";
  for (const { type, reason, message } of status.conditions ?? []) {
    if (!Object.hasOwn(REASONS, reason)) return `${type} has the reason ${reason}, of no list`;
    if (message.trim().length < 10) return `${type}=${reason} says only "${message}"`;
  }
  return ready.reason === "Pending" ? "pending" : null;
}
