import { describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { mutatePods } from "../../support/mutated-pods.ts";
import { latest } from "../support/pods.ts";
import { enqueueOne, serveOne, untilEnded, untilGone, untilState } from "../support/session-life.ts";
import { LIVELY_SECONDS, NEVER } from "../support/worker-template.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

const SIDECAR = "injected";

/** A CEL patch that adds a sidecar before all other containers, as a mesh or an agent injects it. */
function injection(image: string): string {
  const container = [
    `name: "${SIDECAR}"`,
    `image: "${image}"`,
    'command: ["sh", "-c", "trap \'\' TERM; exec sleep 1000000"]',
    'resources: Object.spec.containers.resources{requests: {"cpu": "1m", "memory": "8Mi"}}',
    `securityContext: Object.spec.containers.securityContext{${[
      "allowPrivilegeEscalation: false",
      'capabilities: Object.spec.containers.securityContext.capabilities{drop: ["ALL"]}',
    ].join(", ")}}`,
  ].join(", ");
  return `[JSONPatch{op: "add", path: "/spec/containers/0", value: Object.spec.containers{${container}}}]`;
}

/** Injects the sidecar into every Pod of this namespace. Dispose the result to stop that. */
function injectSidecars({ kube, namespace, cluster }: E2eWorld): Promise<AsyncDisposable> {
  const jsonPatch = { expression: injection(cluster.images.typescript) };
  return mutatePods(kube, namespace, { patchType: "JSONPatch", jsonPatch });
}

/** The API server enforces a policy a moment after its creation. Waits until a new Pod would get the sidecar. */
async function untilInForce(world: E2eWorld): Promise<void> {
  const pod = {
    metadata: { name: "dry-run" },
    spec: {
      containers: [
        {
          ...{ name: "worker", image: world.cluster.images.typescript },
          securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } },
        },
      ],
      securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
    },
  };
  await world.until("the policy is in force", async () => {
    const path = `/api/v1/namespaces/${world.namespace}/pods?dryRun=All`;
    const made = (await world.kube.raw("POST", path, pod)) as { spec: { containers: { name: string }[] } };
    return made.spec.containers[0]?.name === SIDECAR;
  });
}

describe.concurrent("a sidecar that admission adds before the session container, and that never ends", () => {
  test("does not affect the session's container: Berth gates and starts it, and its end is the session's", async () => {
    await using world = await startE2eWorld({ podSpec: { terminationGracePeriodSeconds: 2 } });
    await using _policy = await injectSidecars(world);
    await untilInForce(world);
    const served = await serveOne(world, { script: bashScript("echo hello") });
    // While the Pod is parked, the sidecar runs and only the session's container waits.
    const parked = world.history(served.pod).filter(({ metadata }) => metadata.labels?.["berth.dev/phase"] === "warm");
    expect(served.pod.spec.containers.map(({ name }) => name)).toEqual([SIDECAR, "worker"]);
    const states = parked.at(-1)?.status?.containerStatuses ?? [];
    expect(states.find(({ name }) => name === SIDECAR)?.state?.running).toBeDefined();
    expect(states.find(({ name }) => name === "worker")?.state?.waiting?.message).toContain(served.pod.metadata.name);

    const { last } = await untilEnded(world, served, "Completed");
    expect(last.stoppedBy?.as).toBe("sessions-token");
    // The kubelet ends the endless sidecar by the Pod's deadline, which frees the Pod's requests.
    await world.until("the Pod to end", () => latest(world, served.pod).status?.phase === "Failed");
    expect(latest(world, served.pod).metadata.annotations?.["berth.dev/end-reason"]).toBe("Completed");
    expect(latest(world, served.pod).metadata.labels?.["berth.dev/phase"]).toBe("ended");
    // The next session is served as usual.
    const next = await enqueueOne(world, { script: bashScript("echo hello") });
    await untilState(world, next.item, "stopped");
    await world.untilServed(2);
  });

  test("does not hide a crash of the session's container", async () => {
    await using world = await startE2eWorld({ container: { command: ["sh", "-c", "exit 3"] } });
    await using _policy = await injectSidecars(world);
    await untilInForce(world);
    const served = await serveOne(world);
    const { last, message } = await untilEnded(world, served, "Failed");
    expect(message).toContain("exit code 3");
    expect(last.stoppedBy?.as).toBe("environment-key");
  });

  test("starts with the session with parking: Shell", async () => {
    await using world = await startE2eWorld({
      sessions: { parking: "Shell" },
      podSpec: { terminationGracePeriodSeconds: 2 },
    });
    await using _policy = await injectSidecars(world);
    await untilInForce(world);
    const served = await serveOne(world, { script: bashScript("echo hello") });
    const { last } = await untilEnded(world, served, "Completed");
    expect(last.stoppedBy?.as).toBe("sessions-token");
  });

  test("ends with the session when a user stops it", async () => {
    await using world = await startE2eWorld({
      ...{ ttlSeconds: LIVELY_SECONDS, maxIdleMs: NEVER },
      // The sidecar uses the whole grace period. The worker must exit within it, even on a busy machine.
      podSpec: { terminationGracePeriodSeconds: 20 },
      sessions: { retainEndedSeconds: 0 },
    });
    await using _policy = await injectSidecars(world);
    await untilInForce(world);
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    await world.simulator.stopItem(served.item.id);
    await untilEnded(world, served, "Completed");
    await untilGone(world, served.pod);
  });
});
