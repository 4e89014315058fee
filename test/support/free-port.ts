import { freePort as freePortOf } from "../../testbed/cluster/ports.ts";

/** A port that was free on every interface just now. */
export function freePort(): Promise<number> {
  return freePortOf("");
}
