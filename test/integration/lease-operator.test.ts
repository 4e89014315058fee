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

/** A node that runs containers as processes: the session container is the SDK's tool runner, which sends no heartbeats. */
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

/** A world whose containers have this fate: programs that know nothing of work items. */
function plainWorld(fate: FateInput, { sessions, ...options }: WorldOptions = {}): Promise<World> {
  const node = { fates: () => fate };
  return startWorld(cluster, { ...SHORT_LEASE, node, sessions: { lease: "Operator", ...sessions }, ...options });
}

/** What happened to it; a busy machine may need more than one offer. */
const eventsOf = ({ history }: ItemRecord) => history.map(({ event }) => event).filter((event) => event !== "offered");
const atOf = ({ history }: ItemRecord, event: string) => history.find((each) => each.event === event)?.at ?? Number.NaN;

describe.concurrent("the session tool runner of the SDK, which knows nothing of work items", () => {
  test("executes its session's tool calls under a lease that the operator took before it started and ended after it", async () => {
    await using world = await runnerWorld(SOON);
    const served = await serveOne(world, {
      script: bashScript("echo hello > file; cat file", "echo $((6 * 7)); false"),
    });
    const { last } = await untilEnded(world, served, "Completed");
    expect(eventsOf(last)).toEqual(["created", "acknowledged", "first beat", "stopped by force"]);
    expect(last.history.find(({ event }) => event === "first beat")?.by.as).toBe("environment-key");
    expect(last.stoppedBy?.as).toBe("environment-key");
    const { toolCalls } = world.simulator.session(served.item.sessionId ?? "");
    expect(toolCalls.map(({ output, isError }) => [output, isError])).toEqual([
      ["hello", false],
      ["42", true],
    ]);
    // It was answered after the first beat: no container starts without its lease.
    expect(toolCalls[0]?.answeredAt).toBeGreaterThan(atOf(last, "first beat"));
    expect(last.refusedBeats).toBe(0);
    const labels = { namespace: world.namespace, environment: world.name };
    expect(await metricValue(served.operator.metrics.heartbeats, { ...labels, result: "taken" })).toBe(1);
    expect(await metricValue(served.operator.metrics.leasesHeld, labels)).toBe(0);
    expect(await metricValue(served.operator.metrics.leasesLost, labels)).toBe(0);
  });

  test("is beaten for as long as it runs, and leaves in its grace when its Pod is deleted", async () => {
    await using world = await runnerWorld(NEVER);
    const served = await serveOne(world, { script: bashScript("echo working") });
    await world.until("some beats", () => world.simulator.item(served.item.id).beats >= 4);
    expect(await metricValue(served.operator.metrics.leasesHeld, {})).toBe(1);
    await world.kube.delete(PODS, { namespace: world.namespace, name: served.pod.metadata.name ?? "" });
    const { last } = await untilEnded(world, served, "PodDeleted");
    expect(last.stoppedBy?.as).toBe("environment-key");
  });

  test("serves several sessions at a time, each in a Pod of its own, and later work of one session in another", async () => {
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
  /** Longer than it takes for two beats, which come within two and a half seconds each. */
  const LEAVES_AFTER_MS = 6_000;
  const slow: FateInput = { kind: "run", onTerm: { code: 0, afterMs: LEAVES_AFTER_MS } };
  const GRACE = { terminationGracePeriodSeconds: 30 };

  test("the user's graceful stop: the Pod is deleted with its grace, beaten until it is gone, and then stopped", async () => {
    await using world = await plainWorld(slow, { podSpec: GRACE });
    const served = await serveOne(world);
    await world.until("the container runs", () => world.events("SessionStarted").length > 0);
    world.simulator.stopItem(served.item.id);
    const before = world.simulator.item(served.item.id).beats;
    const { last } = await untilEnded(world, served, "StoppedByUser");
    expect(last.beats).toBeGreaterThan(before + 1);
    // Not before its grace was used.
    expect((last.stoppedAt ?? 0) - (last.stopRequestedAt ?? 0)).toBeGreaterThan(LEAVES_AFTER_MS);
    expect(last.stoppedBy?.as).toBe("environment-key");
    await untilGone(world, served.pod);
  });

  test("the user's forced stop: the Pod is deleted by the next beat, and nothing more is sent", async () => {
    await using world = await plainWorld({ kind: "run", onTerm: { code: 0 } });
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    world.simulator.stopItem(served.item.id, { force: true });
    const { last } = await untilEnded(world, served, "StoppedByUser");
    expect(last.stoppedBy?.as).toBe("admin");
    await untilGone(world, served.pod);
  });

  test("maxDurationSeconds over: asked to stop, its Pod ended, then stopped", async () => {
    await using world = await plainWorld(slow, { sessions: { maxDurationSeconds: 2 }, podSpec: GRACE });
    const served = await serveOne(world);
    const { last, message } = await untilEnded(world, served, "MaxDuration");
    expect(eventsOf(last)).toEqual(["created", "acknowledged", "first beat", "stop requested", "stopped by force"]);
    expect(message).toContain("maxDurationSeconds");
  });

  test("the Environment deleted: the session is drained, then stopped, and nothing is left", async () => {
    // A quarter of the bound of 60 s: the container takes a part of it, and a busy machine may take the rest.
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

  test("a container that crashes is settled at once: no value has to stand still", async () => {
    await using world = await plainWorld({ kind: "exit", code: 3, afterMs: 8_000, message: "no more disk" });
    const served = await serveOne(world);
    const { last, message } = await untilEnded(world, served, "Failed");
    expect(message).toContain("exit code 3: no more disk");
    expect(last.stoppedBy?.as).toBe("environment-key");
    expect(last.refusedBeats).toBe(0);
  });
});

describe.concurrent("leases that the operator loses", () => {
  test("no beat answered for a whole TTL: the Pod is deleted, the item is not stopped, and somebody else may have it", async () => {
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

    await world.until("the claim is let go", () => world.claims.length === 0);
    await untilGone(world, served.pod);
    const about = await world.until("an Event about it", () => world.events("LeaseLost")[0]);
    expect(about.message).toContain(work.id);
    expect(world.simulator.item(work.id).state).toBe("active");
    await other.mustBeat(work.id, last);
    expect((await other.stop(work.id, true)).status).toBe(204);
    world.simulator.assertNoViolations();
    expect(await metricValue(served.operator.metrics.leasesLost, {})).toBe(1);
  });

  test("answers that get lost cost no lease: the value that a refusal shows is its own", async () => {
    await using world = await plainWorld({ kind: "exit", code: 0, afterMs: 12_000 });
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    world.simulator.inject({ kind: "lost-reply", call: "heartbeat", workId: served.item.id, times: 2 });
    await untilEnded(world, served, "Completed");
    expect(await metricValue(served.operator.metrics.leasesLost, {})).toBe(0);
    expect(await metricValue(served.operator.metrics.heartbeats, { result: "adopted" })).toBeGreaterThan(0);
  });
});
