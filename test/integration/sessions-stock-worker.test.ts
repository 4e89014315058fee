import { describe, expect, test } from "vitest";
import { bashScript } from "../../simulator/script.ts";
import { PODS } from "../../src/kube/resource.ts";
import { useCluster } from "../support/cluster.ts";
import { serveOne, untilEnded, untilState } from "../support/session-life.ts";
import { NEVER, SOON, stockWorld as stockWorldOf } from "../support/stock-worker-world.ts";
import type { WorldOptions } from "../support/world.ts";

const cluster = useCluster();

const stockWorld = (maxIdleMs: number, options?: WorldOptions) => stockWorldOf(cluster, maxIdleMs, options);

describe.concurrent("the stock worker in a session Pod", () => {
  test("executes its session's tool calls, stops its item and exits", async () => {
    await using world = await stockWorld(SOON);
    const served = await serveOne(world, {
      script: bashScript("echo hello > file; cat file", "echo $((6 * 7)); false"),
    });
    const { last } = await untilEnded(world, served, "Completed");
    expect(last.stoppedBy?.as).toBe("sessions-token");
    const { toolCalls } = world.simulator.session(served.item.sessionId ?? "");
    expect(toolCalls.map(({ output, isError }) => [output, isError])).toEqual([
      ["hello", false],
      ["42", true],
    ]);
    expect(toolCalls.map(({ answeredBy }) => answeredBy)).toEqual([served.item.id, served.item.id]);
    expect(world.simulator.excused).toEqual([]);
  });

  test("serves several sessions in separate Pods, and later work of a session in another Pod", async () => {
    await using world = await stockWorld(SOON, { sessions: { warm: 2, maxConcurrent: 4 } });
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
    const outputs = items.map(({ sessionId = "" }) => {
      return world.simulator.session(sessionId).toolCalls.map(({ output }) => output);
    });
    expect(outputs).toEqual([["session 1", "again"], ["session 2"], ["session 3"]]);
    world.simulator.assertNoViolations();
  });

  test("posts nothing after a kill -9: the operator fences and stops its item", async () => {
    await using world = await stockWorld(NEVER);
    const served = await serveOne(world, { script: bashScript("echo working") });
    await world.until("the tool call is answered", () => {
      return world.simulator.session(served.item.sessionId ?? "").toolCalls[0]?.answeredAt;
    });
    expect(world.node.kill({ namespace: world.namespace, name: served.pod.metadata.name })).toBe(true);
    const { last, message } = await untilEnded(world, served, "Killed");
    expect(last.stoppedBy?.as).toBe("environment-key");
    expect(message).toContain("137");
  });

  test("drains and stops its item itself on SIGTERM when its Pod is deleted", async () => {
    await using world = await stockWorld(NEVER);
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    await world.kube.delete(PODS, { namespace: world.namespace, name: served.pod.metadata.name ?? "" });
    const { last } = await untilEnded(world, served, "PodDeleted");
    expect(last.stoppedBy?.as).toBe("sessions-token");
  });

  test("exits after its next heartbeat when the user stops it", async () => {
    await using world = await stockWorld(NEVER);
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    world.simulator.stopItem(served.item.id);
    const { last } = await untilEnded(world, served, "Completed");
    expect(last.stoppedBy?.as).toBe("sessions-token");
  });

  test("exits with 1 and stops its item when its session was deleted, and the Event has the exit code", async () => {
    await using world = await stockWorld(NEVER);
    world.simulator.on("item", (item, event) => {
      if (event === "acknowledged") world.simulator.deleteSession(item.sessionId ?? "");
    });
    const served = await serveOne(world);
    const { last, message } = await untilEnded(world, served, "Failed");
    expect(last.stoppedBy?.as).toBe("sessions-token");
    expect(message).toContain("exit code 1");
  });
});
