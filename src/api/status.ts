import { z } from "zod";
import { MAX_CONDITION_MESSAGE } from "./conditions.ts";

/** More than the number of condition types, and few enough to read. */
const MAX_CONDITIONS = 32;
const MAX_TYPE = 316;
const MAX_REASON = 1024;

/** Each is a former spec.api.baseUrl with sessions left when it changed. Bounded, because a status is no log. */
export const MAX_API_ADDRESSES = 16;
const MAX_URL = 512;

const count = (description: string) => z.int32().min(0).meta({ description });
const time = (description: string) => z.string().meta({ description, format: "date-time" });

const apiAddress = z.string().max(MAX_URL).meta({ description: "As spec.api.baseUrl is, or was." });

const condition = z
  .object({
    type: z.string().max(MAX_TYPE).meta({ description: "What the condition is about." }),
    status: z.enum(["True", "False", "Unknown"]).meta({ description: "Whether it is so." }),
    reason: z.string().min(1).max(MAX_REASON).meta({ description: "Why, in one word of a closed list." }),
    message: z.string().max(MAX_CONDITION_MESSAGE).meta({ description: "Why, in words for a person, with the fix." }),
    lastTransitionTime: time("Since when the status is what it is."),
    observedGeneration: z.int().min(0).meta({ description: "Generation of the spec that the condition speaks of." }),
  })
  .meta({ description: "A condition." });

const queueStatus = z
  .object({
    depth: count("Work items waiting to be picked up."),
    pending: count("Work items polled but not acknowledged yet."),
    oldestQueuedAt: time("When the oldest waiting item was queued; absent when none waits.").optional(),
    workersPolling: count("Pollers seen in the last 30 seconds, as far as the Work API says.").optional(),
  })
  .meta({ description: "The queue, as the Work API's statistics say it." });

export const sessionsStatus = z
  .object({
    warm: count("Pods parked and free."),
    preparing: count("Pods on their way to being parked."),
    opening: count("Pods claimed whose program does not run yet."),
    active: count("Pods whose session runs."),
    stopping: count("Pods whose session is being ended."),
    sleeping: count("Pods whose session sleeps until its next work item.").optional(),
    finished: count("Pods of ended sessions, kept for their logs."),
  })
  .meta({ description: "Session Pods by phase." });

const parkingStatus = z
  .object({
    mode: z.enum(["Shell", "Program", "Key"]).meta({ description: "How new warm Pods wait." }),
    message: z.string().max(MAX_CONDITION_MESSAGE).meta({ description: "Why they wait like this." }),
    failure: z.string().max(MAX_CONDITION_MESSAGE).optional().meta({
      description: "What failed when a Pod waited in a shell; tried again when the spec changes.",
    }),
  })
  .meta({ description: "How warm Pods wait for their session." });

const sleepStatus = z
  .object({
    enabled: z.boolean().meta({ description: "Whether new Pods are made so that their session can sleep." }),
    message: z.string().max(MAX_CONDITION_MESSAGE).meta({ description: "Why sessions sleep, or why they don't." }),
    failure: z.string().max(MAX_CONDITION_MESSAGE).optional().meta({
      description: "What failed when a session was made able to sleep; tried again when the spec changes.",
    }),
  })
  .meta({ description: "Whether sessions sleep in their Pod between work items." });

const workersStatus = z
  .object({
    desired: count("Workers wanted."),
    replicas: count("Workers that exist."),
    ready: count("Workers that are ready."),
    busy: count("Workers seen busy by the busyProbe."),
  })
  .meta({ description: "Workers by state." });

const workspacesStatus = z
  .object({ volumes: count("Volumes of sessions, in use or kept for the next work item.") })
  .meta({ description: "Volumes of sessions, with workspace PerSession." });

/**
 * `status`. Unknown fields are dropped: the operator writes the status, and a newer version's fields must not stop it.
 */
export const environmentStatus = z
  .object({
    observedGeneration: z.int().min(0).optional().meta({
      description: "Generation of the spec that this status speaks of.",
    }),
    mode: z.enum(["Sessions", "Workers"]).optional().meta({
      description: "Sessions (a Pod per session) or Workers (always-on workers).",
    }),
    max: count("Most Pods or workers at a time, as the spec says.").optional(),
    conditions: z
      .array(condition)
      .max(MAX_CONDITIONS)
      .optional()
      .meta({
        description: "What stands well and what does not.",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
      }),
    apiAddresses: z.array(apiAddress).max(MAX_API_ADDRESSES).optional().meta({
      description:
        "Addresses of the Work API that claims may name: that of the spec, and earlier ones while claims of them are left. A claim that names another is sent no key.",
      "x-kubernetes-list-type": "atomic",
    }),
    queue: queueStatus.optional(),
    sessions: sessionsStatus.optional(),
    parking: parkingStatus.optional(),
    sleep: sleepStatus.optional(),
    workers: workersStatus.optional(),
    workspaces: workspacesStatus.optional(),
  })
  .meta({ description: "What the operator sees; written by it alone." });

export type EnvironmentStatus = z.output<typeof environmentStatus>;
export type QueueStatus = z.output<typeof queueStatus>;
export type SessionsStatus = z.output<typeof sessionsStatus>;
export type WorkersStatus = z.output<typeof workersStatus>;
export type WorkspacesStatus = z.output<typeof workspacesStatus>;
