import { isInvalid } from "../../src/kube/errors.ts";
import type { Served } from "../support/stand.ts";
import type { Inside } from "./inside.ts";
import { type Requests, WAITING_COMMAND, WORKER_COMMAND, workerContainer } from "./worker.ts";

/** Fields of `spec.sessions`. */
export interface SessionsInput {
  readonly warm: number;
  readonly maxConcurrent: number;
  readonly preload?: boolean;
  readonly isolation?: "gVisor";
  readonly maxSleeping?: number;
  readonly workspace?: Readonly<Record<string, unknown>>;
}

/** Creates an Environment whose sessions the worker serves. False: the operator doesn't have one of the fields. */
export async function createEnvironment(
  { stand, node }: Inside<unknown>,
  served: Served,
  sessions: SessionsInput,
  requests?: Requests,
): Promise<boolean> {
  const command = sessions.preload ? WAITING_COMMAND : WORKER_COMMAND;
  const template = { spec: { terminationGracePeriodSeconds: 5, containers: [workerContainer(command, requests)] } };
  try {
    await stand.environment(served, {
      network: { egress: { cidrs: [`${node.address}/32`] } },
      sessions: { retainEndedSeconds: 0, ...sessions, template },
    });
    return true;
  } catch (error) {
    if (isInvalid(error)) return false;
    throw error;
  }
}
