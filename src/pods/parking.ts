import type { Environment, PodTemplate, SessionsSpec } from "../api/environment.ts";
import { keptFromShell } from "../api/parking-needs.ts";

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
  if (sessions.parking !== undefined) return { mode: sessions.parking, message: "as spec.sessions.parking says" };
  const why = whyKey(sessions, refused);
  return why === null
    ? { mode: "Shell", message: "warm Pods wait in a shell, which starts sessions faster than a key" }
    : { mode: "Key", message: why + SLOWER };
}

const SLOWER = "; sessions start slower with a key";

/** Why an earlier process chose `Key`, from its choice in the status. */
export function whyKeyOf({ message }: ParkingChoice): string {
  return message.replace(SLOWER, "");
}

function whyKey({ template, secretDelivery }: SessionsSpec, refused: string | null): string | null {
  // Only a shell can write the file.
  if (secretDelivery === "File") return null;
  return keptFromShell(template as PodTemplate) ?? refused;
}
