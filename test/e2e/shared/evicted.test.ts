import { describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import type { Pod } from "../../../src/kube/resource.ts";
import { counted, deletePod, evictPod, latest, terminatedOf } from "../support/pods.ts";
import { enqueueOne, type Served, serveOne, untilEnded, untilGone, untilState } from "../support/session-life.ts";
import { LIVELY_SECONDS, NEVER, WORKER_COMMANDS } from "../support/worker-template.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

/** How another client removes a Pod, and the end reason of its session. */
const WAYS = [
  { what: "evicted through the API", take: (world: E2eWorld, pod: Pod) => evictPod(world, pod), reason: "Evicted" },
  { what: "deleted by hand", take: (world: E2eWorld, pod: Pod) => deletePod(world, pod), reason: "PodDeleted" },
] as const;

/** Long enough for a worker to drain on an overloaded node. */
const PATIENT = { terminationGracePeriodSeconds: 60 };

const untilActive = async (world: E2eWorld): Promise<Served> => {
  const served = await serveOne(world);
  await untilState(world, served.item, "active");
  return served;
};

describe.concurrent("a Pod with a session", () => {
  test.for(WAYS)("$what: its worker gets the signal and stops its item", async ({ take, reason }) => {
    await using world = await startE2eWorld({ maxIdleMs: NEVER, podSpec: PATIENT });
    const served = await untilActive(world);
    await take(world, served.pod);
    const { last, message } = await untilEnded(world, served, reason);
    expect(last.stoppedBy?.as).toBe("sessions-token");
    expect(message).toContain(last.id);
    expect(terminatedOf(world, served)?.exitCode).toBe(0);
    await untilGone(world, served.pod);
  });

  test("deleted by force: its item is stopped once its lease has been unchanged long enough", async () => {
    await using world = await startE2eWorld({ maxIdleMs: NEVER });
    const served = await untilActive(world);
    await deletePod(world, served.pod, true);
    const { last } = await untilEnded(world, served, "PodDeleted");
    expect(last.state).toBe("stopped");
    await untilGone(world, served.pod);
  });

  test("deleted by force while it gets its session: its item is stopped or served by another Pod", async () => {
    await using world = await startE2eWorld({ sessions: { warm: 1, maxConcurrent: 1 } });
    await world.createEnvironment();
    const [parked] = await world.untilParked(1);
    const deleted = Promise.withResolvers<void>();
    const unsubscribe = world.onPodChange(() => {
      const pod = parked && latest(world, parked);
      if (pod?.metadata.labels?.["berth.dev/phase"] !== "running") return;
      unsubscribe();
      deletePod(world, pod, true).then(deleted.resolve, deleted.reject);
    });
    const item = await world.simulator.enqueue(world.environmentId, { script: bashScript("echo hello") });
    await deleted.promise;
    await world.untilServed(1);
    expect((await world.simulator.item(item.id)).state).toBe("stopped");
    // The next session is served as usual.
    const next = await enqueueOne(world, { script: bashScript("echo hello") });
    await untilState(world, next.item, "stopped");
    await world.untilServed(2);
  });
});

describe.concurrent("a parked Pod", () => {
  const LOST = [
    ...WAYS,
    { what: "deleted by force", take: (world: E2eWorld, pod: Pod) => deletePod(world, pod, true) },
  ] as const;
  test.for(LOST)("$what is replaced, counts as no failure, and costs no item", async ({ take }) => {
    await using world = await startE2eWorld({ sessions: { warm: 1, maxConcurrent: 1 } });
    await world.createEnvironment();
    const [parked] = await world.untilParked(1);
    if (!parked) throw new Error("no Pod is parked");
    await take(world, parked);
    await untilGone(world, parked);
    await world.untilParked(1);
    expect(await counted(world, "berth_prepare_failures_total")).toBe(0);
    expect(await counted(world, "berth_sessions_ended_total")).toBe(0);
    expect(world.condition("CapacityAvailable")?.reason).toBe("Available");
    const served = await enqueueOne(world);
    await untilEnded(world, served, "Completed");
  });
});

describe.concurrent("disruption: Protect", () => {
  test("blocks an eviction only while the session runs", async () => {
    await using world = await startE2eWorld({
      maxIdleMs: NEVER,
      ttlSeconds: LIVELY_SECONDS,
      sessions: { disruption: "Protect" },
    });
    const served = await untilActive(world);
    // Kubernetes allows the eviction of a pending Pod, and the worker may send a heartbeat before the kubelet reports
    // it as running.
    await world.until("the Pod is said to run", () => latest(world, served.pod).status?.phase === "Running");
    await expect(evictPod(world, served.pod)).rejects.toThrow(/disruption budget/);
    await world.simulator.stopItem(served.item.id);
    const { last } = await untilEnded(world, served, "Completed");
    expect(last.stoppedBy?.as).toBe("sessions-token");
  });
});

/**
 * A volume that may hold 1 MiB, and a session that writes more. The kubelet measures volumes every one to two minutes,
 * and a worker gives up a command after two minutes, so further commands keep waiting.
 */
const SMALL = { volumes: [{ name: "small", emptyDir: { sizeLimit: "1Mi" } }] };
const volumeMounts = [{ name: "small", mountPath: "/small" }];
const script = bashScript("head -c 20000000 /dev/zero > /small/file; echo written", ...Array(3).fill("sleep 600"));

describe.concurrent("a Pod that the kubelet evicts because it exceeds its disk limit", () => {
  test("is reported as evicted, with the kubelet's message", async () => {
    // The shell does not forward the signal, so the worker is not told to stop.
    const command = ["sh", "-c", `${WORKER_COMMANDS.typescript.join(" ")}; exit 1`];
    await using world = await startE2eWorld({ podSpec: SMALL, container: { command, volumeMounts } });
    const served = await serveOne(world, { script });
    const { last, message } = await untilEnded(world, served, "Evicted");
    expect(message).toContain('Usage of EmptyDir volume "small" exceeds the limit "1Mi"');
    expect(last.stoppedBy?.as).toBe("environment-key");
    expect(latest(world, served.pod).status).toMatchObject({ phase: "Failed", reason: "Evicted" });
  });

  test("is no failure if its worker exits in time: the kubelet reports it only by an Event", async () => {
    await using world = await startE2eWorld({ podSpec: SMALL, container: { volumeMounts } });
    const served = await serveOne(world, { script });
    const { name } = served.pod.metadata;
    await world.until("kubelet's Event", () =>
      world.events("Evicted").some(({ involvedObject }) => involvedObject.name === name),
    );
    const { exitCode } = await world.until("the container's end", () => terminatedOf(world, served));
    // The kubelet allows a second. On a slow node it kills the worker before the worker exits, and reports the Pod as
    // evicted.
    await untilEnded(world, served, exitCode === 0 ? "Completed" : "Evicted");
  });
});
