import { describe, expect, test } from "vitest";
import type { AttachFault } from "../../testbed/node/node.ts";
import { useCluster } from "../support/cluster.ts";
import { podOf, serveOne, untilEnded, untilGone } from "../support/session-life.ts";
import { SOON, stockWorld } from "../support/stock-worker-world.ts";

const cluster = useCluster();

/** A world whose Pods wait in a real shell. The first client that attaches gets this fault, and so on. */
const shellWorld = (...faults: (AttachFault | undefined)[]) =>
  stockWorld(cluster, SOON, {
    sessions: { warm: 1, parking: "Shell" },
    node: { runtime: "process", fates: () => undefined, attachFaults: () => faults.shift() },
  });

describe.concurrent("a session's line", () => {
  test.each<[string, AttachFault]>([
    ["is lost", { kind: "input-lost" }],
    ["breaks off in the middle", { kind: "cut", afterBytes: 60 }],
    ["breaks off in the middle, and the connection says nothing", { kind: "cut", afterBytes: 60, silent: true }],
    ["is not confirmed", { kind: "output-lost" }],
  ])("that %s starts its session once", async (_, fault) => {
    await using world = await shellWorld(fault);
    const served = await serveOne(world);
    const { last } = await untilEnded(world, served, "Completed");
    expect(last.acks).toHaveLength(1);
    const log = await world.node.logs({ namespace: world.namespace, name: served.pod.metadata.name ?? "" });
    expect(log.split("berth1 started\n")).toHaveLength(2);
  });

  test("is read after junk from another client that stays attached, and that client sees no credential", async () => {
    await using world = await shellWorld();
    await world.createEnvironment();
    const operator = world.startOperator();
    const [parked] = await world.untilParked(1);
    const ref = { namespace: world.namespace, name: parked?.metadata.name ?? "" };
    const stray = await world.kube.attach(ref, { container: "worker" });
    stray.send("\n\nexport A=1\nberth1 3 exit 1 #end\nberth1 99 half of a li");
    const item = world.simulator.enqueue(world.environmentId);
    const pod = await world.until("a Pod has the item", () => podOf(world, item));
    expect(pod.metadata.name).toBe(ref.name);
    await untilEnded(world, { operator, item, pod }, "Completed");
    expect(stray.output).toContain("berth1 started\n");
    expect(stray.output).not.toContain("ANTHROPIC");
    stray.close();
  });
});

describe.concurrent("an operator that can't attach", () => {
  test("gives no session to a Pod until it has attached to it", async () => {
    let isRefused = true;
    await using world = await stockWorld(cluster, SOON, {
      sessions: { warm: 1, maxConcurrent: 1, parking: "Shell" },
      node: {
        runtime: "process",
        fates: () => undefined,
        attachFaults: () => (isRefused ? { kind: "refused" } : undefined),
      },
    });
    await world.createEnvironment();
    const operator = world.startOperator();
    await world.untilParked(1);
    const item = world.simulator.enqueue(world.environmentId);
    await world.untilCondition("CapacityAvailable", "AttachFailing");
    expect(world.simulator.item(item.id).acks).toEqual([]);
    isRefused = false;
    const pod = await world.until("a Pod has the item", () => podOf(world, item));
    await untilEnded(world, { operator, item, pod }, "Completed");
  });

  test("parks Pods with a key where nodes refuse it, if the spec leaves the choice", async () => {
    await using world = await stockWorld(cluster, SOON, {
      sessions: { warm: 1, maxConcurrent: 2 },
      node: { runtime: "process", fates: () => undefined, attachFaults: () => ({ kind: "refused" }) },
    });
    await world.createEnvironment();
    const operator = world.startOperator();
    const [shell] = await world.untilParked(1);
    await world.until("the status says why", () => {
      const { mode, failure } = world.environment?.status?.parking ?? {};
      return mode === "Key" && failure?.includes("refused");
    });
    if (shell) await untilGone(world, shell);
    const item = world.simulator.enqueue(world.environmentId);
    const pod = await world.until("a Pod has the item", () => podOf(world, item));
    expect(pod.metadata.annotations).not.toHaveProperty("berth.dev/parking");
    await untilEnded(world, { operator, item, pod }, "Completed");
  });

  test("parks Pods with a key where a policy forbids it, and says so", async () => {
    await using world = await stockWorld(cluster, SOON, { sessions: { warm: 1, maxConcurrent: 2 } });
    const { namespace, kube } = world;
    const name = `no-attach-${namespace}`;
    const admission = "/apis/admissionregistration.k8s.io/v1";
    await kube.raw("POST", `${admission}/validatingadmissionpolicies`, {
      metadata: { name },
      spec: {
        matchConstraints: {
          namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": namespace } },
          resourceRules: [
            { apiGroups: [""], apiVersions: ["v1"], operations: ["CONNECT"], resources: ["pods/attach"] },
          ],
        },
        validations: [{ expression: "false", message: "no client may attach here" }],
      },
    });
    await kube.raw("POST", `${admission}/validatingadmissionpolicybindings`, {
      metadata: { name },
      spec: { policyName: name, validationActions: ["Deny"] },
    });
    const attach = () => kube.attach({ namespace, name: "none" }, { container: "none" });
    await world.until("the policy is in force", () =>
      attach().catch((error) => String(error).includes("no client may")),
    );
    await world.createEnvironment();
    const operator = world.startOperator();
    const [waiting] = await world.untilParked(1);
    expect(world.environment?.status?.parking?.message).toContain("no client may attach here");
    expect(waiting?.metadata.annotations).not.toHaveProperty("berth.dev/parking");
    const item = world.simulator.enqueue(world.environmentId);
    const pod = await world.until("a Pod has the item", () => podOf(world, item));
    expect(pod.metadata.name).toBe(waiting?.metadata.name);
    await untilEnded(world, { operator, item, pod }, "Completed");
    await kube.raw("DELETE", `${admission}/validatingadmissionpolicybindings/${name}`);
    await kube.raw("DELETE", `${admission}/validatingadmissionpolicies/${name}`);
  });
});
