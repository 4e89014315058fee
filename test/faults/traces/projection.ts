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

export function project(trace: readonly Entry[], workId: string): Projection {
  const entries = byTurn(trace, workId);
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

/**
 * An item that returned to the queue may run in the same Pod again, in a later turn. To the model of one item, each
 * turn is a Pod of its own.
 */
function byTurn(entries: readonly Entry[], workId: string): readonly Entry[] {
  /** By Pod: the number of the item's turns in it, and whether the last one has ended. */
  const turns = new Map<string, { count: number; hasEnded: boolean }>();
  return entries.map((entry) => {
    if (entry.is !== "point" && entry.is !== "over") return entry;
    const { environment, pod } = entry.is === "point" ? entry.event : entry;
    if (pod === undefined) return entry;
    const key = `${environment}/${pod}`;
    const turn = turns.get(key) ?? { count: 1, hasEnded: false };
    turns.set(key, turn);
    if (entry.is === "point" && entry.event.workId === workId && entry.event.phase === "before") {
      if (entry.event.point === "session.sleep") turn.hasEnded = true;
      if (entry.event.point === "claim.journal" && turn.hasEnded) {
        turn.count += 1;
        turn.hasEnded = false;
      }
    }
    if (turn.count === 1) return entry;
    const named = { pod: `${pod} (turn ${turn.count} of the item)` };
    return entry.is === "point" ? { ...entry, event: { ...entry.event, ...named } } : { ...entry, ...named };
  });
}

/** Calls are numbered per operator. */
export function callOf({ operator, call }: PointEvent): string {
  return `${operator} ${call}`;
}

function points(entries: readonly Entry[]): PointEvent[] {
  return entries.flatMap((entry) => (entry.is === "point" ? entry.event : []));
}
