import type { Scene } from "../../demo/frame.ts";
import { newTrack, STEPS, type Step, type Track } from "../../demo/track.ts";

/** Any moment; far from zero, so that a forgotten difference shows. */
export const START = 1_700_000_000_000;

/** Milliseconds after being queued at which a session of these tests takes each step. */
const USUAL: Readonly<Record<Step, number>> = {
  queued: 0,
  claimed: 20,
  opened: 110,
  started: 230,
  beat: 810,
  stopped: 4_100,
};

/** A session that has come as far as `step`, queued `number` seconds after the start. */
export function trackAt(number: number, step: Step, more: Partial<Track> = {}): Track {
  const track = newTrack({
    number,
    workId: `work_${number}`,
    sessionId: `session_${number}`,
    prompt: "Add up the numbers from 1 to 1000.",
    plannedTools: 2,
  });
  const queuedAt = START + number * 1_000;
  for (const passed of STEPS.slice(0, STEPS.indexOf(step) + 1)) track.at[passed] = queuedAt + USUAL[passed];
  if (track.at.opened !== undefined) track.pod = `berth-demo-pod${number}xyz`.slice(0, 19);
  if (step === "stopped") {
    track.tools.push({ id: "a", what: "$ echo one", result: "one", failed: false });
    track.tools.push({ id: "b", what: "$ echo two", result: "two", failed: false });
    track.endedByWorker = true;
  }
  return Object.assign(track, more);
}

/** What the display shows while one session of each kind is there. */
export function sceneOf(tracks: readonly Track[], more: Partial<Scene> = {}): Scene {
  return {
    phase: "serving",
    elapsedMs: 42_000,
    leftMs: undefined,
    about: "Kubernetes v1.36.3, 2 cores",
    queue: { depth: 1, pending: 0 },
    pods: { preparing: 1, warm: 2, opening: 0, active: 3, finished: 4 },
    served: 1,
    violations: 0,
    tracks,
    notices: [],
    obstacle: undefined,
    hint: "npm run cluster -- kubectl get benv,pods -n berth-demo",
    ...more,
  };
}
