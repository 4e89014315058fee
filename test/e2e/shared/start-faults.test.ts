import { describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { CONFIG_MAPS, SECRETS } from "../../../src/kube/resource.ts";
import { IS_GVISOR } from "../support/isolation.ts";
import { terminatedOf } from "../support/pods.ts";
import { podOf, serveOne, untilEnded } from "../support/session-life.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

/** Faults that the kubelet or the container runtime finds only when it starts a container. */
describe.concurrent("a fault that shows when the container is started", () => {
  test("a command that is not in the image: the item is stopped, with the runtime's message", async () => {
    const container = { command: ["/no/such/program"] };
    await using world = await startE2eWorld({ container, sessions: { parking: "Key" } });
    const served = await serveOne(world);
    const { last, message } = await untilEnded(world, served, "StartFailed");
    expect(message).toContain("/no/such/program");
    expect(message).toContain("no such file or directory; correct the command of container worker in spec.sessions");
    expect(last.stoppedBy?.as).toBe("environment-key");
    expect(terminatedOf(world, served)).toMatchObject({ reason: "StartError", exitCode: 128 });
    expect(await world.metric("berth_start_failures_total")).toBe(1);
  });

  test("a command that is not in the image costs no item if the Pod waits in a shell", async () => {
    await using world = await startE2eWorld({ container: { command: ["/no/such/program"] } });
    await world.createEnvironment();
    const item = await world.simulator.enqueue(world.environmentId, { script: bashScript("echo hello") });
    const condition = await world.untilCondition("CapacityAvailable", "PreparationFailing");
    expect(condition.message).toContain(
      "Pods do not get ready: /no/such/program: not found in the image, or not executable; correct the command of container worker in spec.sessions.template, or the image",
    );
    // With gVisor the shell starts slowly, so the kubelet reports that it runs before it has ended.
    if (!IS_GVISOR) expect((await world.simulator.item(item.id)).acks).toEqual([]);
  });

  test("a working directory that can't be created: the item is stopped, with the runtime's message", async () => {
    await using world = await startE2eWorld({ container: { workingDir: "/app/worker.mjs/inside" } });
    const served = await serveOne(world);
    const { last, message } = await untilEnded(world, served, "StartFailed");
    expect(message).toMatch(
      IS_GVISOR ? /\/app\/worker\.mjs.*: not a directory/ : "mkdir /app/worker.mjs: not a directory",
    );
    expect(last.stoppedBy?.as).toBe("environment-key");
  });

  test("a mount path with an unknown variable: the item is stopped, with the kubelet's message", async () => {
    await using world = await startE2eWorld({
      container: { volumeMounts: [{ name: "data", mountPath: "/data", subPathExpr: "$(NOT_SET)" }] },
      podSpec: { volumes: [{ name: "data", emptyDir: {} }] },
    });
    const served = await serveOne(world);
    const { last, message } = await untilEnded(world, served, "StartFailed");
    expect(message).toContain("NOT_SET");
    expect(last.stoppedBy?.as).toBe("environment-key");
  });
});

/** The image's own user. */
const WORKER_USER = 10_001;

const SECRET = { metadata: { name: "mine" }, stringData: { token: "of-the-user" } };
const CONFIG_MAP = { metadata: { name: "mine" }, data: { token: "of-the-user" } };

/** What a user's template refers to, how the kubelet names it when it is missing, and the object that provides it. */
const REFERENCES = [
  {
    what: "a variable from a Secret",
    container: { env: [{ name: "TOKEN", valueFrom: { secretKeyRef: { name: "mine", key: "token" } } }] },
    words: 'secret "mine" not found',
    resource: SECRETS,
    object: SECRET,
  },
  {
    what: "all variables of a Secret",
    container: { envFrom: [{ secretRef: { name: "mine" } }] },
    words: 'secret "mine" not found',
    resource: SECRETS,
    object: { ...SECRET, stringData: { TOKEN: "of-the-user" } },
  },
  {
    what: "a variable from a ConfigMap",
    container: { env: [{ name: "TOKEN", valueFrom: { configMapKeyRef: { name: "mine", key: "token" } } }] },
    words: 'configmap "mine" not found',
    resource: CONFIG_MAPS,
    object: CONFIG_MAP,
  },
];

const served = async (world: E2eWorld) => {
  const [item] = await world.simulator.items();
  const { toolCalls } = await world.simulator.session(item?.sessionId ?? "");
  return toolCalls.map(({ output }) => output);
};

describe.concurrent("a missing object of the user", () => {
  test.for(REFERENCES)("$what: the Pod is parked only once that object exists", async (reference) => {
    await using world = await startE2eWorld({
      sessions: { warm: 1, maxConcurrent: 1 },
      container: reference.container,
    });
    await world.createEnvironment();
    const script = bashScript("echo $TOKEN");
    const item = await world.simulator.enqueue(world.environmentId, { script });
    const condition = await world.untilCondition("CapacityAvailable", "PreparationFailing");
    expect(condition.message).toContain(reference.words);
    // For the kubelet, this is the same state as that of a parked Pod.
    const [pod] = world.pods;
    const [container] = pod?.status?.containerStatuses ?? [];
    expect(container?.state?.waiting?.reason).toBe("CreateContainerConfigError");
    const { offers, state } = await world.simulator.item(item.id);
    expect([state, offers]).toEqual(["queued", []]);
    expect(world.environment?.status?.sessions?.warm).toBe(0);

    await world.kube.create(reference.resource as typeof SECRETS, {
      ...reference.object,
      metadata: { ...reference.object.metadata, namespace: world.namespace },
    });
    await world.untilServed(1);
    expect(await served(world)).toEqual(["of-the-user"]);
    // The kubelet retried, and no Pod was lost.
    expect(podOf(world, item)?.metadata.uid).toBe(pod?.metadata.uid);
    await world.untilCondition("CapacityAvailable", "Available");
    expect(await world.metric("berth_start_failures_total")).toBe(0);
  });

  test("a missing key of an existing Secret: the message names both", async () => {
    await using world = await startE2eWorld({
      container: { env: [{ name: "TOKEN", valueFrom: { secretKeyRef: { name: "key", key: "other" } } }] },
    });
    await world.createEnvironment();
    const condition = await world.untilCondition("CapacityAvailable", "PreparationFailing");
    expect(condition.message).toContain(`couldn't find key other in Secret ${world.namespace}/key`);
    expect(world.environment?.status?.sessions?.warm).toBe(0);
  });

  test("a volume of a ConfigMap: the condition shows what the kubelet reports only in Events", async () => {
    await using world = await startE2eWorld({
      container: { volumeMounts: [{ name: "mine", mountPath: "/mine" }] },
      podSpec: { volumes: [{ name: "mine", configMap: { name: "mine" } }] },
    });
    await world.createEnvironment();
    const script = bashScript("cat /mine/token");
    await world.simulator.enqueue(world.environmentId, { script });
    const condition = await world.untilCondition("CapacityAvailable", "PreparationFailing");
    expect(condition.message).toContain("Pods do not get ready: FailedMount: MountVolume.SetUp failed for volume");
    expect(condition.message).toContain('configmap "mine" not found; create the object that the volume refers to');
    expect(world.environment?.status?.sessions?.warm).toBe(0);
    await world.kube.create(CONFIG_MAPS, {
      ...CONFIG_MAP,
      metadata: { ...CONFIG_MAP.metadata, namespace: world.namespace },
    });
    await world.untilServed(1);
    expect(await served(world)).toEqual(["of-the-user"]);
    await world.untilCondition("CapacityAvailable", "Available");
    expectReportedOnce(world);
  });
});

/** Checks for one Event, however often the kubelet repeats its message and for however many Pods. */
function expectReportedOnce(world: E2eWorld): void {
  const events = world.events("PreparationFailing").filter(({ involvedObject }) => involvedObject.name === world.name);
  expect(events.map(({ message, count = 1 }) => [message, count])).toEqual([[expect.any(String), 1]]);
}

test.concurrent("a sandbox that the runtime refuses shows in the condition until the template is fixed", async () => {
  await using world = await startE2eWorld({
    sessions: { warm: 2, maxConcurrent: 2 },
    podSpec: { securityContext: { runAsGroup: WORKER_USER } },
  });
  await world.createEnvironment();
  const { message } = await world.untilCondition("CapacityAvailable", "PreparationFailing");
  expect(message).toContain("Pods do not get ready: FailedCreatePodSandBox: Failed to create pod sandbox: rpc error");
  expect(message).toContain(`user group "${WORKER_USER}" is specified without user`);
  expect(message).toContain("fix the template's securityContext");
  for (const { metadata } of world.pods) expect(message).not.toContain(metadata.name);
  expect(world.environment?.status?.sessions?.warm).toBe(0);
  // The kubelet retries about every 15 s.
  const said = () => world.events("FailedCreatePodSandBox").reduce((sum, { count = 1 }) => sum + count, 0);
  const before = said();
  await world.until("kubelet has said it again, of both", () => said() > before + 2);
  expect(world.condition("CapacityAvailable")?.message).toBe(message);

  await world.patchSpec({ sessions: { template: { spec: { securityContext: { runAsUser: WORKER_USER } } } } });
  await world.until("Pods are parked", () => world.parked.length === 2);
  await world.untilCondition("CapacityAvailable", "Available");
  await world.until("Ready", () => world.condition("Ready")?.status === "True");
  expectReportedOnce(world);
});
