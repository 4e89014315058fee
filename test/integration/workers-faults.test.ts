import { describe, expect, test } from "vitest";
import { PODS, type Resource } from "../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { useCluster } from "../support/cluster.ts";
import { metricValue } from "../support/metric-value.ts";
import {
  deploymentsOf,
  pollersWorld,
  untilWorkers,
  workersOf,
  workersPart,
  workersSpec,
} from "../support/workers-world.ts";
import { startWorld } from "../support/world.ts";
import { changeRights, limitedUser, limitOperator } from "./limited-operator.ts";

const cluster = useCluster();

const QUOTAS: Resource = {
  group: "",
  version: "v1",
  plural: "resourcequotas",
  kind: "ResourceQuota",
  namespaced: true,
};

describe.concurrent("obstacles to creating or running workers", () => {
  test("a quota: the condition reports it, and as many workers as fit serve", async () => {
    await using world = await pollersWorld(cluster);
    await world.kube.create(QUOTAS, {
      metadata: { name: "small", namespace: world.namespace },
      spec: { hard: { pods: "1" } },
    });
    await world.createEnvironment(workersSpec(world));
    world.startOperator();
    for (let n = 0; n < 3; n += 1) world.simulator.enqueue(world.environmentId);
    const { message } = await world.untilCondition("CapacityAvailable", "QuotaExceeded");
    expect(message).toContain("raise the quota, or lower maxReplicas");
    await untilWorkers(world, "one worker is busy", ({ busy }) => busy === 1);
    await world.kube.delete(QUOTAS, { namespace: world.namespace, name: "small" });
    // The ReplicaSet controller backs off ever longer. A change of one of its Pods makes it retry at once.
    const ref = { namespace: world.namespace, name: workersOf(world)[0]?.metadata.name ?? "" };
    await world.kube.patch(PODS, ref, { metadata: { annotations: { poke: "now" } } }, { type: "merge" });
    await untilWorkers(world, "three workers are busy", ({ busy }) => busy === 3);
    await world.untilCondition("CapacityAvailable", "Available");
  });

  test("a missing Secret in the template: its message is shown, and the workers recover once it exists", async () => {
    await using world = await pollersWorld(cluster, { key: false });
    await world.createEnvironment(workersSpec(world, { workers: { minReplicas: 1 } }));
    world.startOperator();
    const { message } = await world.untilCondition("CapacityAvailable", "PreparationFailing");
    expect(message).toContain('secret "key" not found');
    await world.createKey();
    await untilWorkers(world, "one worker is ready", ({ ready }) => ready === 1);
    await world.untilCondition("Ready", "Ready");
  });

  test("a sandbox that the node can't create is reported with its fix, and the workers recover", async () => {
    await using world = await pollersWorld(cluster);
    const workers = { minReplicas: 1 };
    await world.createEnvironment(
      workersSpec(world, { workers, podSpec: { securityContext: { runAsGroup: 20_002 } } }),
    );
    world.startOperator();
    const { message } = await world.untilCondition("CapacityAvailable", "PreparationFailing");
    expect(message).toMatch(
      /^workers do not run: FailedCreatePodSandBox: .*user group "20002" is specified without user; fix the template's/,
    );
    await world.patchSpec({
      workers: workersPart(world, { workers, podSpec: { securityContext: { runAsUser: 20_001 } } }),
    });
    await untilWorkers(world, "one worker is ready", ({ ready }) => ready === 1);
    await world.untilCondition("CapacityAvailable", "Available");
  });

  test("a program that crashes repeatedly is reported once with a stable message, and recovers once", async () => {
    await using world = await pollersWorld(cluster, {
      node: {
        fates: (_pod, container) =>
          container.image === "broken:1" ? { kind: "exit", code: 1, afterMs: 300 } : { kind: "poller", busyPort: 9000 },
      },
    });
    const part = workersPart(world, { workers: { minReplicas: 1 } }) as {
      template: { spec: { containers: Record<string, unknown>[] } };
    };
    const broken = structuredClone(part);
    for (const container of broken.template.spec.containers) container["image"] = "broken:1";
    await world.createEnvironment({ sessions: undefined, workers: broken });
    world.startOperator();
    const said: string[] = [];
    const look = () => {
      const { status, reason, message } = world.condition("CapacityAvailable") ?? {};
      const words = `${status} ${reason}: ${message}`;
      if (reason && said.at(-1) !== words) said.push(words);
    };
    const crashes = () => {
      look();
      return workersOf(world).some(({ status }) => {
        const [worker] = status?.containerStatuses ?? [];
        return (worker?.restartCount ?? 0) >= 2 && worker?.state?.waiting !== undefined;
      });
    };
    await world.until("the worker crashed three times", crashes, 150_000);
    await world.patchSpec({ workers: part });
    await world.until("a worker with the fixed template is ready", () => {
      look();
      return world.condition("Ready")?.reason === "Ready" && world.condition("CapacityAvailable")?.status === "True";
    });
    // The first run of the broken program may be seen as ready.
    const verdicts = said.map((words) => words.split(":")[0]);
    const fromFault = verdicts.slice(verdicts.indexOf("False PreparationFailing"));
    expect(fromFault.filter((verdict) => verdict !== "Unknown CapacityUnchecked")).toEqual([
      "False PreparationFailing",
      "True Available",
    ]);
  }, 240_000);

  test("an image that can't be pulled: after the fix, new workers replace the stuck ones", async () => {
    await using world = await pollersWorld(cluster);
    const part = workersSpec(world) as { workers: { template: { spec: { containers: Record<string, unknown>[] } } } };
    const broken = structuredClone(part.workers);
    for (const container of broken.template.spec.containers) container["image"] = "registry.invalid/worker:1";
    await world.createEnvironment({ sessions: undefined, workers: broken });
    world.startOperator();
    for (let n = 0; n < 4; n += 1) world.simulator.enqueue(world.environmentId);
    await world.untilCondition("CapacityAvailable", "ImagePullFailing");
    await world.until("four workers exist", () => workersOf(world).length === 4);
    await world.patchSpec({ workers: part.workers });
    await untilWorkers(world, "four workers are busy", ({ busy }) => busy === 4);
    await world.until("one Deployment", async () => (await deploymentsOf(world)).length === 1);
  });
});

describe.concurrent("an operator that lacks a permission", () => {
  test.each([
    ["deployments", "create"],
    ["deployments", "patch"],
    ["pods", "patch"],
  ])(
    "for %s (%s): the condition has the API server's message, no busy worker ends, and it recovers",
    async (resource, verb) => {
      await using world = await pollersWorld(cluster);
      await limitOperator(world);
      await world.createEnvironment(workersSpec(world));
      const flags = ["--kubeconfig", await cluster.kubeconfigFor(limitedUser(world))];
      const { metrics } = world.startOperator({ flags });
      await world.untilCondition("Ready", "Ready");
      if (verb === "patch") {
        world.simulator.enqueue(world.environmentId);
        await untilWorkers(world, "one worker is busy", ({ busy }) => busy === 1);
      }
      await changeRights(world, { resource, verb });
      const items = [1, 2, 3].map(() => world.simulator.enqueue(world.environmentId));
      if (resource === "deployments") {
        const { message } = await world.untilCondition("ScalingActive", "ScalingFailed");
        expect(message).toContain(`cannot ${verb} resource "deployments"`);
        expect(world.condition("Ready")).toMatchObject({ status: "False", reason: "ScalingFailed" });
      } else {
        await untilWorkers(world, "four workers are busy", ({ busy }) => busy === 4);
        world.simulator.stopItem(items[0]?.id ?? "");
        await world.untilCondition("ScalingActive", "ScalingFailed");
        expect(workersOf(world)).toHaveLength(4);
      }
      await changeRights(world);
      await world.untilCondition("ScalingActive", "ScalingFollowsDemand");
      const wanted = resource === "pods" || verb === "create" ? 3 : 4;
      await untilWorkers(world, "scaling continues", ({ busy, replicas }) => busy === wanted && replicas === wanted);
      expect(await metricValue(metrics.workersEndedWhileBusy, {})).toBe(0);
    },
  );

  test("to list Deployments: workers wait and the reason is reported, while sessions are still served", async () => {
    await using world = await startWorld(cluster);
    await limitOperator(world, { resource: "deployments", verb: "list" });
    await world.createEnvironment();
    const flags = ["--kubeconfig", await cluster.kubeconfigFor(limitedUser(world))];
    world.startOperator({ flags });
    world.simulator.enqueue(world.environmentId);
    await world.untilServed(1);
    const metadata = { name: "batch", namespace: world.namespace };
    const spec = { ...world.spec(await world.createQueue("batch-key")), ...workersSpec(world) };
    await world.kube.create(ENVIRONMENTS, { metadata, spec } as never);
    const readyOf = async () => {
      const { status } = await world.kube.get(ENVIRONMENTS, metadata);
      return status?.conditions?.find(({ type }) => type === "Ready");
    };
    const told = await world.until("Ready reports NothingStarts", async () => {
      const ready = await readyOf();
      return ready?.reason === "NothingStarts" && ready;
    });
    expect(told.message).toContain("Berth scales nothing until it can list Deployments and Pods");
    await changeRights(world);
    await world.until("Ready is True", async () => (await readyOf())?.reason === "Ready");
  });
});

test("deleting an Environment in the foreground ends workers immediately, as documented", async () => {
  await using world = await pollersWorld(cluster);
  await world.createEnvironment(workersSpec(world));
  const { metrics } = world.startOperator();
  world.simulator.enqueue(world.environmentId);
  await untilWorkers(world, "one worker is busy", ({ busy }) => busy === 1);
  await world.kube.delete(
    ENVIRONMENTS,
    { namespace: world.namespace, name: world.name },
    { propagationPolicy: "Foreground" },
  );
  await world.until("the busy worker was counted", async () => {
    return ((await metricValue(metrics.workersEndedWhileBusy, {})) ?? 0) > 0;
  });
  await world.until("the Environment and its Pods are gone", () => !world.environment && workersOf(world).length === 0);
});
