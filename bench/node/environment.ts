import { isInvalid } from "../../src/kube/errors.ts";
import type { Served } from "../support/stand.ts";
import type { Inside } from "./inside.ts";
import { type Requests, WAITING_COMMAND, WORKER_COMMAND, workerContainer } from "./worker.ts";

/** Fields of `spec.sessions`. */
export interface SessionsInput {
  readonly warm: number;
  readonly maxConcurrent: number;
  readonly parking?: "Key" | "Shell" | "Program";
  readonly isolation?: "gVisor";
  readonly maxSleeping?: number;
  readonly workspace?: Readonly<Record<string, unknown>>;
}

/** Creates an Environment whose sessions the worker serves. False: the operator doesn't have this way of parking. */
export async function createEnvironment(
  { stand, node }: Inside<unknown>,
  served: Served,
  sessions: SessionsInput,
  requests?: Requests,
): Promise<boolean> {
  const isProgram = sessions.parking === "Program";
  const command = isProgram ? WAITING_COMMAND : WORKER_COMMAND;
  const template = { spec: { terminationGracePeriodSeconds: 5, containers: [workerContainer(command, requests)] } };
  try {
    await stand.environment(served, {
      network: { egress: { cidrs: [`${node.address}/32`] } },
      // Waiting Pods are replaced at a certain age, and the replacement would disturb a measurement.
      sessions: { retainEndedSeconds: 0, parkedMaxAgeSeconds: 0, ...sessions, template },
    });
    return true;
  } catch (error) {
    if (isInvalid(error)) return false;
    throw error;
  }
}
