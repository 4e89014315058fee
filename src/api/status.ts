import { z } from "zod";
import { MAX_CONDITION_MESSAGE } from "./conditions.ts";

/** More than the number of condition types, and few enough to read. */
const MAX_CONDITIONS = 32;
const MAX_TYPE = 316;
const MAX_REASON = 1024;

/** A new object's generation. Without one, kstatus takes an object without conditions for a finished one. */
const NOT_OBSERVED = -1;

const count = (description: string) => z.int32().min(0).meta({ description });
const time = (description: string) => z.string().meta({ description, format: "date-time" });

const condition = z
  .object({
    type: z.string().max(MAX_TYPE).meta({ description: "Type of the condition." }),
    status: z.enum(["True", "False", "Unknown"]).meta({ description: "Status of the condition." }),
    reason: z.string().min(1).max(MAX_REASON).meta({ description: "Reason, from a closed list." }),
    message: z.string().max(MAX_CONDITION_MESSAGE).meta({ description: "Cause in words, with the fix." }),
    lastTransitionTime: time("When the status last changed."),
    observedGeneration: z.int().min(0).meta({ description: "Generation of the spec that the condition describes." }),
  })
  .meta({ description: "A condition." });

const queueStatus = z
  .object({
    depth: count("Waiting work items."),
    pending: count("Work items polled but not acknowledged."),
    oldestQueuedAt: time("When the oldest waiting item was queued.").optional(),
    workersPolling: count("Pollers in the last 30 seconds, if the Work API reports them.").optional(),
  })
  .meta({ description: "From the Work API's statistics." });

export const sessionsStatus = z
  .object({
    preparing: count("Pods that are not ready for a session yet."),
    warm: count("Pods that are ready and wait for a session."),
    running: count("Pods that have a session, from its claim on."),
    stopping: count("Pods whose session ends or is being stopped."),
    sleeping: count("Pods that keep their session's files until its next work item.").optional(),
    ended: count("Pods of ended sessions, kept for their logs."),
  })
  .meta({ description: "Session Pods by state." });

const parkingStatus = z
  .object({
    mode: z.enum(["Shell", "Program", "Key"]).meta({ description: "How new Pods wait." }),
    message: z.string().max(MAX_CONDITION_MESSAGE).meta({ description: "Why they wait this way." }),
    failure: z.string().max(MAX_CONDITION_MESSAGE).optional().meta({
      description: "What failed when a Pod waited in a shell. Berth tries again when the spec changes.",
    }),
  })
  .meta({ description: "How warm Pods wait." });

const sleepStatus = z
  .object({
    enabled: z.boolean().meta({ description: "Whether sessions of new Pods sleep." }),
    message: z.string().max(MAX_CONDITION_MESSAGE).meta({ description: "Why they sleep, or why they do not." }),
    failure: z.string().max(MAX_CONDITION_MESSAGE).optional().meta({
      description: "What the cluster refused. Berth tries again when the spec changes.",
    }),
  })
  .meta({ description: "Whether sessions sleep in their Pod." });

const workersStatus = z
  .object({
    desired: count("Desired number of workers."),
    replicas: count("Existing workers."),
    ready: count("Ready workers."),
    busy: count("Workers that the busyProbe reports as busy."),
  })
  .meta({ description: "Workers by state." });

const workspacesStatus = z
  .object({ volumes: count("Volumes of sessions, in use or kept.") })
  .meta({ description: "With workspace type PerSession." });

/**
 * `status`. Unknown fields are dropped: the operator writes the status, and a newer version's fields must not stop it.
 */
export const environmentStatus = z
  .object({
    observedGeneration: z.int().min(NOT_OBSERVED).optional().meta({
      description: "Generation of the spec that the status describes. -1: no operator has read it yet.",
    }),
    mode: z.enum(["Sessions", "Workers"]).optional().meta({
      description: "Whether the spec has sessions or workers.",
    }),
    max: count("The spec's maxConcurrent or maxReplicas.").optional(),
    conditions: z
      .array(condition)
      .max(MAX_CONDITIONS)
      .optional()
      .meta({
        description: "Conditions of the Environment.",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
      }),
    queue: queueStatus.optional(),
    sessions: sessionsStatus.optional(),
    parking: parkingStatus.optional(),
    sleep: sleepStatus.optional(),
    workers: workersStatus.optional(),
    workspaces: workspacesStatus.optional(),
  })
  .meta({
    description: "The observed state, written by the operator.",
    default: { observedGeneration: NOT_OBSERVED },
  });

export type EnvironmentStatus = z.output<typeof environmentStatus>;
export type QueueStatus = z.output<typeof queueStatus>;
export type SessionsStatus = z.output<typeof sessionsStatus>;
export type WorkersStatus = z.output<typeof workersStatus>;
export type WorkspacesStatus = z.output<typeof workspacesStatus>;
