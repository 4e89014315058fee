import type { ArrivalsInput } from "../../simulator/arrivals.ts";
import type { PodTemplate } from "../../src/api/environment.ts";
import type { Random } from "../../src/core/backoff.ts";
import { workersPart } from "../../test/support/workers-world.ts";
import type { World } from "../../test/support/world.ts";
import type { FateInput } from "../../testbed/node/node.ts";

/** A kind of Environment: how it serves, and how its containers behave. */
export interface Kind {
  readonly name: string;
  readonly mode: "sessions" | "workers";
  /** The number of Pods that stay ready when there is nothing to do. */
  readonly warm: number;
  /** Fields that override those of a plain Environment's spec. */
  spec(world: World): Record<string, unknown>;
  /** The most items of its sessions. Default: no session comes back. */
  readonly mostItems?: number;
  /** The fate of a container that is about to start. */
  fate(random: Random): FateInput;
}

/** The duration of work in milliseconds, 1.5 seconds on average. */
const WORK_MS = { min: 300, max: 2_700 };
/** How workers of sessions die, or exit without stopping their item. */
const DEATHS = ["oom", "killed", "exit-without-stop"] as const;
const SHARE_OF_DEATHS = 0.06;
const BUSY_PORT = 9000;

function stockWorker(random: Random): FateInput {
  const end = random() < SHARE_OF_DEATHS ? DEATHS[Math.floor(random() * DEATHS.length)] : "stop";
  return { kind: "worker", workMs: WORK_MS, end: end ?? "stop" };
}

/** A program that knows nothing of work items and sometimes fails. */
function plainProgram(random: Random): FateInput {
  return { kind: "exit", code: random() < SHARE_OF_DEATHS ? 1 : 0, afterMs: WORK_MS };
}

function sessionKind(name: string, sessions: Record<string, unknown>, fate: Kind["fate"] = stockWorker): Kind {
  const spec = (world: World) => ({ sessions: { ...(world.spec()["sessions"] as object), ...sessions } });
  return { name, mode: "sessions", warm: 1, spec, fate };
}

/** Pods with a command can wait in a shell. */
function inShell(kind: Kind): Kind {
  const spec = (world: World) => {
    const { sessions } = kind.spec(world) as { sessions: { template: PodTemplate } };
    const { template } = sessions;
    const containers = template.spec.containers.map((container) => ({ ...container, command: ["worker"] }));
    return { sessions: { ...sessions, template: { ...template, spec: { ...template.spec, containers } } } };
  };
  return { ...kind, spec };
}

/** Longer than the pauses of sessions, and short enough that no session sleeps for long when arrivals have ended. */
const SLEEP_SECONDS = 10;
const PAUSE_SECONDS = { min: 0, max: 4 };
const EARLY_SHARE = 0.25;

/** The sessions of an Environment of this kind in one round. */
export function arrivalsOf(
  { mostItems = 1 }: Kind,
  { ratePerSecond, durationSeconds, seed }: { ratePerSecond: number; durationSeconds: number; seed: number },
): ArrivalsInput {
  if (mostItems === 1) return { kind: "poisson", ratePerSecond, durationSeconds, seed };
  const returns = { times: { min: 0, max: mostItems - 1 }, afterSeconds: PAUSE_SECONDS, seed };
  // Sessions that come back arrive early, so that the round is long enough for most of their items.
  const early = { ratePerSecond: ratePerSecond / EARLY_SHARE, durationSeconds: durationSeconds * EARLY_SHARE };
  return { kind: "poisson", ...early, seed, returns };
}

/** Both modes, both leases, and every other setting that makes the operator keep its own state. */
export const KINDS: readonly Kind[] = [
  sessionKind("worker-lease", {}),
  sessionKind("operator-lease", { lease: "Operator" }, plainProgram),
  sessionKind("released", { onPodFailure: "Release", disruption: "Protect" }),
  inShell(sessionKind("shell", { parking: "Shell", retainEndedSeconds: 2, retainFailedSeconds: 2 })),
  {
    ...inShell(sessionKind("sleeping", { maxConcurrent: 60, workspace: { type: "Pod", sleepSeconds: SLEEP_SECONDS } })),
    mostItems: 12,
  },
  {
    name: "workers",
    mode: "workers",
    warm: 0,
    spec: (world) => ({ sessions: undefined, workers: workersPart(world) }),
    fate: () => ({ kind: "poller", workMs: WORK_MS, busyPort: BUSY_PORT }),
  },
];
