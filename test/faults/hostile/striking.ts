import type { World } from "../../support/world.ts";
import { readFaultSettings } from "../support/settings.ts";
import type { Inputs } from "./inputs.ts";
import type { Answered, Passing, Strike } from "./mutating-proxy.ts";
import type { WatchedOperator } from "./watched-operator.ts";

/** Limit of a wait while inputs are struck. The long run has many times as many inputs. */
export const STRIKING_PATIENCE_MS = readFaultSettings().long ? 3_600_000 : 600_000;

/**
 * Strikes requests with the next input for their call. By default it strikes every second request of a call, so that
 * work continues in between; `always` selects calls of which it strikes every request.
 * @param callOf names the call of a request
 */
export function striking<T>(
  inputs: Inputs<T>,
  callOf: (passing: Passing) => string,
  strike: (input: T, passing: Passing) => Strike,
  always: (call: string) => boolean = () => false,
) {
  const seen = new Map<string, number>();
  return (passing: Passing): Strike | undefined => {
    const call = callOf(passing);
    const count = (seen.get(call) ?? 0) + 1;
    seen.set(call, count);
    const input = always(call) || count % 2 === 0 ? inputs.take(call) : undefined;
    return input === undefined ? undefined : strike(input, passing);
  };
}

/** Keeps this number of items waiting or running until all inputs are used. */
export async function untilUsed(
  world: World,
  operator: WatchedOperator,
  inputs: Inputs<unknown>,
  { seed, items }: { readonly seed: number; readonly items: number },
): Promise<void> {
  const { simulator, environmentId } = world;
  try {
    await world.until(
      "all inputs used",
      () => {
        operator.assertAlive();
        const live = simulator.items(environmentId).filter(({ state }) => state !== "stopped").length;
        if (!inputs.isEmpty) for (let i = live; i < items; i += 1) simulator.enqueue(environmentId);
        return inputs.isEmpty;
      },
      STRIKING_PATIENCE_MS,
    );
  } catch (error) {
    const last = inputs.used.slice(-10).join("\n");
    throw new Error(`seed ${seed}; left: ${JSON.stringify(inputs.left)}; the last ones used:\n${last}`, {
      cause: error,
    });
  }
}

/** The parsed JSON of an answer; an empty object if there is none. */
export function parsed(good: Answered | null): unknown {
  try {
    return JSON.parse(good?.body.toString() ?? "");
  } catch {
    return {};
  }
}
