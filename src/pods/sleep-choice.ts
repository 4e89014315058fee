import type { Environment } from "../api/environment.ts";
import { keptFromSleep, sleepSecondsOf } from "../api/sleep-needs.ts";

/** Whether the sessions of new Pods sleep between work items, and why: for an Environment's status. */
export interface SleepChoice {
  readonly enabled: boolean;
  readonly message: string;
}

/**
 * Decides whether the sessions of new Pods sleep; null: the spec doesn't ask for it.
 * @param refused why turns can't be added to Pods in this cluster or with this image; null: they can
 */
export function chooseSleep(
  { spec: { sessions } }: Pick<Environment, "spec">,
  refused: string | null,
): SleepChoice | null {
  if (!sessions || sleepSecondsOf(sessions) === 0) return null;
  const why = keptFromSleep(sessions) ?? refused;
  return why === null
    ? { enabled: true, message: "sessions sleep in their Pods between work items" }
    : { enabled: false, message: why + NO_SLEEP };
}

const NO_SLEEP = "; each work item gets a new Pod";

/** Why an earlier process did not let sessions sleep, from its choice in the status. */
export function whyAwakeOf({ message }: SleepChoice): string {
  return message.replace(NO_SLEEP, "");
}
