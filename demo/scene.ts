import { availableParallelism } from "node:os";
import type { EnvironmentScene, Phase, Scene } from "./frame.ts";
import type { Stage } from "./stage.ts";
import type { StagedEnvironment } from "./staged-environment.ts";

/** The progress of a run. Times are on the simulator's clock. */
export interface Moment {
  readonly phase: Phase;
  readonly startedAt: number;
  /** When no more sessions arrive; undefined if no end is set. */
  readonly endsAt: number | undefined;
}

/** What the live display shows now. */
export function sceneOf(stage: Stage, { phase, startedAt, endsAt }: Moment): Scene {
  const { board, simulator, cluster } = stage;
  const now = simulator.clock.now();
  return {
    phase,
    elapsedMs: now - startedAt,
    leftMs: endsAt === undefined ? undefined : endsAt - now,
    about: `${cluster.about}, ${availableParallelism()} cores`,
    environments: stage.environments.map((it) => environmentScene(stage, it, phase)),
    violations: simulator.violations.length,
    notices: board.notices,
    consoleUrl: stage.consoleUrl,
    hint: `${cluster.kubectl} get benv,pods -n ${cluster.namespace}`,
  };
}

function environmentScene({ board, simulator }: Stage, environment: StagedEnvironment, phase: Phase): EnvironmentScene {
  const { name, mode, environmentId, sessions, workers, obstacle } = environment;
  const { depth, pending } = simulator.stats(environmentId) as { depth: number; pending: number };
  return {
    name,
    mode,
    queue: { depth, pending },
    pods: sessions?.counts,
    workers: workers?.counts,
    tracks: board.tracksOf(name),
    obstacle: phase === "serving" ? obstacle : undefined,
  };
}
