import { z } from "zod";
import { isolation, isolationRule } from "./isolation.ts";
import { keptFromInput, keptFromShell } from "./parking-needs.ts";
import { sessionTemplate } from "./pod-template.ts";
import { seconds, withRules } from "./rule.ts";
import { workspaceSpec } from "./workspace-spec.ts";

const DAY = 86_400;
const WEEK = 7 * DAY;
/** The deadline of a Pod is age + maxDurationSeconds + twice its grace and must fit an int32: 30 days leave room. */
const MAX_DURATION = 30 * DAY;
/** One loop serves one Environment. A larger load needs a second Environment (and a second cluster). */
export const MAX_CONCURRENT = 10_000;

const fields = z.strictObject({
  maxConcurrent: z.int32().min(1).max(MAX_CONCURRENT).meta({
    description:
      "Maximum number of Pods that are being prepared, are parked, or run a session. More work waits in the queue. Sleeping Pods do not count.",
  }),
  warm: z.int32().min(0).max(MAX_CONCURRENT).default(0).meta({
    description:
      "Number of Pods kept parked, at most maxConcurrent. 0 scales to zero. Surplus Pods are deleted after 5 minutes.",
  }),
  maxSleeping: z.int32().min(0).max(MAX_CONCURRENT).optional().meta({
    description:
      "Maximum number of sleeping Pods, which keep their requests. Beyond it, the one that has slept longest is deleted, with its files outside volumes. Default: maxConcurrent.",
  }),
  lease: z.enum(["Worker", "Operator"]).default("Worker").meta({
    description:
      "Who sends heartbeats. Worker: the program, as the SDKs' workers do. Operator: the operator, for programs without work items.",
  }),
  credential: z.enum(["WorkSecret", "EnvironmentKey"]).default("WorkSecret").meta({
    description:
      "Credential of the Pod. WorkSecret: for its session only. EnvironmentKey: for the whole environment; set it only if the environment issues no secrets for work items.",
  }),
  secretDelivery: z.enum(["Env", "File"]).default("Env").meta({
    description:
      "How the Pod gets its secret. Env: in an environment variable. File: in a file in memory; needs credential WorkSecret, and parking Shell or unset.",
  }),
  parking: z.enum(["Shell", "Program", "Key"]).optional().meta({
    description:
      "How a parked Pod waits. Shell: /bin/sh waits, then runs the template's command. Program: the program waits; if its session sleeps, only for the first work item. Key: the kubelet waits for a Secret's key, in CreateContainerConfigError; sessions do not sleep. Default: Shell if the template and the cluster allow it, else Key.",
  }),
  prepareTimeoutSeconds: seconds(
    600,
    1,
    DAY,
    "Seconds that a Pod on a node has to get ready. Then it is replaced, with backoff. Raise it if images take longer to pull.",
  ),
  firstBeatTimeoutSeconds: seconds(
    60,
    1,
    3600,
    "Seconds that a container with a session has to start, and then, with lease Worker, to send its first heartbeat. Then the session fails. Raise it if your program needs longer to load.",
  ),
  parkedMaxAgeSeconds: z.int32().min(0).max(WEEK).optional().meta({
    description: "Age at which a parked Pod is replaced. 0: never. Default: 600 with parking Key, else 0.",
  }),
  maxDurationSeconds: seconds(86_400, 1, MAX_DURATION, "Seconds after which a work item is stopped."),
  retainFinishedSeconds: seconds(
    600,
    0,
    WEEK,
    "Seconds to keep a finished Pod for its logs. Of finished and failed Pods, the newest 100 are kept.",
  ),
  retainFailedSeconds: seconds(3600, 0, WEEK, "Seconds to keep a failed Pod for its logs."),
  onPodFailure: z.enum(["Stop", "Release"]).default("Stop").meta({
    description:
      "What happens to a work item whose Pod died without stopping it. Stop: it is stopped. Release: it returns to the queue and runs again, up to three times, then is stopped.",
  }),
  disruption: z.enum(["Allow", "Protect"]).default("Allow").meta({
    description:
      "Whether voluntary evictions wait for running sessions. Protect blocks node drains for up to maxDurationSeconds. Sleeping Pods are not protected.",
  }),
  isolation,
  workspace: workspaceSpec,
  template: sessionTemplate,
});

/** The template must permit the way to park that is set. CEL can't check it at a bearable cost. */
function parkingProblem({ value, issues }: z.core.ParsePayload<z.output<typeof fields>>): void {
  const { parking, secretDelivery, template } = value;
  const waitsInShell = parking === "Shell" || (parking === undefined && secretDelivery === "File");
  const why = waitsInShell ? keptFromShell(template) : parking === "Program" ? keptFromInput(template) : null;
  if (why === null) return;
  const field = parking === undefined ? "secretDelivery" : "parking";
  const [set, instead] =
    parking === undefined ? ["File needs parking Shell, which", "secretDelivery: Env"] : [parking, "parking: Key"];
  const message = `${set} is not possible: ${why}; change that, or set ${instead}`;
  issues.push({ code: "custom", input: value[field], path: [field], message });
}

/** `spec.sessions`: a Pod per session. */
export const sessionsSpec = withRules(
  fields.check(parkingProblem).meta({
    description: "Serves each session in its own Pod. Set either sessions or workers. You cannot exchange them later.",
  }),
  [
    {
      cel: "self.warm <= self.maxConcurrent",
      field: "warm",
      message: "warm must not be greater than maxConcurrent; lower warm, or raise maxConcurrent",
      holds: ({ warm, maxConcurrent }) => warm <= maxConcurrent,
    },
    {
      cel: "self.secretDelivery != 'File' || !has(self.parking) || self.parking == 'Shell'",
      field: "parking",
      message: "secretDelivery File needs parking Shell, which writes the file; set Shell, or remove parking",
      holds: ({ secretDelivery, parking }) => secretDelivery !== "File" || parking === undefined || parking === "Shell",
    },
    {
      cel: "self.secretDelivery != 'File' || self.credential == 'WorkSecret'",
      field: "secretDelivery",
      message: "secretDelivery File works only with credential WorkSecret; set secretDelivery: Env",
      holds: ({ secretDelivery, credential }) => secretDelivery !== "File" || credential === "WorkSecret",
    },
    isolationRule,
  ],
);
export type SessionsSpec = z.output<typeof sessionsSpec>;
