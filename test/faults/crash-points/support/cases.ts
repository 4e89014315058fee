import type { PointDetails } from "../../../../src/core/points.ts";
import type { Death } from "../../../support/sudden-death.ts";
import { type FaultSettings, readFaultSettings } from "../../support/settings.ts";
import type { ScenarioName } from "./scenarios.ts";

/** One death: at which point of which scenario. */
export interface CrashCase<Name extends string = ScenarioName> {
  readonly scenario: Name;
  readonly death: Pick<Death, "point" | "phase" | "asks" | "occurrence">;
}

/** A write dies before it is sent, on the wire, and with its answer unseen. */
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

/** A read changes nothing: whenever it dies at one, what stands there is the same. */
export function reads<Name extends string>(scenario: Name, points: readonly string[]): CrashCase<Name>[] {
  return points.map((point) => ({ scenario, death: { point, phase: "after" } }));
}

export const caseName = ({ scenario, death: { point, phase, asks } }: CrashCase<string>) =>
  `${point}${asks ? ` ${JSON.stringify(asks)}` : ""} (${phase}), ${scenario}`;

/** The cases of a run: all, or a sample of one phase for each request, so that any three seeds in a row are all. */
export function chosen<Name extends string>(
  cases: readonly CrashCase<Name>[],
  { sample, seed }: Pick<FaultSettings, "sample" | "seed"> = readFaultSettings(),
): readonly CrashCase<Name>[] {
  if (!sample) return cases;
  const groups = Map.groupBy(cases, ({ scenario, death: { point, asks } }) => JSON.stringify([scenario, point, asks]));
  return [...groups.values()].flatMap((phases, at) => phases[(seed + at) % phases.length] ?? []);
}

/** Every death in `sessions` mode. */
export const SESSION_CASES: readonly CrashCase[] = [
  ...reads("served", ["recover.list", "environment.read", "claim.read-pod", "session.look", "queue.stats"]),
  ...reads("served", ["sweep.list", "policy.read"]),
  ...reads("served", ["reconcile.read-key", "reconcile.check-template"]),
  ...writes("served", ["policy.create", "reconcile.write-status", "prepare.create-pod", "environment.hold"]),
  ...writes("served", ["claim.poll", "claim.journal", "claim.ack", "session.open", "session.touch"]),
  ...writes("served", ["session.settled", "retention.delete-pod", "environment.release"]),
  ...writes("retained", ["session.settled", "session.mark", "retention.delete-pod"]),
  ...writes("filed", ["claim.ack", "session.open", "session.touch"]),
  ...writes("kept", ["claim.ack", "session.take", "session.open", "session.settled"]),
  ...writes("beaten", ["session.beat"]),
  ...writes("kept", ["session.stop"], { force: true }),
  ...writes("overdue", ["session.stop"], { force: false }),
  ...writes("unheeding", ["session.delete-pod"]),
  ...writes("unheeding", ["session.stop"], { force: true }),
  ...reads("overdue-kept", ["session.read-pod"]),
  ...writes("overdue-kept", ["session.delete-pod"]),
  ...writes("overdue-kept", ["session.stop"], { force: false }),
  ...writes("overdue-kept", ["session.stop"], { force: true }),
  ...writes("died", ["session.fence", "session.settled"]),
  ...writes("died", ["session.stop"], { force: true }),
  ...writes("unbeaten", ["session.fence"]),
  ...writes("released", ["session.fence", "session.settled"]),
  ...writes("let-go", ["session.shorten", "session.settled"]),
  ...reads("unanswered", ["session.look"]),
  ...writes("unanswered", ["session.open"]),
  ...writes("unacknowledged", ["session.drop"]),
  ...writes("refused", ["claim.drop"]),
  ...reads("journal-unanswered", ["claim.read-journal"]),
  ...reads("opening-unanswered", ["session.read-credential"]),
  ...reads("changed", ["session.reread"]),
  ...writes("healthcheck", ["refuse.ack", "refuse.stop"]),
  ...reads("healthcheck", ["refuse.list"]),
  ...writes("half-refused", ["refuse.stop-left"]),
  ...writes("no-credential", ["claim.journal", "claim.ack", "session.fence", "session.settled"]),
  ...writes("no-credential", ["session.stop"], { force: true }),
  ...reads("own-volume", ["workspace.list", "workspace.read"]),
  ...writes("own-volume", ["workspace.create", "prepare.create-pod", "claim.ack", "workspace.leave"]),
  ...writes("own-volume-again", ["workspace.take"]),
  ...writes("own-volume-expired", ["workspace.delete"]),
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
  ...writes("drained", ["environment.release"]),
  ...writes("drained", ["session.stop"], { force: false }),
  ...writes("drained-kept", ["session.delete-pod", "session.settled"]),
  ...writes("drained-kept", ["session.stop"], { force: true }),
  ...reads("given-up", ["cleanup.list"]),
  ...writes("given-up", ["cleanup.drop", "environment.release"]),
  ...reads("unheld", ["cleanup.read-environment"]),
];
