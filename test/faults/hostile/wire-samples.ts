import { BEAT, POLLED, STARTING, STATS } from "../../work/samples.ts";

/** The calls that the loops make, each with a valid answer. */
export const GOOD: Readonly<Record<string, unknown>> = {
  poll: POLLED,
  ack: STARTING,
  heartbeat: BEAT,
  stop: STARTING,
  stats: STATS,
  list: { data: [STARTING], next_page: null },
};

/** The call of a request: the last segment of its path; `list` for the collection itself. */
export function callOf(url: string): string {
  const last = url.split("?")[0]?.split("/").at(-1) ?? "";
  return last === "work" ? "list" : last;
}
