import type { ContainerState, Pod } from "../../src/kube/resource.ts";

// Worker Pods for tests.

/** A worker Pod in the API server's form. */
export interface PodOptions {
  readonly uid?: string;
  readonly hash?: string;
  readonly ready?: boolean;
  readonly state?: ContainerState;
  readonly restarts?: number;
  readonly cost?: string;
  readonly ending?: boolean;
  readonly phase?: string;
  readonly ip?: string | null;
}

/** A running, Ready worker, unless the options say otherwise. */
export function podOf(name: string, options: PodOptions = {}): Pod {
  const { uid = `uid-${name}`, hash = "h1", ready = true, restarts = 0, phase = "Running", ip = "10.0.0.1" } = options;
  const { state = { running: { startedAt: "2030-01-01T00:00:00Z" } }, cost, ending = false } = options;
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name,
      namespace: "agents",
      uid,
      labels: { "berth.dev/environment": "research", "berth.dev/role": "worker", "berth.dev/template-hash": hash },
      annotations: {
        "berth.dev/session-container": "worker",
        ...(cost === undefined ? {} : { "controller.kubernetes.io/pod-deletion-cost": cost }),
      },
      ...(ending ? { deletionTimestamp: "2030-01-01T00:00:00Z" } : {}),
    },
    spec: { containers: [{ name: "worker" }] },
    status: {
      phase,
      ...(ip === null ? {} : { podIP: ip }),
      conditions: [{ type: "Ready", status: ready ? "True" : "False" }],
      containerStatuses: [{ name: "worker", state, restartCount: restarts }],
    },
  };
}
