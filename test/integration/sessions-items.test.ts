import { describe, expect, test } from "vitest";
import { useCluster } from "../support/cluster.ts";
import { metricValue } from "../support/metric-value.ts";
import { RenamingProxy } from "../support/renaming-proxy.ts";
import { SHORT_LEASE } from "../support/session-life.ts";
import { startWorld } from "../support/world.ts";

const cluster = useCluster();

describe.concurrent("items without a Pod", () => {
  test.each([
    ["healthcheck", "HealthCheck"],
    ["a-type-of-tomorrow", "UnknownItem"],
  ])(
    "an item of type %s is acknowledged and stopped immediately, and the parked Pod does not change",
    async (type, reason) => {
      await using world = await startWorld(cluster);
      await world.createEnvironment();
      const operator = world.startOperator();
      const [parked] = await world.untilParked(1);
      const item = world.simulator.enqueue(world.environmentId, { type });
      await world.untilServed(1);
      const record = world.simulator.item(item.id);
      expect(record.acks).toHaveLength(1);
      expect(record.stoppedBy?.as).toBe("environment-key");
      expect(record.beats).toBe(0);
      world.simulator.assertNoViolations();
      const labels = { namespace: world.namespace, environment: world.name, reason };
      await world.until("one session is counted as ended", async () => {
        return (await metricValue(operator.metrics.sessionsEnded, labels)) === 1;
      });
      expect(world.parked.map(({ metadata }) => metadata.uid)).toEqual([parked?.metadata.uid]);
    },
  );

  test("an item without a secret is stopped and reported in the condition until the next good item", async () => {
    await using world = await startWorld(cluster, SHORT_LEASE);
    await world.createEnvironment();
    world.startOperator();
    await world.untilParked(1);
    const item = world.simulator.enqueue(world.environmentId, { secret: false });
    await world.untilServed(1);
    const condition = await world.untilCondition("CredentialMissing", "CredentialMissing");
    expect(condition.status).toBe("True");
    expect(condition.message).toContain("set EnvironmentKey");
    expect(world.simulator.item(item.id).stoppedBy?.as).toBe("environment-key");
    await world.until("an Event", () =>
      world.events("CredentialMissing").find(({ message }) => message?.includes(item.id)),
    );

    world.simulator.enqueue(world.environmentId);
    await world.untilServed(2);
    await world.untilCondition("CredentialMissing", "CredentialsPresent");
    world.simulator.assertNoViolations();
  });
});

describe.concurrent("opaque ids", () => {
  test.each([
    ["characters that labels and paths do not allow", "wörk/1?x=%2F#&../ \"'\\{}", "session ; 42 ☃ =/.."],
    ["300 characters", `work_${"w".repeat(295)}`, `session_${"s".repeat(292)}`],
    ["last characters that labels do not allow", "work_-", "session_."],
  ])("%s", async (_what, workId, sessionId) => {
    await using world = await startWorld(cluster);
    await using proxy = await RenamingProxy.start(world.simulator.url);
    await world.createEnvironment({ api: { baseUrl: proxy.url, keySecretRef: { name: "key" } } });
    world.startOperator({ flags: ["--allowed-api-origins", proxy.url] });
    await world.untilParked(1);
    const { id } = world.simulator.enqueue(world.environmentId, { secret: true });
    const item = world.simulator.item(id);
    proxy.rename(id, workId);
    proxy.rename(item.sessionId ?? "", sessionId);
    const pod = await world.until("the Pod of the item exists", () =>
      world.pods.find(({ metadata }) => metadata.annotations?.["berth.dev/work-id"] === workId),
    );
    expect(pod.metadata.annotations?.["berth.dev/session-id"]).toBe(sessionId);
    await world.untilServed(1);
    expect(world.simulator.item(id).stoppedBy?.as).toBe("sessions-token");
    world.simulator.assertNoViolations();
  });
});
