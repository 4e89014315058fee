import { describe, expect, test } from "vitest";
import type { PointEvent } from "../../../src/core/points.ts";
import type { Pod } from "../../../src/kube/resource.ts";
import { NO_DEADLINE_SECONDS } from "../../../src/pods/pod-render.ts";
import { LoopWorld, type LoopWorldOptions } from "./loop-world.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

function served(options: LoopWorldOptions = {}): LoopWorld {
  const world = new LoopWorld(options);
  world.createEnvironment();
  world.startOperator();
  return world;
}

/** Serves one item and returns its finished Pod, with the time (monotonic) at which its claim was settled. */
async function serveOne(world: LoopWorld): Promise<{ pod: Pod; atMs: number }> {
  const id = world.enqueue();
  const its = ({ metadata }: Pod) => metadata.annotations?.["berth.dev/work-id"] === id;
  await world.until("the Pod is marked as finished", () => world.podsOf("ended").some(its));
  const pod = world.podsOf("ended").find(its);
  if (!pod) throw new Error("no Pod");
  return { pod, atMs: world.clock.monotonic() };
}

const isThere = (world: LoopWorld, { metadata: { uid } }: Pod) =>
  world.pods.some(({ metadata }) => metadata.uid === uid && !metadata.deletionTimestamp);

const stock = () => ({ startError: false, program: "stock" as const, servesMs: 5_000 });
const broken = () => ({ startError: false, program: "crashes" as const, servesMs: 5_000 });

describe("finished Pods are retained for their logs", () => {
  test("for retainEndedSeconds after a session that ended well", async () => {
    const world = served({ sessions: { retainEndedSeconds: 120, retainFailedSeconds: 0 }, fate: stock });
    const { pod } = await serveOne(world);
    await world.pass(115 * SECOND);
    expect(isThere(world, pod)).toBe(true);
    await world.until("the Pod is gone", () => !isThere(world, pod), 15 * SECOND);
  });

  test("for retainFailedSeconds after a failed session", async () => {
    const world = served({ sessions: { retainEndedSeconds: 0, retainFailedSeconds: 300 }, fate: broken });
    const { pod } = await serveOne(world);
    await world.pass(290 * SECOND);
    expect(isThere(world, pod)).toBe(true);
    await world.until("the Pod is gone", () => !isThere(world, pod), 30 * SECOND);
  });

  test("for the longer time after a change of the spec", async () => {
    const world = served({ sessions: { retainEndedSeconds: 60 }, fate: stock });
    const { pod } = await serveOne(world);
    world.patchEnvironment({ spec: { sessions: { retainEndedSeconds: 600 } } });
    await world.pass(5 * MINUTE);
    expect(isThere(world, pod)).toBe(true);
    await world.until("the Pod is gone", () => !isThere(world, pod), 6 * MINUTE);
  });
});

describe("a Pod that gets its session", () => {
  const slow = () => ({ startError: false, program: "stock" as const, servesMs: 5 * MINUTE });

  async function running(options: LoopWorldOptions): Promise<{ world: LoopWorld; pod: Pod; parked: Pod }> {
    const world = served({ fate: slow, ...options });
    await world.until("a parked Pod", () => world.parked.length === 1);
    const [parked] = world.parked;
    // The time that a Pod was parked counts toward its deadline.
    await world.pass(90 * SECOND);
    const id = world.enqueue();
    await world.until("the session runs", () => world.item(id).state === "active");
    const [pod] = world.podsOf("running");
    if (!pod || !parked) throw new Error("no Pod");
    return { world, pod, parked };
  }

  test("is protected from autoscalers, unlike a parked Pod", async () => {
    const { pod, parked } = await running({});
    expect(parked.metadata.annotations?.["cluster-autoscaler.kubernetes.io/safe-to-evict"]).toBe("true");
    expect(parked.metadata.annotations?.["karpenter.sh/do-not-disrupt"]).toBeUndefined();
    expect(pod.metadata.annotations).toMatchObject({
      "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
      "karpenter.sh/do-not-disrupt": "true",
    });
  });

  test("keeps the template's own annotations for autoscalers", async () => {
    const annotations = {
      "cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
      "karpenter.sh/do-not-disrupt": "false",
    };
    const containers = [{ name: "worker", image: "worker:1" }];
    const { pod } = await running({ sessions: { template: { metadata: { annotations }, spec: { containers } } } });
    expect(pod.metadata.annotations).toMatchObject(annotations);
  });

  test("gets a deadline in case the operator dies: age, maxDurationSeconds and twice the grace period", async () => {
    const { pod, parked } = await running({ sessions: { maxDurationSeconds: 1_000 } });
    expect(parked.spec.activeDeadlineSeconds).toBe(NO_DEADLINE_SECONDS);
    const afterAge = (pod.spec.activeDeadlineSeconds ?? 0) - 1_000 - 2 * 30;
    expect(afterAge).toBeGreaterThanOrEqual(89);
    expect(afterAge).toBeLessThanOrEqual(95);
  });
});

describe("parked Pods", () => {
  test("beyond warm are deleted after five minutes, and not earlier", async () => {
    const world = served({ sessions: { warm: 3, parkedMaxAgeSeconds: 0 } });
    await world.until("three parked Pods", () => world.parked.length === 3);
    world.patchEnvironment({ spec: { sessions: { warm: 1 } } });
    await world.pass(290 * SECOND);
    expect(world.parked).toHaveLength(3);
    await world.until("one parked Pod is left", () => world.parked.length === 1, 20 * SECOND);
  });

  test("are replaced at parkedMaxAgeSeconds, a single one after its successor is parked; 0 disables this", async () => {
    const world = served({ sessions: { warm: 1, maxConcurrent: 1, parkedMaxAgeSeconds: 300 } });
    await world.until("one parked Pod", () => world.parked.length === 1);
    const [first] = world.parked;
    let none = 0;
    world.server.subscribe(() => {
      if (world.parked.length === 0) none += 1;
    });
    await world.pass(235 * SECOND);
    expect(world.parked.map(({ metadata }) => metadata.uid)).toEqual([first?.metadata.uid]);
    await world.until("only another parked Pod is left", () => {
      return world.pods.length === 1 && world.parked[0]?.metadata.uid !== first?.metadata.uid;
    });
    expect(none).toBe(0);
    world.patchEnvironment({ spec: { sessions: { parkedMaxAgeSeconds: 0 } } });
    const [second] = world.parked;
    await world.pass(60 * MINUTE);
    expect(world.parked.map(({ metadata }) => metadata.uid)).toEqual([second?.metadata.uid]);
  });
});

test("touches a Pod again that its kubelet missed, and counts the touches in the Pod's annotation", async () => {
  let sent = 0;
  const points = ({ point, phase }: PointEvent) => {
    if (point === "session.touch" && phase === "after") sent += 1;
  };
  const world = served({ sessions: { retainEndedSeconds: 3_600 }, fate: stock, points });
  let counted = 0;
  for (let n = 0; n < 24; n += 1) {
    const { pod } = await serveOne(world);
    counted += Number(pod.metadata.annotations?.["berth.dev/touches"]);
  }
  expect(counted).toBe(sent);
  // The simulated kubelet misses the key sometimes: see UNSEEN in node.ts.
  expect(sent).toBeGreaterThan(24);
});
