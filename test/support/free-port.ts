import { freePort as freePortOf } from "../../testbed/cluster/ports.ts";

/** A port that was free on every interface a moment ago. */
export function freePort(): Promise<number> {
  return freePortOf("");
}
