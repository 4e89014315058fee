import type { Environment } from "../api/environment.ts";
import { keptFromShell } from "../api/parking-needs.ts";
import { keptFromSleep, sleepSecondsOf } from "../api/sleep-needs.ts";

/**
 * How a free Pod waits for its session:
 *
 * - `Shell`: its session container runs a shell that waits for a line on standard input (frame.ts).
 * - `Program`: its own program waits for that line.
 * - `Key`: its session container waits for a key of the claim's Secret, in CreateContainerConfigError.
 */
export type Parking = "Shell" | "Program" | "Key";

/** How an Environment's new Pods wait, and why: for its status. */
export interface ParkingChoice {
  readonly mode: Parking;
  readonly message: string;
}

/**
 * Chooses how new Pods wait.
 * @param refused why `Shell` failed in this cluster or with this image, for an Environment that leaves the choice to
 * Berth; null: it did not fail
 */
export function chooseParking({ spec }: Pick<Environment, "spec">, refused: string | null): ParkingChoice {
  const { sessions } = spec;
  if (!sessions) throw new TypeError("not an Environment with spec.sessions");
  if (sessions.parking !== undefined) return { mode: sessions.parking, message: "spec.sessions.parking sets it" };
  const why = keptFromShell(sessions.template) ?? refused;
  return why === null
    ? { mode: "Shell", message: "warm Pods wait in a shell, which starts sessions faster than a key" }
    : { mode: "Key", message: why + SLOWER };
}

const SLOWER = "; sessions start slower with a key";

/** Why an earlier process chose `Key`, from its choice in the status. */
export function whyKeyOf({ message }: ParkingChoice): string {
  return message.replace(SLOWER, "");
}

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
  parking: ParkingChoice,
  refused: string | null,
): SleepChoice | null {
  if (!sessions || sleepSecondsOf(sessions) === 0) return null;
  const waitsForKey = parking.mode === "Key" ? `sessions sleep only if Pods wait in a shell: ${parking.message}` : null;
  const why = keptFromSleep(sessions) ?? waitsForKey ?? refused;
  return why === null
    ? { enabled: true, message: "sessions sleep in their Pods between work items" }
    : { enabled: false, message: why + NO_SLEEP };
}

const NO_SLEEP = "; each work item gets a new Pod";

/** Why an earlier process did not let sessions sleep, from its choice in the status. */
export function whyAwakeOf({ message }: SleepChoice): string {
  return message.replace(NO_SLEEP, "");
}
