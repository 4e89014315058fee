import { describe, expect, test } from "vitest";
import { bashScript } from "../../simulator/script.ts";
import { WORK_SECRET_FILE } from "../../src/pods/pod-gate.ts";
import { useCluster } from "../support/cluster.ts";
import { podOf, serveOne, untilEnded } from "../support/session-life.ts";
import { NEVER, SOON, stockWorld } from "../support/stock-worker-world.ts";

const cluster = useCluster();

const FILE = { warm: 1, secretDelivery: "File" } as const;

describe.concurrent("secretDelivery: File", () => {
  test("the stock worker reads the secret from its file, and its variables hold only the path", async () => {
    await using world = await stockWorld(cluster, SOON, { sessions: FILE });
    const file = `..${WORK_SECRET_FILE}`;
    const script = bashScript(`stat -c %a ${file}`, `ls -A $(dirname ${file})`);
    const served = await serveOne(world, { script });
    const { last } = await untilEnded(world, served, "Completed");
    expect(last.stoppedBy?.as).toBe("sessions-token");
    const { toolCalls } = world.simulator.session(served.item.sessionId ?? "");
    expect(toolCalls.map(({ output }) => output?.trim())).toEqual(["400", "work-secret"]);
    const names = served.pod.spec.containers[0]?.env?.map(({ name }) => name);
    expect(names).toContain("ANTHROPIC_WORK_SECRET_FILE");
    expect(names).not.toContain("ANTHROPIC_WORK_SECRET");
  });

  test("the Pod does not contain the secret, and its volume is in memory", async () => {
    await using world = await stockWorld(cluster, NEVER, { sessions: FILE });
    const served = await serveOne(world);
    const secret = await world.until("the claim is opened", () => world.claims[0]?.data?.["work-secret"]);
    const text = Buffer.from(secret, "base64").toString("utf8");
    expect(text.length).toBeGreaterThan(20);
    const whole = JSON.stringify(world.pods);
    expect(whole).not.toContain(text);
    expect(whole).not.toContain(secret);
    expect(served.pod.spec.volumes?.at(-1)).toMatchObject({ emptyDir: { medium: "Memory" } });
    world.simulator.stopItem(served.item.id);
    await untilEnded(world, served, "Completed");
  });

  test("the API server refuses it with parking: Key, and names the fix", async () => {
    await using world = await stockWorld(cluster, NEVER, { sessions: { ...FILE, parking: "Key" } });
    await expect(world.createEnvironment()).rejects.toThrow(/needs parking Shell/);
  });

  test("the API server refuses it with credential: EnvironmentKey, and names the fix", async () => {
    await using world = await stockWorld(cluster, NEVER, { sessions: { ...FILE, credential: "EnvironmentKey" } });
    await expect(world.createEnvironment()).rejects.toThrow(/set secretDelivery: Env/);
  });

  test("an item without a secret is stopped, and leaves the Pod waiting", async () => {
    await using world = await stockWorld(cluster, NEVER, { sessions: FILE });
    await world.createEnvironment();
    world.startOperator();
    await world.untilParked(1);
    world.simulator.setSwitches({ secrets: "none" });
    const item = world.simulator.enqueue(world.environmentId);
    await world.untilCondition("CredentialMissing", "CredentialMissing");
    await world.untilServed(1);
    expect(podOf(world, item)).toBeUndefined();
    await world.untilParked(1);
  });
});
