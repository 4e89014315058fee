import { describe, expect, test } from "vitest";
import { bashScript } from "../../simulator/script.ts";
import { SECRETS } from "../../src/kube/resource.ts";
import { useCluster } from "../support/cluster.ts";
import { podOf, serveOne, untilEnded, untilState } from "../support/session-life.ts";
import { NEVER, SOON, stockWorld } from "../support/stock-worker-world.ts";
import type { World } from "../support/world.ts";

const cluster = useCluster();

const BY_KEY = { warm: 1, maxConcurrent: 3, credential: "EnvironmentKey" } as const;

/** The credential in a claim's Secret, as text. */
function given(world: World, workId: string): string | undefined {
  const text = (value: string | undefined) => value && Buffer.from(value, "base64").toString("utf8");
  return text(world.claims.find(({ data }) => text(data?.["work-id"]) === workId)?.data?.["work-secret"]);
}

async function setKey(world: World, key: string): Promise<void> {
  const ref = { namespace: world.namespace, name: "key" };
  await world.kube.patch(SECRETS, ref, { stringData: { "environment-key": key } }, { type: "merge" });
}

describe.concurrent("credential: EnvironmentKey", () => {
  test("an item without a secret is served by the stock worker with the environment key", async () => {
    await using world = await stockWorld(cluster, SOON, { sessions: BY_KEY });
    world.simulator.setSwitches({ secrets: "none" });
    const served = await serveOne(world, { script: bashScript("echo served") });
    const { last } = await untilEnded(world, served, "Completed");
    expect(last.stoppedBy?.as).toBe("environment-key");
    const { toolCalls } = world.simulator.session(served.item.sessionId ?? "");
    expect(toolCalls.map(({ output }) => output)).toEqual(["served"]);
    expect(served.pod.spec.containers[0]?.env?.map(({ name }) => name)).not.toContain("ANTHROPIC_WORK_SECRET");
    expect(world.condition("CredentialMissing")).toMatchObject({ status: "False", reason: "CredentialsPresent" });
    expect(world.condition("CredentialMissing")?.message).toContain("environment key");
  });

  test("an item with its own secret is still served with the environment key", async () => {
    await using world = await stockWorld(cluster, SOON, { sessions: BY_KEY });
    const served = await serveOne(world);
    const { last } = await untilEnded(world, served, "Completed");
    expect(last.stoppedBy?.as).toBe("environment-key");
  });

  test("a rotated key: a running session keeps the old one, and the next session gets the new one", async () => {
    await using world = await stockWorld(cluster, NEVER, { sessions: { ...BY_KEY, warm: 2 } });
    const old = world.simulator.environmentKey(world.environmentId);
    const first = await serveOne(world);
    await untilState(world, first.item, "active");
    expect(given(world, first.item.id)).toBe(old);
    const before = podOf(world, first.item)?.spec;

    // The old key is invalid from here on.
    const key = world.simulator.rotateKey(world.environmentId);
    await world.untilCondition("Authenticated", "KeyRejected");
    await setKey(world, key);
    await world.untilCondition("Authenticated", "KeyAccepted");
    const second = world.simulator.enqueue(world.environmentId);
    await untilState(world, second, "active");
    expect(given(world, second.id)).toBe(key);
    // The server refuses its worker, which exits. The operator has the new key and settles the item.
    expect([undefined, old]).toContain(given(world, first.item.id));
    expect(podOf(world, first.item)?.spec ?? before).toEqual(before);
    await untilState(world, first.item, "stopped");
    world.simulator.stopItem(second.id);
    await world.untilServed(2);
  });

  test("the key is in the claim's Secret, and in no Pod, Event or condition", async () => {
    await using world = await stockWorld(cluster, NEVER, { sessions: BY_KEY });
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    const key = world.simulator.environmentKey(world.environmentId);
    expect(given(world, served.item.id)).toBe(key);
    const shown = JSON.stringify([world.pods, world.environment, world.describe()]);
    expect(shown).not.toContain(key);
    expect(shown).not.toContain(Buffer.from(key).toString("base64"));
    world.simulator.stopItem(served.item.id);
    await untilEnded(world, served, "Completed");
  });

  test("an operator dies after the journal: the next one opens with the journaled key", async () => {
    await using world = await stockWorld(cluster, SOON, { sessions: BY_KEY });
    await world.createEnvironment();
    const first = await world.startOperatorProcess();
    await world.untilParked(1);
    world.simulator.setSwitches({ secrets: "none" });
    const item = world.simulator.enqueue(world.environmentId);
    await world.until("a claim", () => world.claims.length > 0);
    await first.process.kill();
    world.startOperator();
    await world.untilServed(1);
    expect(world.simulator.item(item.id).state).toBe("stopped");
    world.simulator.assertNoViolations();
  });

  test("a changed field: an item without a secret is not given to a Pod that was parked for one", async () => {
    await using world = await stockWorld(cluster, SOON, { sessions: { warm: 1, maxConcurrent: 3 } });
    await world.createEnvironment();
    world.startOperator();
    await world.untilParked(1);
    world.simulator.setSwitches({ secrets: "none" });
    await world.patchSpec({ sessions: { credential: "EnvironmentKey" } });
    await world.until("CredentialMissing names the environment key", () => {
      return world.condition("CredentialMissing")?.message.includes("environment key");
    });
    const item = world.simulator.enqueue(world.environmentId, { script: bashScript("echo served") });
    await world.untilServed(1);
    expect(world.simulator.session(item.sessionId ?? "").toolCalls.map(({ output }) => output)).toEqual(["served"]);
    world.simulator.assertNoViolations();
  });
});
