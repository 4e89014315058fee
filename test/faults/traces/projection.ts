import type { PointEvent } from "../../../src/core/points.ts";
import type { Entry } from "./trace.ts";

/** The part of a trace that is about one item. */
export interface Projection {
  readonly workId: string;
  readonly entries: readonly Entry[];
  /** `namespace/name`, in the model's order of operators. One operator at a time serves each. */
  readonly environments: readonly string[];
  /** By Environment, the Pods that the item was journaled for, in the model's order. */
  readonly pods: readonly (readonly string[])[];
}

/** Points without a work id: deletions of parked and of finished Pods. */
const DELETIONS = new Set(["removal.delete-pod", "retention.delete-pod"]);

export function project(entries: readonly Entry[], workId: string): Projection {
  const pods = new Map<string, Set<string>>();
  for (const event of points(entries)) {
    if (event.workId !== workId || event.point !== "claim.journal" || event.pod === undefined) continue;
    pods.set(event.environment, (pods.get(event.environment) ?? new Set()).add(event.pod));
  }
  const polls = new Set(
    points(entries)
      .filter(
        ({ point, phase, details }) => point === "claim.poll" && phase === "after" && details["workId"] === workId,
      )
      .map(callOf),
  );
  const isAbout = (event: PointEvent) =>
    event.workId === workId ||
    (event.point === "sweep.list" && pods.has(event.environment)) ||
    polls.has(callOf(event)) ||
    (DELETIONS.has(event.point) && pods.get(event.environment)?.has(event.pod ?? ""));
  return {
    workId,
    entries: entries.filter((entry) => {
      if (entry.is === "point") return isAbout(entry.event);
      if (entry.is === "over") return pods.get(entry.environment)?.has(entry.pod);
      return entry.is === "allowed" || pods.has(entry.environment);
    }),
    environments: [...pods.keys()],
    pods: [...pods.values()].map((names) => [...names]),
  };
}

/** Calls are numbered per operator. */
export function callOf({ operator, call }: PointEvent): string {
  return `${operator} ${call}`;
}

function points(entries: readonly Entry[]): PointEvent[] {
  return entries.flatMap((entry) => (entry.is === "point" ? entry.event : []));
}
