import type { PointEvent } from "../../../src/core/points.ts";
import type { Entry } from "./trace.ts";

/** An entry about one session. */
export type SessionEntry =
  | Exclude<Entry, { readonly is: "point" | "over" }>
  | {
      readonly is: "point";
      readonly event: PointEvent;
      /** The index of its work item; -1: it is about a Pod, or about all items. */
      readonly item: number;
      /** The turn of the Pod that it is about; 1 if the Pod has none. */
      readonly turn: number;
    }
  | { readonly is: "over"; readonly environment: string; readonly pod: string; readonly turn: number };

/** The part of a trace that is about one session. */
export interface Projection {
  readonly workIds: readonly string[];
  readonly entries: readonly SessionEntry[];
  /** `namespace/name`, in the model's order of operators. One operator at a time serves each. */
  readonly environments: readonly string[];
  /** By Environment, the Pods that the items were journaled for, in the model's order. */
  readonly pods: readonly (readonly string[])[];
  /** The last turn of its Pods; 1: they have none. */
  readonly turns: number;
}

/** Points of Pods, which name no work item. */
const OF_PODS = /^(removal|retention|turn)\./;

/** @param workIds the work items of the session */
export function project(trace: readonly Entry[], ...workIds: readonly string[]): Projection {
  const all = points(trace);
  const pods = new Map<string, Set<string>>();
  for (const event of all) {
    if (!workIds.includes(event.workId ?? "") || event.point !== "claim.journal" || event.pod === undefined) continue;
    pods.set(event.environment, (pods.get(event.environment) ?? new Set()).add(event.pod));
  }
  const polled = new Map(
    all.flatMap((event) => {
      const item = workIds.indexOf(String(event.details["workId"]));
      return event.point === "claim.poll" && event.phase === "after" && item >= 0 ? [[callOf(event), item]] : [];
    }),
  );
  /** Work items that Pods were last journaled for. A Pod whose claim was dropped may serve another session. */
  const claimants = new Map<string, string>();
  const isOurs = (environment: string, pod = "") => workIds.includes(claimants.get(`${environment} ${pod}`) ?? "");
  const turns = new Turns();
  const entries = trace.flatMap((entry): SessionEntry[] => {
    if (entry.is === "allowed") return [entry];
    if (entry.is === "over") return isOurs(entry.environment, entry.pod) ? [{ turn: 1, ...entry }] : [];
    if (entry.is !== "point") return pods.has(entry.environment) ? [entry] : [];
    const { event } = entry;
    const { point, environment, pod = "", workId = "" } = event;
    if (point === "claim.journal") claimants.set(`${environment} ${pod}`, workId);
    const item = polled.get(callOf(event)) ?? workIds.indexOf(workId);
    const isOfAll = point === "sweep.list" && pods.has(environment);
    const isOfPod = OF_PODS.test(point) && isOurs(environment, pod);
    return item >= 0 || isOfAll || isOfPod ? [{ is: "point", event, item, turn: turns.of(event) }] : [];
  });
  return {
    ...{ workIds, entries },
    environments: [...pods.keys()],
    pods: [...pods.values()].map((names) => [...names]),
    turns: turns.last,
  };
}

/** Tells which turn of its Pod an event is about. */
class Turns {
  /** By Pod and work item, the turn of its last claim; by Pod, that of its last removal. */
  readonly #turns = new Map<string, number>();
  /** The last turn of any Pod; 1: no Pod has turns. */
  last = 1;

  of({ point, environment, pod, workId, asks }: PointEvent): number {
    const isRemoval = point.startsWith("removal.");
    const key = `${environment} ${pod} ${isRemoval ? "removal" : workId}`;
    const asked = Number(asks["turn"] ?? 0);
    if (point === "claim.journal" || point === "removal.lock") this.#turns.set(key, Math.max(1, asked));
    // A sleeping Pod has another turn, even if none was claimed.
    if (point === "claim.journal" && asked > 0) this.last = Math.max(this.last, 2);
    const turn = point === "turn.add" ? asked : (this.#turns.get(key) ?? 1);
    this.last = Math.max(this.last, turn);
    return turn;
  }
}

/** Calls are numbered per operator. */
export function callOf({ operator, call }: PointEvent): string {
  return `${operator} ${call}`;
}

function points(entries: readonly Entry[]): PointEvent[] {
  return entries.flatMap((entry) => (entry.is === "point" ? entry.event : []));
}
