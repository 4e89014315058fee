import { describe, expect, test } from "vitest";
import type { Pod, PodStatus } from "../../../src/kube/objects.ts";
import type { FateInput } from "../../../testbed/node/fate.ts";
import type { PodVerdict } from "../../../testbed/node/pod-conditions.ts";
import { evictionVerdict } from "../../../testbed/node/scripted-runtime.ts";
import type { Sequence } from "../../../testbed/recorder/sequence.ts";
import { boundPod, PodBench } from "./pod-bench.ts";
import { normalized } from "./recorded.ts";
import { SEQUENCE_NAMES, sequence } from "./recorded-sequences.ts";

interface Case {
  readonly fates?: Record<string, FateInput>;
  /** The kubelet rejects the Pod for the recorded reason. */
  readonly refused?: true;
  /** What happened to the Pod since its creation. */
  readonly play: (bench: PodBench) => Promise<unknown>;
}

const GRACE_SECONDS = 5;
const SHUTDOWN: PodVerdict = {
  reason: "Terminated",
  message: "Pod was terminated in response to imminent node shutdown.",
  disrupted: true,
};
/** With the amounts that the node had during the recording. */
const LOW_ON_MEMORY = sequence("pressure-running").steps.at(-1)?.status.message ?? "";
const runs = (bench: PodBench) => bench.untilState("c", "running");
const parks = (bench: PodBench) => bench.untilState("c", "CreateContainerConfigError");
const over = async (bench: PodBench) => {
  await bench.until(() => bench.last.phase === "Failed" || bench.last.phase === "Succeeded");
  await bench.machine.ended;
};

async function deleted(bench: PodBench): Promise<void> {
  bench.deletePod(GRACE_SECONDS);
  await bench.until(() => bench.events.includes("finalized"));
}

async function shutDown(bench: PodBench): Promise<void> {
  bench.machine.evict(SHUTDOWN, GRACE_SECONDS);
  await over(bench);
}

/** A parked Pod gets its key, is touched, and runs. */
async function opened(bench: PodBench): Promise<void> {
  bench.setSecret("work-1", { go: "hello" });
  bench.annotate({ touched: "yes" });
  await runs(bench);
}

const then =
  (...steps: ((bench: PodBench) => Promise<unknown>)[]) =>
  async (bench: PodBench): Promise<void> => {
    for (const step of steps) await step(bench);
  };

const reboot = async (bench: PodBench): Promise<void> => bench.machine.reboot();
const ends = (code: number): Record<string, FateInput> => ({ c: { kind: "run", onTerm: { code } } });

/**
 * The lives that the simulated node plays. From a deletion on, they're the same for a kubelet, regardless of who
 * requested it.
 */
const CASES: Record<string, Case> = {
  "parked-deleted": { play: then(parks, deleted) },
  "parked-evicted-by-api": { play: then(parks, deleted) },
  "parked-evicted-by-taint": { play: then(parks, deleted) },
  "running-evicted-by-api": { play: then(runs, deleted) },
  "running-evicted-by-taint": { play: then(runs, deleted) },
  "running-evicted-by-taint-exit-0": { fates: ends(0), play: then(runs, deleted) },
  "shutdown-running": { play: then(runs, shutDown) },
  "shutdown-running-exit-0": { fates: ends(0), play: then(runs, shutDown) },
  "shutdown-running-exit-137": { fates: { c: { kind: "run", onTerm: "ignore" } }, play: then(runs, shutDown) },
  "shutdown-parked": { play: then(parks, shutDown) },
  "parked-opened-exit-0": {
    fates: { c: { kind: "exit", afterMs: 3_000 } },
    play: then(parks, opened, over, deleted),
  },
  "refused-node-affinity": { refused: true, play: over },
  "refused-out-of-cpu": { refused: true, play: over },
  "refused-out-of-memory": { refused: true, play: over },
  "shutdown-refused": { refused: true, play: over },
  "pressure-refused": { refused: true, play: over },
  "pressure-running": {
    async play(bench) {
      await runs(bench);
      bench.machine.evict({ ...evictionVerdict(bench.machine.pod, "memory"), message: LOW_ON_MEMORY });
      await over(bench);
    },
  },
  "rebooted-running": { play: then(runs, reboot, over, deleted) },
  "rebooted-parked": { play: then(parks, reboot, parks, opened, deleted) },
};

/**
 * Lives that involve others: the node controller, whose lost nodes the integration tests compare with their recordings
 * (test/integration/lost-node.test.ts), a registry, or a kubelet that ends and comes back.
 */
const NOT_PLAYED =
  /^(lost|node-deleted|out-of-service|kubelet-restarted|containerd-restarted|containers-lost|pressure-(at-start|parked)|parked-(pull|image|secrets)|refused-taint)/;

/**
 * Returns what the kubelet itself reports about a Pod, each status once, without what it reads from the kernel at its
 * own pace.
 */
function told(statuses: readonly PodStatus[]): unknown[] {
  const seen = statuses
    .filter(({ startTime }) => startTime !== undefined)
    .map((status) => {
      const { resources: _read, podIP: _ip, podIPs: _ips, ...rest } = normalized(status) as Record<string, unknown>;
      const disruption = status.conditions?.find(({ reason }) => reason === "TerminationByKubelet");
      return { ...rest, disruption: disruption?.message };
    });
  return seen.filter((status, i) => JSON.stringify(status) !== JSON.stringify(seen[i - 1]));
}

function podOf({ spec }: Sequence): Pod {
  const pod = boundPod();
  const containers = spec.containers.map((container) => ({ ...container, image: "worker:1" }));
  return { ...pod, spec: { ...spec, containers, nodeName: "node-1" } };
}

describe("the life of a Pod matches the one on a real node", () => {
  test.each(Object.entries(CASES))("%s", async (name, { fates, refused, play }) => {
    const recorded = sequence(name);
    const { reason = "", message = "" } = recorded.steps.at(-1)?.status ?? {};
    const bench = new PodBench(podOf(recorded), fates, {}, refused && { reason, message });
    await play(bench);
    expect(told(bench.reports)).toEqual(told(recorded.steps.map(({ status }) => status)));
  });

  test("every recording is played, or its name says who else is involved", () => {
    const others = SEQUENCE_NAMES.filter((name) => NOT_PLAYED.test(name));
    expect([...Object.keys(CASES), ...others].sort()).toEqual([...SEQUENCE_NAMES].sort());
  });
});
