/** Ways in which work arrives in an Environment of either mode. */
export const WORK_COMES = [
  "work:session",
  "work:burst",
  "work:health-check",
  "work:unknown-type",
  "work:no-secret",
  "work:same-session",
  "work:message",
] as const;

/** What the platform's users may do about it. */
export const USERS = ["user:stops", "user:forces-stop", "user:deletes-session", "user:revokes-tokens"] as const;

/** What may happen to an Environment of either mode, by origin. */
export const SURROUNDINGS = [
  // The environment key.
  "key:rotated",
  "key:rejected",
  "key:wrong",
  "key:deleted",
  "key:restored",
  // The Work API and the network path to it.
  "api:5xx",
  "api:429",
  "api:reset",
  "api:lost-reply",
  "api:hang",
  "api:slow",
  "api:nonsense",
  "api:duplicate-offer",
  // The API server and the network path to it.
  "kube:reset",
  "kube:lost-reply",
  "kube:slow",
  "kube:late",
  "kube:5xx",
  "kube:429",
  "kube:conflict",
  "kube:partition",
  "watch:dropped",
  "watch:gone",
  // The operator and its machine.
  "clock:forward",
  "clock:back",
  "clock:stopped",
  "clock:suspended",
  "operator:restarted",
  "operator:killed",
  "operator:down",
  "leader:ended",
  "leader:killed",
  "leader:lease-deleted",
] as const;
