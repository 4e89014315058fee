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
  /** By Environment, the Pods that the items were journaled for, or that were made for the session, in the model's order. */
  readonly pods: readonly (readonly string[])[];
  /** By Environment, the volumes of these Pods, in the model's order. */
  readonly volumes: readonly (readonly string[])[];
  readonly sessionId: string;
  /** The volume that a Pod mounts. */
  readonly volumeOf: (environment: string, pod: string) => string | undefined;
  /** The last turn of its Pods; 1: they have none. */
  readonly turns: number;
}

/** Points of Pods, which name no work item. */
const OF_PODS = /^(removal|retention|turn)\./;

/** @param workIds the work items of the session */
export function project(trace: readonly Entry[], workIds: readonly string[], sessionId = ""): Projection {
  const all = points(trace);
  const pods = new Map<string, Set<string>>();
  const volumes = new Volumes(all, sessionId);
  for (const event of all) {
    const { point, environment, pod } = event;
    const isJournaled = point === "claim.journal" && workIds.includes(event.workId ?? "");
    if (pod === undefined || !(isJournaled || volumes.isMadeFor(environment, pod))) continue;
    pods.set(environment, (pods.get(environment) ?? new Set()).add(pod));
  }
  volumes.keep(pods);
  const polled = new Map(
    all.flatMap((event) => {
      const item = workIds.indexOf(String(event.details["workId"]));
      return event.point === "claim.poll" && event.phase === "after" && item >= 0 ? [[callOf(event), item]] : [];
    }),
  );
  /** Work items that Pods were last journaled for. A Pod whose claim was dropped may serve another session. */
  const claimants = new Map<string, string>();
  const isOurs = (environment: string, pod = "") =>
    workIds.includes(claimants.get(`${environment} ${pod}`) ?? "") || volumes.isMadeFor(environment, pod);
  const turns = new Turns();
  const entries = trace.flatMap((entry): SessionEntry[] => {
    if (entry.is === "allowed") return [entry];
    if (entry.is === "lost") return volumes.of(entry.environment).includes(entry.volume) ? [entry] : [];
    if (entry.is === "over") return isOurs(entry.environment, entry.pod) ? [{ turn: 1, ...entry }] : [];
    if (entry.is !== "point") return pods.has(entry.environment) ? [entry] : [];
    const { event } = entry;
    const { point, environment, pod = "", workId = "" } = event;
    if (point === "claim.journal") claimants.set(`${environment} ${pod}`, workId);
    const item = polled.get(callOf(event)) ?? workIds.indexOf(workId);
    const isOfAll = point === "sweep.list" && pods.has(environment);
    const isOfPod = OF_PODS.test(point) && isOurs(environment, pod);
    const isAbout = item >= 0 || isOfAll || isOfPod || volumes.isAbout(event);
    return isAbout ? [{ is: "point", event, item, turn: turns.of(event) }] : [];
  });
  return {
    ...{ workIds, sessionId, entries },
    volumeOf: (environment, pod) => volumes.ofPod(environment, pod),
    environments: [...pods.keys()],
    volumes: [...pods.keys()].map((environment) => volumes.of(environment)),
    pods: [...pods.values()].map((names) => [...names]),
    turns: turns.last,
  };
}

/** Tells which entries are about the volumes that a session's Pods mount. */
class Volumes {
  readonly #sessionId: string;
  /** By Pod, its volume, and the session that it was made for. */
  readonly #mounts = new Map<string, { readonly volume: string; readonly sessionId: unknown }>();
  /** By Environment, the Pods and the volumes. */
  readonly #kept = new Map<string, { readonly pods: ReadonlySet<string>; readonly volumes: ReadonlySet<string> }>();

  constructor(all: readonly PointEvent[], sessionId: string) {
    this.#sessionId = sessionId;
    for (const { point, environment, pod, asks } of all) {
      if (point !== "prepare.create-pod" || typeof asks["volume"] !== "string") continue;
      this.#mounts.set(`${environment} ${pod}`, { volume: asks["volume"], sessionId: asks["sessionId"] });
    }
  }

  ofPod(environment: string, pod: string): string | undefined {
    return this.#mounts.get(`${environment} ${pod}`)?.volume;
  }

  isMadeFor(environment: string, pod: string): boolean {
    return this.#mounts.get(`${environment} ${pod}`)?.sessionId === this.#sessionId;
  }

  /** Keeps those of these Pods, by Environment. */
  keep(all: ReadonlyMap<string, ReadonlySet<string>>): void {
    for (const [environment, pods] of all) {
      const volumes = [...pods].flatMap((pod) => this.ofPod(environment, pod) ?? []);
      this.#kept.set(environment, { pods, volumes: new Set(volumes) });
    }
  }

  of(environment: string): string[] {
    return [...(this.#kept.get(environment)?.volumes ?? [])];
  }

  isAbout({ point, environment, pod = "", asks }: PointEvent): boolean {
    const kept = this.#kept.get(environment);
    if (!kept || kept.volumes.size === 0) return false;
    if (point === "workspace.list") return true;
    if (point === "prepare.create-pod") return kept.pods.has(pod);
    if (!point.startsWith("workspace.") || !kept.volumes.has(pod)) return false;
    // What another session does with a volume that it got says nothing about this one.
    const { sessionId } = asks;
    return typeof sessionId !== "string" || sessionId === this.#sessionId || point === "workspace.assign";
  }
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
