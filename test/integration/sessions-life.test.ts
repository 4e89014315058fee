import { describe, expect, test } from "vitest";
import { PODS } from "../../src/kube/resource.ts";
import type { FateInput } from "../../testbed/node/node.ts";
import { useCluster } from "../support/cluster.ts";
import { metricValue } from "../support/metric-value.ts";
import {
  otherPoller,
  playWorker,
  SHORT_LEASE,
  serveOne,
  untilEnded,
  untilGone,
  untilState,
  workerClient,
} from "../support/session-life.ts";
import { startWorld, type World, type WorldOptions } from "../support/world.ts";

const cluster = useCluster();

/** A world whose session containers all get this fate, with leases that match the operator's faster timers. */
function worldOf(fate: FateInput, options: WorldOptions = {}): Promise<World> {
  return startWorld(cluster, { ...SHORT_LEASE, node: { fates: () => fate }, ...options });
}

const hanging: FateInput = { kind: "worker", end: "hang" };
/** The test acts as the worker, with the claim's token, and may or may not send heartbeats. */
const played: FateInput = { kind: "run" };

describe.concurrent("the container ends on its own", () => {
  test("a worker that is done stops its item, and the operator sends nothing more", async () => {
    await using world = await worldOf({ kind: "worker", workMs: 300 });
    const served = await serveOne(world);
    const { last } = await untilEnded(world, served, "Completed");
    expect(last.stoppedBy?.as).toBe("sessions-token");
    expect(last.acks).toHaveLength(1);
    await untilGone(world, served.pod);
    const labels = { namespace: world.namespace, environment: world.name };
    expect(await metricValue(served.operator.metrics.sessionsStarted, labels)).toBe(1);
    expect(world.events("SessionStarted").length).toBeGreaterThan(0);
  });

  test("while it runs, the API server records no owners of its Pod's fields", async () => {
    await using world = await worldOf(hanging);
    const { pod, item } = await serveOne(world);
    await untilState(world, item, "active");
    await world.until("the Pod is assigned, without owners of fields", async () => {
      const { metadata } = await world.kube.get(PODS, { namespace: world.namespace, name: pod.metadata.name ?? "" });
      return metadata.labels?.["berth.dev/phase"] === "running" && metadata["managedFields"] === undefined;
    });
  });

  test("out of memory: the operator takes the lease after a quiet interval, then stops the item", async () => {
    await using world = await worldOf({ kind: "worker", workMs: 300, end: "oom" });
    const served = await serveOne(world);
    const { last, message } = await untilEnded(world, served, "OOMKilled");
    expect(last.stoppedBy?.as).toBe("environment-key");
    expect(message).toContain("memory");
  });

  test("killed by SIGKILL: the item is fenced and stopped, with the exit code in the Event", async () => {
    await using world = await worldOf({ kind: "worker", workMs: 300, end: "killed" });
    const served = await serveOne(world);
    const { last, message } = await untilEnded(world, served, "Killed");
    expect(last.stoppedBy?.as).toBe("environment-key");
    expect(message).toContain("137");
  });

  test("an immediate crash without a heartbeat: the item is stopped, and the Event has the last message", async () => {
    await using world = await worldOf({ kind: "exit", code: 3, afterMs: 0, message: "no such model" });
    const served = await serveOne(world);
    const { last, message } = await untilEnded(world, served, "Failed");
    expect(last.stoppedBy?.as).toBe("environment-key");
    expect(last.beats).toBe(1);
    expect(message).toContain("exit code 3: no such model");
    const labels = { namespace: world.namespace, environment: world.name };
    expect(await metricValue(served.operator.metrics.startFailures, labels)).toBe(1);
  });

  test("exit code 0 without a stop is not enough: the operator stops the item", async () => {
    await using world = await worldOf({ kind: "worker", workMs: 300, end: "exit-without-stop" });
    const served = await serveOne(world);
    const { last } = await untilEnded(world, served, "Completed");
    expect(last.stoppedBy?.as).toBe("environment-key");
  });

  test("exit code 0 without a heartbeat ends as NoFirstBeat", async () => {
    await using world = await worldOf({ kind: "exit", code: 0, afterMs: 0 });
    const served = await serveOne(world);
    const { last } = await untilEnded(world, served, "NoFirstBeat");
    expect(last.stoppedBy?.as).toBe("environment-key");
  });

  test("a missing command is detected after the opening: the item is stopped with the kubelet's message", async () => {
    await using world = await worldOf({ kind: "start-error" });
    const served = await serveOne(world);
    const { last, message } = await untilEnded(world, served, "StartFailed");
    expect(last.stoppedBy?.as).toBe("environment-key");
    expect(message).toContain("no such file or directory");
  });

  test("a root image with runAsNonRoot never starts: its Pod is deleted and the item stopped", async () => {
    await using world = await worldOf({ kind: "root-image" });
    const served = await serveOne(world);
    const { last, message } = await untilEnded(world, served, "StartFailed");
    expect(last.stoppedBy?.as).toBe("environment-key");
    expect(message).toContain("runAsNonRoot");
    await untilGone(world, served.pod);
  });
});

describe.concurrent("the operator or the user ends the session", () => {
  test("no first heartbeat: the item is stopped, then the Pod deleted, and the message names the fix", async () => {
    await using world = await worldOf(
      { kind: "worker", neverBeats: true, end: "hang" },
      { sessions: { firstBeatTimeoutSeconds: 1, maxConcurrent: 1 } },
    );
    const served = await serveOne(world);
    const { last, message } = await untilEnded(world, served, "NoFirstBeat");
    expect(message).toContain("lease: Operator");
    // A busy machine may need more than one offer.
    const events = last.history.map(({ event }) => event).filter((event) => event !== "offered");
    expect(events).toEqual(["created", "acknowledged", "first heartbeat", "stopped by force"]);
    expect(last.stoppedBy?.as).toBe("environment-key");
    await untilGone(world, served.pod);
  });

  test("graceful stop by the user: the worker learns of it with its heartbeat and exits", async () => {
    await using world = await worldOf(hanging, { podSpec: { terminationGracePeriodSeconds: 20 } });
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    world.simulator.stopItem(served.item.id);
    const { last } = await untilEnded(world, served, "Completed");
    expect(last.stoppedBy?.as).toBe("sessions-token");
  });

  test("graceful stop by the user, ignored: the Pod is deleted after its grace period, the item stopped", async () => {
    await using world = await worldOf(played);
    const served = await serveOne(world);
    using _beating = await playWorker(world, served.item);
    world.simulator.stopItem(served.item.id);
    const { last } = await untilEnded(world, served, "StoppedByUser");
    expect(last.stoppedBy?.as).toBe("environment-key");
    await untilGone(world, served.pod);
  });

  test("forced stop by the user: the worker learns of it with its heartbeat and exits", async () => {
    await using world = await worldOf(hanging);
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    world.simulator.stopItem(served.item.id, { force: true });
    const { last } = await untilEnded(world, served, "Completed");
    expect(last.stoppedBy?.as).toBe("admin");
  });

  test("forced stop by the user, without the worker noticing: the Pod is deleted", async () => {
    await using world = await worldOf(played);
    const served = await serveOne(world);
    const beating = await playWorker(world, served.item);
    beating[Symbol.dispose]();
    world.simulator.stopItem(served.item.id, { force: true });
    await untilEnded(world, served, "StoppedByUser");
    await untilGone(world, served.pod);
  });

  test("past maxDurationSeconds: a graceful stop comes first, and the worker exits on its own", async () => {
    await using world = await worldOf(hanging, {
      sessions: { maxDurationSeconds: 2 },
      podSpec: { terminationGracePeriodSeconds: 20 },
    });
    const served = await serveOne(world);
    const { last, message } = await untilEnded(world, served, "MaxDuration");
    expect(last.history.map(({ event }) => event)).toContain("stop requested");
    expect(last.stoppedBy?.as).toBe("sessions-token");
    expect(message).toContain("maxDurationSeconds");
  });

  test("past maxDurationSeconds, stop ignored: the Pod is deleted after its grace period", async () => {
    await using world = await worldOf(played, {
      sessions: { maxDurationSeconds: 2 },
      podSpec: { terminationGracePeriodSeconds: 5 },
    });
    const served = await serveOne(world);
    using _beating = await playWorker(world, served.item);
    const { last } = await untilEnded(world, served, "MaxDuration");
    expect(last.history.map(({ event }) => event)).toContain("stop requested");
    expect(last.stoppedBy?.as).toBe("environment-key");
  });
});

describe.concurrent("another client takes the lease", () => {
  test("a lapsed item that another cluster took is never stopped, and its first Pod is deleted", async () => {
    await using world = await worldOf(played, { sessions: { maxConcurrent: 1 } });
    const served = await serveOne(world);
    const { id } = served.item;
    const worker = await world.until("the claim is opened", () => workerClient(world, served.item));
    await worker.mustBeat(id, "NO_HEARTBEAT");
    await untilState(world, served.item, "queued");
    const other = otherPoller(world);
    const work = await other.take();
    expect(work.id).toBe(id);
    expect((await other.ack(id)).status).toBe(200);
    const last = await other.mustBeat(id, "NO_HEARTBEAT", 600);

    await world.until("the claim is released", () => world.claims.length === 0);
    await untilGone(world, served.pod);
    const about = await world.until("the Event LeaseLost", () => world.events("LeaseLost")[0]);
    expect(about.message).toContain(id);
    expect(world.simulator.item(id).state).toBe("active");
    await other.mustBeat(id, last);
    expect((await other.stop(id, true)).status).toBe(204);
    world.simulator.assertNoViolations();
    const labels = { namespace: world.namespace, environment: world.name };
    expect(await metricValue(served.operator.metrics.leasesLost, labels)).toBe(1);
  });
});
