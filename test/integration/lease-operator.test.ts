import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import type { ItemRecord } from "../../simulator/item.ts";
import { bashScript } from "../../simulator/script.ts";
import { PODS } from "../../src/kube/resource.ts";
import type { FateInput } from "../../testbed/node/node.ts";
import { useCluster } from "../support/cluster.ts";
import { metricValue } from "../support/metric-value.ts";
import { otherPoller, SHORT_LEASE, serveOne, untilEnded, untilGone, untilState } from "../support/session-life.ts";
import { startWorld, type World, type WorldOptions } from "../support/world.ts";

const cluster = useCluster();

const RUNNER = fileURLToPath(new URL("../../examples/worker/tool-runner.mjs", import.meta.url));
const SOON = 300;
const NEVER = 600_000;

/**
 * A node that runs containers as processes. The session container is the SDK's tool runner, which sends no heartbeats.
 */
function runnerWorld(maxIdleMs: number, { sessions, ...options }: WorldOptions = {}): Promise<World> {
  return startWorld(cluster, {
    ...SHORT_LEASE,
    node: { runtime: "process", fates: () => undefined },
    container: {
      command: [process.execPath, RUNNER],
      env: [{ name: "MAX_IDLE_MS", value: String(maxIdleMs) }],
    },
    podSpec: { terminationGracePeriodSeconds: 30 },
    sessions: { lease: "Operator", ...sessions },
    ...options,
  });
}

/** A world whose containers get this fate: programs that know nothing of work items. */
function plainWorld(fate: FateInput, { sessions, ...options }: WorldOptions = {}): Promise<World> {
  const node = { fates: () => fate };
  return startWorld(cluster, { ...SHORT_LEASE, node, sessions: { lease: "Operator", ...sessions }, ...options });
}

/** An item's events without offers, since a busy machine may need more than one offer. */
const eventsOf = ({ history }: ItemRecord) => history.map(({ event }) => event).filter((event) => event !== "offered");
const atOf = ({ history }: ItemRecord, event: string) => history.find((each) => each.event === event)?.at ?? Number.NaN;

describe.concurrent("the SDK's session tool runner, which knows nothing of work items", () => {
  test("executes tool calls under a lease that the operator takes before its start and ends after it", async () => {
    await using world = await runnerWorld(SOON);
    const served = await serveOne(world, {
      script: bashScript("echo hello > file; cat file", "echo $((6 * 7)); false"),
    });
    const { last } = await untilEnded(world, served, "Completed");
    expect(eventsOf(last)).toEqual(["created", "acknowledged", "first heartbeat", "stopped by force"]);
    expect(last.history.find(({ event }) => event === "first heartbeat")?.by.as).toBe("environment-key");
    expect(last.stoppedBy?.as).toBe("environment-key");
    const { toolCalls } = world.simulator.session(served.item.sessionId ?? "");
    expect(toolCalls.map(({ output, isError }) => [output, isError])).toEqual([
      ["hello", false],
      ["42", true],
    ]);
    // The answer follows the first heartbeat: no container starts without a lease.
    expect(toolCalls[0]?.answeredAt).toBeGreaterThan(atOf(last, "first heartbeat"));
    expect(last.refusedBeats).toBe(0);
    const labels = { namespace: world.namespace, environment: world.name };
    expect(await metricValue(served.operator.metrics.heartbeats, { ...labels, result: "taken" })).toBe(1);
    expect(await metricValue(served.operator.metrics.leasesHeld, labels)).toBe(0);
    expect(await metricValue(served.operator.metrics.leasesLost, labels)).toBe(0);
  });

  test("gets heartbeats as long as it runs, and exits within its grace period when its Pod is deleted", async () => {
    await using world = await runnerWorld(NEVER);
    const served = await serveOne(world, { script: bashScript("echo working") });
    await world.until("four heartbeats", () => world.simulator.item(served.item.id).beats >= 4);
    expect(await metricValue(served.operator.metrics.leasesHeld, {})).toBe(1);
    await world.kube.delete(PODS, { namespace: world.namespace, name: served.pod.metadata.name ?? "" });
    const { last } = await untilEnded(world, served, "PodDeleted");
    expect(last.stoppedBy?.as).toBe("environment-key");
  });

  test("serves several sessions at a time in separate Pods, and later work of a session in another Pod", async () => {
    await using world = await runnerWorld(SOON, { sessions: { warm: 2, maxConcurrent: 4 } });
    await world.createEnvironment();
    world.startOperator();
    await world.untilParked(2);
    const items = [1, 2, 3].map((n) =>
      world.simulator.enqueue(world.environmentId, { script: bashScript(`echo session ${n}`) }),
    );
    await world.untilServed(3);
    const [first] = items;
    world.simulator.sendMessage(first?.sessionId ?? "", bashScript("echo again"));
    await world.untilServed(4);
    const outputs = items.map(({ sessionId = "" }) =>
      world.simulator.session(sessionId).toolCalls.map(({ output }) => output),
    );
    expect(outputs).toEqual([["session 1", "again"], ["session 2"], ["session 3"]]);
    world.simulator.assertNoViolations();
  });
});

describe.concurrent("the operator or the user ends a session whose lease the operator keeps", () => {
  /** Long enough for two heartbeats, which come within two and a half seconds each. */
  const LEAVES_AFTER_MS = 6_000;
  const slow: FateInput = { kind: "run", onTerm: { code: 0, afterMs: LEAVES_AFTER_MS } };
  const GRACE = { terminationGracePeriodSeconds: 30 };

  test("graceful stop by the user: the Pod has its grace period, and heartbeats continue until it ends", async () => {
    await using world = await plainWorld(slow, { podSpec: GRACE });
    const served = await serveOne(world);
    await world.until("the container runs", () => world.events("SessionStarted").length > 0);
    world.simulator.stopItem(served.item.id);
    const before = world.simulator.item(served.item.id).beats;
    const { last } = await untilEnded(world, served, "StoppedByUser");
    expect(last.beats).toBeGreaterThan(before + 1);
    // The container used its grace period.
    expect((last.stoppedAt ?? 0) - (last.stopRequestedAt ?? 0)).toBeGreaterThan(LEAVES_AFTER_MS);
    expect(last.stoppedBy?.as).toBe("environment-key");
    await untilGone(world, served.pod);
  });

  test("forced stop by the user: the Pod is deleted after the next heartbeat, and nothing more is sent", async () => {
    await using world = await plainWorld({ kind: "run", onTerm: { code: 0 } });
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    world.simulator.stopItem(served.item.id, { force: true });
    const { last } = await untilEnded(world, served, "StoppedByUser");
    expect(last.stoppedBy?.as).toBe("admin");
    await untilGone(world, served.pod);
  });

  test("past maxDurationSeconds: the item is told to stop, its Pod deleted, and then the item stopped", async () => {
    await using world = await plainWorld(slow, { sessions: { maxDurationSeconds: 2 }, podSpec: GRACE });
    const served = await serveOne(world);
    const { last, message } = await untilEnded(world, served, "MaxDuration");
    expect(eventsOf(last)).toEqual([
      "created",
      "acknowledged",
      "first heartbeat",
      "stop requested",
      "stopped by force",
    ]);
    expect(message).toContain("maxDurationSeconds");
  });

  test("deletion of the Environment: the session drains and is stopped, and nothing is left", async () => {
    // A quarter of the time limit of 60 s. The container takes a part of it, and a busy machine may take the rest.
    await using world = await plainWorld(slow, { timeScale: 4, spec: { deletionGraceSeconds: 1 }, podSpec: GRACE });
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    await world.deleteEnvironment();
    await world.until("the Environment is gone", () => world.environment === undefined);
    expect(world.simulator.item(served.item.id)).toMatchObject({
      state: "stopped",
      stoppedBy: { as: "environment-key" },
    });
    await world.caughtUp("secrets");
    expect(world.claims).toEqual([]);
    world.simulator.assertNoViolations();
  });

  test("a crashed container is settled immediately, without a quiet interval", async () => {
    await using world = await plainWorld({ kind: "exit", code: 3, afterMs: 8_000, message: "no more disk" });
    const served = await serveOne(world);
    const { last, message } = await untilEnded(world, served, "Failed");
    expect(message).toContain("exit code 3: no more disk");
    expect(last.stoppedBy?.as).toBe("environment-key");
    expect(last.refusedBeats).toBe(0);
  });
});

describe.concurrent("leases that the operator loses", () => {
  test("a TTL without an answered heartbeat: the Pod is deleted, and another client can take the item", async () => {
    await using world = await plainWorld({ kind: "run", onTerm: { code: 0 } }, { sessions: { maxConcurrent: 1 } });
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    world.simulator.inject({ kind: "status", call: "heartbeat", workId: served.item.id, status: 503 });
    await untilState(world, served.item, "queued");
    const other = otherPoller(world);
    const work = await other.take();
    expect(work.id).toBe(served.item.id);
    expect((await other.ack(work.id)).status).toBe(200);
    world.simulator.clearFaults();
    const last = await other.mustBeat(work.id, "NO_HEARTBEAT", 600);

    await world.until("the claim is released", () => world.claims.length === 0);
    await untilGone(world, served.pod);
    const about = await world.until("the Event LeaseLost", () => world.events("LeaseLost")[0]);
    expect(about.message).toContain(work.id);
    expect(world.simulator.item(work.id).state).toBe("active");
    await other.mustBeat(work.id, last);
    expect((await other.stop(work.id, true)).status).toBe(204);
    world.simulator.assertNoViolations();
    expect(await metricValue(served.operator.metrics.leasesLost, {})).toBe(1);
  });

  test("lost answers don't lose the lease: the refusal shows the operator's own value", async () => {
    await using world = await plainWorld({ kind: "exit", code: 0, afterMs: 12_000 });
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    world.simulator.inject({ kind: "lost-reply", call: "heartbeat", workId: served.item.id, times: 2 });
    await untilEnded(world, served, "Completed");
    expect(await metricValue(served.operator.metrics.leasesLost, {})).toBe(0);
    expect(await metricValue(served.operator.metrics.heartbeats, { result: "adopted" })).toBeGreaterThan(0);
  });
});
