import type { Stage } from "../stage.ts";

/** True if it took effect; undefined if that shows only later, when a fault strikes or a Pod gets its fate. */
export type Struck = boolean | undefined;
/** Does what a step says. `choice` decides everything that the step leaves open. */
export type Act<Played extends Stage = Stage> = (stage: Played, choice: number) => Promise<Struck> | Struck;
/** Acts by the kind of step. */
export type Acts<Kind extends string, Played extends Stage = Stage> = Readonly<Record<Kind, Act<Played>>>;

export function pick<T>(values: readonly T[], choice: number): T {
  return values[choice % values.length] as T;
}

/** How many requests a fault affects. */
export const FAULT_TIMES = [1, 1, 2, 4] as const;
