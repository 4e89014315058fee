import { type GatherOptions, gather } from "./gather.ts";
import { idsOf } from "./ids.ts";
import { type Entry, timelineOf } from "./timeline.ts";
import type { Looked } from "./traces.ts";
import { type Verdict, verdictOf } from "./verdict.ts";

/** What happened to a session: all that is known of it. */
export interface Story {
  readonly asked: string;
  /** All names that were found for it. */
  readonly sessions: readonly string[];
  readonly workItems: readonly string[];
  readonly pods: readonly string[];
  /** As `namespace/name`. */
  readonly environments: readonly string[];
  readonly timeline: readonly Entry[];
  readonly verdict: Verdict;
  readonly looked: readonly Looked[];
}

/** Finds all that is left of a session, and tells it in the order in which it happened. */
export async function explain(options: GatherOptions): Promise<Story> {
  const traces = await gather(options);
  const { sessions, items, pods } = idsOf(traces);
  return {
    asked: traces.asked,
    sessions: [...sessions],
    workItems: [...items],
    pods: [...pods],
    environments: traces.environments.map(({ metadata }) => `${metadata.namespace}/${metadata.name}`),
    timeline: timelineOf(traces),
    verdict: verdictOf(traces),
    looked: traces.looked,
  };
}
