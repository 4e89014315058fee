/**
 * What to use instead of a removed field, flag or command, or why it is gone. CHANGELOG.md has the same lines, and those
 * of chart values, which the chart's schema has.
 */
export const REMOVED_NAMES: Readonly<Record<string, string>> = {
  "spec.api.requestTimeoutSeconds": "removed; the timeout is always 10 s",
  "spec.sessions.retainFinishedLimit": "removed; Berth always keeps the newest 100 ended Pods",
  "spec.sessions.retainFinishedSeconds": "renamed to retainEndedSeconds",
  "spec.sessions.secretDelivery":
    "removed; to keep the secret out of the environment, let the program read it from standard input (parking: Program)",
  "spec.sessions.warmScaleDownSeconds": "removed; surplus warm Pods are always deleted after 5 minutes",
  "--protocol-timeout": "removed; the timeout is always 1.5 s",
  "--check-key": "removed from berth doctor; read the conditions Authenticated and QueueReachable",
  "--allowed-in-templates": "removed from berth doctor; read the condition TemplateAccepted",
  "berth check": "use berth doctor --deployment NAMESPACE/NAME",
};
