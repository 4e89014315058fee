import { describe, expect, test } from "vitest";
import { nodeOutlook } from "../../src/pods/node-health.ts";
import { type PodState, readPodState } from "../../src/pods/pod-state.ts";
import type { NodeView } from "../../testbed/recorder/sequence.ts";
import { podAt, SEQUENCE_NAMES, sequence } from "../testbed/node/recorded-sequences.ts";

/** A state as text; for an end, its cause and the exit code that Berth believes. */
function summaryOf(state: PodState): string {
  if (state.is === "ended") return `${state.end.cause} ${state.end.exitCode ?? "unseen"}`;
  if (state.is === "preparing" && state.problem) return state.problem.reason;
  return state.is;
}

/** The conclusions from a sequence of statuses, without repetitions; `@leaving` and `@silent` add the Node's outlook. */
function conclusions(name: string): string[] {
  const recorded = sequence(name);
  let node: NodeView | undefined;
  const all = recorded.steps.map((step) => {
    node = step.node ?? node;
    const pod = podAt(recorded, step);
    const said = { leaves: " @leaving", silent: " @silent", doubtful: "", stays: "" };
    return `${summaryOf(readPodState(pod))}${said[nodeOutlook({ taints: [...(node?.taints ?? [])] }, pod)]}`;
  });
  return all.filter((word, i) => word !== all[i - 1]);
}

const PARKED = ["unscheduled", "preparing", "parked"];
const RUNNING = ["unscheduled", "preparing", "running"];

const EXPECTED: Record<string, readonly string[]> = {
  "containerd-restarted-parked": [...PARKED, "running", "PodDeleted 143", "Failed 143"],
  "containerd-restarted-running": [...RUNNING, "PodDeleted 143", "Failed 143"],
  "containers-lost-parked": [...PARKED, "preparing", "parked", "running", "PodDeleted 143", "Failed 143"],
  "containers-lost-running": [...RUNNING, "Killed 137", "PodDeleted 137"],
  "kubelet-restarted-parked": [...PARKED, "preparing", "parked", "running", "PodDeleted 143", "Failed 143"],
  "kubelet-restarted-running": [...RUNNING, "PodDeleted 143", "Failed 143"],
  "lost-alone-parked": [...PARKED],
  "lost-alone-running": [...RUNNING, "running @silent"],
  "lost-finished": [...RUNNING, "Completed 0", "Completed 0 @silent"],
  "lost-parked": [...PARKED, "parked @silent", "preparing", "NodeLost 137"],
  "lost-running": [...RUNNING, "running @silent", "running", "Evicted 143"],
  "lost-tolerated": [...RUNNING],
  "node-deleted-parked": [...PARKED, "parked @silent", "NodeLost unseen @silent"],
  "node-deleted-running": [...RUNNING, "running @silent", "NodeLost unseen @silent"],
  "out-of-service-parked": [...PARKED, "parked @silent", "NodeLost unseen @leaving"],
  "out-of-service-running": [...RUNNING, "running @silent", "NodeLost unseen @leaving"],
  "parked-deleted": [...PARKED, "preparing", "PodDeleted 137"],
  "parked-evicted-by-api": [...PARKED, "preparing", "Evicted 137"],
  "parked-evicted-by-taint": [...PARKED, "preparing", "NodeLost 137"],
  "parked-image-removed": [...PARKED, "ErrImagePull", "ImagePullBackOff", "preparing", "PodDeleted 137"],
  "parked-opened-exit-0": [...PARKED, "running", "Completed 0"],
  "parked-pull-always": [
    ...PARKED,
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImagePull",
    "ImagePullBackOff",
    "parked",
    "preparing",
    "PodDeleted 137",
  ],
  "pressure-at-start-parked": [...PARKED, "preparing", "Evicted unseen"],
  "pressure-at-start-running": [...RUNNING, "preparing", "running", "Evicted 143"],
  "pressure-refused": ["preparing", "Evicted unseen"],
  "pressure-running": [...RUNNING, "Evicted 143"],
  "rebooted-parked": [...PARKED, "preparing", "parked", "running", "PodDeleted 143", "Failed 143"],
  "rebooted-running": [...RUNNING, "NodeLost unseen"],
  "refused-node-affinity": ["preparing", "StartFailed unseen"],
  "refused-out-of-cpu": ["preparing", "StartFailed unseen"],
  "refused-out-of-memory": ["preparing", "StartFailed unseen"],
  "refused-taint": ["preparing", "NodeLost unseen", "NodeLost 137"],
  "running-evicted-by-api": [...RUNNING, "Evicted 143"],
  "running-evicted-by-taint": [...RUNNING, "Evicted 143"],
  "running-evicted-by-taint-exit-0": [...RUNNING, "Evicted 0"],
  "shutdown-parked": [...PARKED, "Evicted unseen @silent", "Evicted 137 @silent"],
  "shutdown-refused": ["preparing @silent", "Evicted unseen @silent"],
  "shutdown-running": [...RUNNING, "running @silent", "Evicted 143 @silent"],
  "shutdown-running-exit-0": [...RUNNING, "running @silent", "Evicted 0 @silent"],
  "shutdown-running-exit-137": [...RUNNING, "running @silent", "Evicted 137 @silent"],
};

describe("reads Pods recorded on a real node", () => {
  test.each(SEQUENCE_NAMES)("%s", (name) => {
    expect(conclusions(name)).toEqual(EXPECTED[name]);
  });

  test("covers exactly the existing recordings", () => {
    expect(Object.keys(EXPECTED).sort()).toEqual([...SEQUENCE_NAMES].sort());
  });
});
