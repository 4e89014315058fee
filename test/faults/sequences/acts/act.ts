import type { Stage } from "../stage.ts";
import type { Kind } from "../steps.ts";

/** True: it took effect; undefined: whether it does is seen later, when a fault strikes or a Pod gets its fate. */
export type Struck = boolean | undefined;
/** Does what a step says. `choice` decides whatever the step leaves open. */
export type Act = (stage: Stage, choice: number) => Promise<Struck> | Struck;
/** The acts of all kinds of steps with these beginnings. */
export type Acts<Family extends string> = Readonly<Record<Extract<Kind, `${Family}:${string}`>, Act>>;

export function pick<T>(values: readonly T[], choice: number): T {
  return values[choice % values.length] as T;
}

/** How often a fault strikes. */
export const FAULT_TIMES = [1, 1, 2, 4] as const;
