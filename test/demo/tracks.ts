/** Sessions, Environments and scenes for the tests of the display and the summary. */
import type { EnvironmentScene, Scene } from "../../demo/frame.ts";
import { newTrack, STEPS, type Step, stepsOf, type Track } from "../../demo/track.ts";

/** Any time far from zero, so that a missing subtraction is noticed. */
export const START = 1_700_000_000_000;

/** Milliseconds after being queued at which a test session takes each step. */
const USUAL: Readonly<Record<Step, number>> = {
  queued: 0,
  claimed: 20,
  opened: 110,
  started: 230,
  heartbeat: 810,
  stopped: 4_100,
};

/** A session that has reached `step`, queued `number` seconds after the start. */
export function trackAt(number: number, step: Step, more: Partial<Track> = {}): Track {
  const mode = more.mode ?? "sessions";
  const track = newTrack({
    environment: mode === "sessions" ? "research" : "batch",
    mode,
    number,
    workId: `work_${number}`,
    sessionId: `session_${number}`,
    prompt: "Add up the numbers from 1 to 1000.",
    plannedTools: 2,
    ...{ earlier: undefined, finds: undefined, next: undefined },
  });
  const queuedAt = START + number * 1_000;
  const order = STEPS.indexOf(step);
  for (const passed of stepsOf(mode).filter((it) => STEPS.indexOf(it) <= order)) {
    track.at[passed] = queuedAt + USUAL[passed];
  }
  const taken = mode === "sessions" ? track.at.opened : track.at.claimed;
  if (taken !== undefined) track.pod = `berth-demo-pod${number}xyz`.slice(0, 19);
  if (step === "stopped") {
    track.tools.push({ id: "a", what: "$ echo one", result: "one", failed: false });
    track.tools.push({ id: "b", what: "$ echo two", result: "two", failed: false });
    track.endedByWorker = true;
  }
  return Object.assign(track, more);
}

/** A session that came back to the Pod in which it slept after `earlier`, and found there what its last tool call returns. */
export function backAt(earlier: Track, step: Step, more: Partial<Track> = {}): Track {
  const { number, sessionId, pod } = earlier;
  return trackAt(number, step, { workId: `work_${number}b`, sessionId, earlier, finds: "two", pod, ...more });
}

/** An Environment with one Pod per session. */
export function researchOf(tracks: readonly Track[], more: Partial<EnvironmentScene> = {}): EnvironmentScene {
  return {
    name: "research",
    mode: "sessions",
    queue: { depth: 1, pending: 0 },
    pods: { preparing: 1, warm: 2, running: 3, sleeping: 1, ended: 4 },
    workers: undefined,
    tracks,
    obstacle: undefined,
    ...more,
  };
}

/** An Environment with always-on workers. */
export function batchOf(tracks: readonly Track[], more: Partial<EnvironmentScene> = {}): EnvironmentScene {
  return {
    name: "batch",
    mode: "workers",
    queue: { depth: 2, pending: 1 },
    pods: undefined,
    workers: { desired: 3, replicas: 3, ready: 2, busy: 1 },
    tracks,
    obstacle: undefined,
    ...more,
  };
}

/** What the display shows for these sessions, in one Environment by default. */
export function sceneOf(tracks: readonly Track[], more: Partial<Scene> = {}): Scene {
  return {
    phase: "serving",
    elapsedMs: 42_000,
    leftMs: undefined,
    about: "Kubernetes v1.37.2, 2 cores",
    environments: [researchOf(tracks)],
    violations: 0,
    notices: [],
    consoleUrl: "http://127.0.0.1:20001",
    hint: "npm run cluster -- kubectl get benv,pods -n berth-demo",
    ...more,
  };
}
