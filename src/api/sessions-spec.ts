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
      "Maximum number of preparing, warm, running and stopping Pods together. More work waits in the queue. Sleeping and ended Pods do not count. Set it to what your cluster or budget allows.",
  }),
  warm: z.int32().min(0).max(MAX_CONCURRENT).default(0).meta({
    description:
      "Number of warm Pods to keep for sessions to come, at most maxConcurrent. They keep their requests. Set it to the number of sessions that you expect to start at the same time. 0: each session waits for its Pod. Surplus Pods are deleted after 5 minutes.",
  }),
  maxSleeping: z.int32().min(0).max(MAX_CONCURRENT).optional().meta({
    description:
      "Maximum number of sleeping Pods, which keep their requests. Beyond it, the one that has slept longest is deleted, and its files are lost, except those on a volume. Lower it if sleeping Pods take too much room. Default: maxConcurrent.",
  }),
  lease: z.enum(["Worker", "Operator"]).default("Worker").meta({
    description:
      "Who sends the heartbeats that keep a work item claimed. Worker: the program, as the SDKs' workers do. Operator: the operator. Set it only if your program sends none, such as the SDKs' session tool runner; the SDKs' workers serve nothing with it.",
  }),
  credential: z.enum(["WorkSecret", "EnvironmentKey"]).default("WorkSecret").meta({
    description:
      "Credential that the program gets. WorkSecret: the secret of its work item, for its session only. EnvironmentKey: the key of the whole environment. Set it only if work items come without a secret, which the condition CredentialMissing reports.",
  }),
  parking: z.enum(["Shell", "Program", "Key"]).optional().meta({
    description:
      "How a warm Pod waits. Shell: /bin/sh waits, then runs the template's command. Program: the program waits; if its session sleeps, only for the first work item. Key: the kubelet waits for a Secret's key, in CreateContainerConfigError; sessions do not sleep. Set it if your program starts slowly (Program), or to rule out the others. Default: Shell if the template and the cluster allow it, else Key.",
  }),
  prepareTimeoutSeconds: seconds(
    600,
    1,
    DAY,
    "Seconds that a preparing Pod has to get warm, from its assignment to a node. Then it is replaced, with backoff. Raise it if images take longer to pull.",
  ),
  firstBeatTimeoutSeconds: seconds(
    60,
    1,
    3600,
    "Seconds that the container of a running Pod has to start, and then, with lease Worker, to send its first heartbeat. Then the session fails. Raise it if your program needs longer to load.",
  ),
  parkedMaxAgeSeconds: z.int32().min(0).max(WEEK).optional().meta({
    description:
      "Seconds after which a warm Pod is replaced, from its assignment to a node. 0: never. Set it if what a Pod loads at its start gets outdated, such as a token. Default: 600 with parking Key, else 0.",
  }),
  maxDurationSeconds: seconds(
    86_400,
    1,
    MAX_DURATION,
    "Seconds that a work item can run. Then Berth stops it, and the session fails. Each item of a session starts at 0 when it gets its Pod. Raise it for messages that take days; lower it to limit what a stuck program costs.",
  ),
  retainEndedSeconds: seconds(
    600,
    0,
    WEEK,
    "Seconds from a session's end to the deletion of its Pod, if the session did not fail. Raise it to read logs that nothing collects. 0: at once. Only the newest 100 ended Pods are kept, failed ones included.",
  ),
  retainFailedSeconds: seconds(
    3600,
    0,
    WEEK,
    "The same for sessions that failed. Raise it to have more time to look for the cause.",
  ),
  onPodFailure: z.enum(["Stop", "Release"]).default("Stop").meta({
    description:
      "What happens to a work item whose Pod died without stopping it. Stop: it is stopped, and its message gets no answer. Release: it returns to the queue and runs again, up to three times, then is stopped. Set Release if your program can serve the same message again in a new Pod: commands may run twice, and only files on a volume are left.",
  }),
  disruption: z.enum(["Allow", "Protect"]).default("Allow").meta({
    description:
      "Whether voluntary evictions, such as node drains, end running sessions. Allow: they do. Protect: they wait, for up to maxDurationSeconds. Sleeping Pods are not protected. Set Protect if sessions matter more than quick drains.",
  }),
  isolation,
  workspace: workspaceSpec,
  template: sessionTemplate,
});

/** The template must permit the way to park that is set. CEL can't check it at a bearable cost. */
function parkingProblem({ value, issues }: z.core.ParsePayload<z.output<typeof fields>>): void {
  const { parking, template } = value;
  const why = parking === "Shell" ? keptFromShell(template) : parking === "Program" ? keptFromInput(template) : null;
  if (why === null) return;
  const message = `${parking} is not possible: ${why}; change that, or set parking: Key`;
  issues.push({ code: "custom", input: parking, path: ["parking"], message });
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
    isolationRule,
  ],
);
export type SessionsSpec = z.output<typeof sessionsSpec>;
