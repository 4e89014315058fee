import type { Stage } from "../stage.ts";

/** True: it took effect; undefined: whether it does is seen later, when a fault strikes or a Pod gets its fate. */
export type Struck = boolean | undefined;
/** Does what a step says. `choice` decides whatever the step leaves open. */
export type Act<Played extends Stage = Stage> = (stage: Played, choice: number) => Promise<Struck> | Struck;
/** Acts by the kinds of steps that they are of. */
export type Acts<Kind extends string, Played extends Stage = Stage> = Readonly<Record<Kind, Act<Played>>>;

export function pick<T>(values: readonly T[], choice: number): T {
  return values[choice % values.length] as T;
}

/** How often a fault strikes. */
export const FAULT_TIMES = [1, 1, 2, 4] as const;
