import type { PointDetails } from "../../../../src/core/points.ts";
import type { Death } from "../../../support/sudden-death.ts";
import { type FaultSettings, readFaultSettings } from "../../support/settings.ts";
import type { LeaseKind, ScenarioName } from "./scenarios.ts";

/** One death: the scenario and the point in it. */
export interface CrashCase<Name extends string = ScenarioName> {
  readonly scenario: Name;
  /** Replaces the scenario's own lease. */
  readonly lease?: LeaseKind;
  readonly death: Pick<Death, "point" | "phase" | "asks" | "item">;
}

/** The operator dies before a write is sent, while it is in flight, and before it reads the answer. */
export function writes<Name extends string>(
  scenario: Name,
  points: readonly string[],
  asks?: PointDetails,
): CrashCase<Name>[] {
  const phases = ["before", "sent", "after"] as const;
  return points.flatMap((point) =>
    phases.map((phase) => ({ scenario, death: { point, phase, ...(asks && { asks }) } })),
  );
}

/** A read changes nothing, so the moment of death does not matter. */
export function reads<Name extends string>(scenario: Name, points: readonly string[]): CrashCase<Name>[] {
  return points.map((point) => ({ scenario, death: { point, phase: "after" } }));
}

/** The operator dies at the point of the second work item. */
function again(cases: readonly CrashCase[]): CrashCase[] {
  return cases.map((each) => ({ ...each, death: { ...each.death, item: 2 } }));
}

/** Adds each case with `lease: Operator`. */
export function bothLeases(cases: readonly CrashCase[]): readonly CrashCase[] {
  return [...cases, ...cases.map((each) => ({ ...each, lease: "Operator" as const }))];
}

export const caseName = ({ scenario, lease, death: { point, phase, asks } }: CrashCase<string>) =>
  `${point}${asks ? ` ${JSON.stringify(asks)}` : ""} (${phase}), ${scenario}${lease ? `, lease: ${lease}` : ""}`;

/** What a claim's writes leave behind depends on which side sends heartbeats, so a sample has them for each lease. */
const CLAIM_WRITE = /^(?:claim|session)\.(?!read|look|reread)/;

/** A sample has one of the cases with the same key. */
const sampledAs = ({ scenario, lease, death: { point, asks } }: CrashCase<string>) =>
  JSON.stringify([scenario, point, asks, CLAIM_WRITE.test(point) ? lease : undefined]);

/**
 * The cases of a run: all of them, or a sample with one death for each request. Any six consecutive seeds cover all
 * cases.
 */
export function chosen<Name extends string>(
  cases: readonly CrashCase<Name>[],
  { sample, seed }: Pick<FaultSettings, "sample" | "seed"> = readFaultSettings(),
): readonly CrashCase<Name>[] {
  if (!sample) return cases;
  const groups = Map.groupBy(cases, sampledAs);
  return [...groups.values()].flatMap((phases, at) => phases[(seed + at) % phases.length] ?? []);
}

/**
 * Every death in `sessions` mode. If a point has no scenario with `lease: Operator`, the one with `Worker` is adapted.
 */
export const SESSION_CASES: readonly CrashCase[] = [
  ...bothLeases([
    ...reads("served", ["recover.list", "environment.read", "claim.read-pod", "queue.stats"]),
    ...reads("served", ["policy.read", "reconcile.read-key", "reconcile.check-template"]),
    ...writes("served", ["policy.create", "reconcile.write-status", "prepare.create-pod", "environment.hold"]),
    ...writes("served", ["claim.poll", "claim.journal", "session.touch"]),
    ...reads("shell", ["reconcile.check-attach"]),
    ...writes("shell", ["session.open", "session.touch", "session.deliver"]),
    ...writes("program", ["session.deliver"]),
    ...reads("delivery-unanswered", ["session.read-log"]),
    ...writes("retained", ["session.mark", "retention.delete-pod"]),
    ...reads("unanswered", ["session.look"]),
    ...writes("unacknowledged", ["session.drop"]),
    ...writes("refused", ["claim.drop"]),
    ...reads("journal-unanswered", ["claim.read-journal"]),
    ...reads("opening-unanswered", ["session.read-credential"]),
    ...reads("changed", ["session.reread"]),
    ...writes("healthcheck", ["refuse.ack", "refuse.stop"]),
    ...reads("healthcheck", ["refuse.list"]),
    ...writes("half-refused", ["refuse.stop-left"]),
    ...writes("no-credential", ["session.fence"]),
    ...reads("own-volume", ["workspace.list", "workspace.read"]),
    ...writes("own-volume", ["workspace.create", "workspace.assign", "workspace.leave"]),
    ...writes("own-volume-unanswered", ["workspace.adopt"]),
    ...writes("own-volume-again", ["workspace.take"]),
    ...writes("own-volume-expired", ["workspace.delete"]),
    ...reads("slept", ["reconcile.check-turns"]),
    ...writes("slept", ["session.sleep", "session.settled"]),
    ...writes("slept", ["turn.add"], { turn: 1 }),
    ...writes("slept", ["turn.add"], { turn: 2 }),
    ...reads("turn-unanswered", ["turn.read-pod"]),
    ...again(writes("woken", ["claim.journal", "claim.ack", "session.open", "session.touch", "session.deliver"])),
    ...again(writes("woken", ["session.sleep", "session.settled"])),
    ...writes("program-slept", ["session.sleep"]),
    ...writes("program-slept", ["turn.add"], { turn: 2 }),
    ...again(writes("program-woken", ["session.deliver"])),
    ...writes("slept-out", ["removal.lock", "removal.delete-pod", "removal.unlock"]),
    ...reads("slept-on", ["queue.list"]),
    ...reads("idle", ["recover.list-late"]),
    ...reads("uncreated", ["prepare.read-pod"]),
    ...reads("slow", ["prepare.read-events"]),
    ...writes("replaced", ["removal.lock", "removal.delete-pod", "removal.unlock"]),
    ...reads("replaced", ["removal.read-pod"]),
    ...reads("lock-unanswered", ["removal.read-lock"]),
    ...reads("left-behind", ["retention.read-secret", "retention.read-pod"]),
    ...writes("protected", ["budget.create", "budget.patch"]),
    ...reads("protected", ["budget.read"]),
    ...writes("unprotected", ["budget.delete"]),
    ...writes("reached", ["policy.patch"]),
    ...writes("not-held", ["policy.delete"]),
    ...reads("given-up", ["cleanup.list"]),
    ...writes("given-up", ["cleanup.drop", "environment.release"]),
    ...reads("unheld", ["cleanup.read-environment"]),
  ]),
  ...reads("served", ["session.look", "sweep.list"]),
  ...writes("served", ["claim.ack", "session.open", "session.settled"]),
  ...writes("served", ["retention.delete-pod", "environment.release"]),
  ...writes("retained", ["session.settled"]),
  ...writes("kept", ["claim.ack", "session.take", "session.open", "session.settled"]),
  ...writes("beaten", ["session.beat"]),
  ...writes("kept", ["session.stop"], { force: true }),
  ...writes("overdue", ["session.stop"], { force: false }),
  ...reads("unheeding", ["session.read-pod"]),
  ...writes("unheeding", ["session.delete-pod"]),
  ...writes("unheeding", ["session.stop"], { force: true }),
  ...reads("overdue-kept", ["session.read-pod"]),
  ...writes("overdue-kept", ["session.delete-pod"]),
  ...writes("overdue-kept", ["session.stop"], { force: false }),
  ...writes("overdue-kept", ["session.stop"], { force: true }),
  ...writes("died", ["session.fence", "session.settled"]),
  ...writes("died", ["session.stop"], { force: true }),
  ...writes("unbeaten", ["session.fence"]),
  ...writes("released", ["session.fence", "session.count-release", "session.settled"]),
  ...writes("let-go", ["session.shorten", "session.count-release", "session.settled"]),
  ...writes("unanswered", ["session.open"]),
  ...writes("no-credential", ["claim.journal", "claim.ack", "session.settled"]),
  ...writes("no-credential", ["session.stop"], { force: true }),
  ...writes("own-volume", ["prepare.create-pod", "claim.ack"]),
  ...writes("drained", ["environment.release"]),
  ...writes("drained", ["session.stop"], { force: false }),
  ...writes("drained-kept", ["session.delete-pod", "session.settled"]),
  ...writes("drained-kept", ["session.stop"], { force: true }),
];
