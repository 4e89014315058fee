import { expect, test } from "vitest";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { Decider } from "../../src/workers/decider.ts";
import { readWorkerPod } from "../../src/workers/worker-pod.ts";
import { parsed, stored, workersSpec } from "../api/environments.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { podOf } from "./worker-pods.ts";

/** Longer than the stabilization window for scaling down. */
const WINDOW_MS = 600_000;

/** Three workers without a probe, and a Work API that answers or doesn't. */
function decider({ answers, isRead = true }: { answers: boolean; isRead?: boolean }) {
  const clock = new VirtualClock();
  const environment = parsed(stored(workersSpec({ minReplicas: 0, maxReplicas: 10, busyProbe: undefined })));
  let asked = 0;
  /** Readings made just now. */
  const none = () => {
    const readMs = clock.monotonic();
    return { queue: { depth: 0, pending: 0, readMs }, running: { running: 0, readMs } };
  };
  const made = new Decider({
    context: { clock, timing: DEFAULT_TIMING, environment: () => environment, template: () => ({ hash: "" }) },
    fleet: { replicas: 3, deployments: [], pods: [] },
    busy: { isProbed: false },
    demand: {
      get readings() {
        return isRead ? none() : { queue: null, running: null };
      },
      catchUp: async () => {},
      refreshAll: async () => {
        asked += 1;
        return answers;
      },
    },
  } as never);
  const decide = async (isLeaving: boolean) => {
    // Wait until the windows that keep the size after a start have passed.
    await made.decide({ isLeaving: false, isResting: false }, new AbortController().signal);
    await clock.advance(WINDOW_MS);
    return made.decide({ isLeaving, isResting: false }, new AbortController().signal);
  };
  return { decide, asked: () => asked };
}

test("removes no worker while it is unknown whether sessions run", async () => {
  const { decide } = decider({ answers: false, isRead: false });
  expect(await decide(true)).toMatchObject({ replicas: 3, reason: "DemandUnknown" });
});

test("removes workers only by readings made for that decision", async () => {
  const unanswered = decider({ answers: false });
  expect(await unanswered.decide(false)).toMatchObject({ replicas: 3, wanted: 0 });
  expect(unanswered.asked()).toBe(1);
  expect(await decider({ answers: true }).decide(false)).toMatchObject({ replicas: 0 });
});

test("removes workers without a session", async () => {
  expect(await decider({ answers: true }).decide(true)).toMatchObject({ replicas: 0 });
});

test("deleted workers hold their room while they are Ready or say that they are busy, not on a lost node", () => {
  const pods = [
    podOf("finishes", { ending: true }),
    podOf("finishes-unready", { ending: true, ready: false }),
    podOf("lost", { ending: true, ready: false }),
    podOf("exited", { ending: true, state: { terminated: { exitCode: 0 } } }),
    podOf("stays"),
  ].map(readWorkerPod);
  const stateOf = ({ name }: { name: string }) => (name === "finishes-unready" ? "busy" : "unknown");
  const made = new Decider({ fleet: { pods }, busy: { stateOf } } as never);
  expect(made.ending).toBe(2);
});
