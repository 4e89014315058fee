import { describe, expect, test } from "vitest";
import { NAMESPACES, PODS, type Pod, type Resource } from "../../src/kube/resource.ts";
import { useCluster } from "../support/cluster.ts";
import { SHORT_LEASE, serveOne, untilEnded } from "../support/session-life.ts";
import { oneWorkerSpec } from "../support/workers-world.ts";
import { startWorld, type World, type WorldOptions } from "../support/world.ts";

const cluster = useCluster();

const clusterWide = (group: string, version: string, plural: string, kind: string): Resource => ({
  group,
  version,
  plural,
  kind,
  namespaced: false,
});
const RUNTIME_CLASSES = clusterWide("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass");
const PRIORITY_CLASSES = clusterWide("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass");

/** The operator's Pod policy must allow classes. */
const ANY_CLASS = ["--allowed-in-templates", "runtimeClasses=*,priorityClasses=*"];

/** A world whose namespace enforces Pod Security `restricted`. */
async function restrictedWorld(options: WorldOptions = {}): Promise<World> {
  const world = await startWorld(cluster, { ...SHORT_LEASE, ...options });
  const labels = { "pod-security.kubernetes.io/enforce": "restricted" };
  await world.kube.patch(NAMESPACES, { name: world.namespace }, { metadata: { labels } }, { type: "merge" });
  return world;
}

const untilWorker = (world: World): Promise<Pod> =>
  world.until("a worker", () => world.pods.find(({ metadata }) => metadata.labels?.["berth.dev/role"] === "worker"));

describe.concurrent("a namespace that enforces Pod Security restricted", () => {
  test("serves a session of a template with only an image", async () => {
    await using world = await restrictedWorld();
    const served = await serveOne(world);
    await untilEnded(world, served, "Completed");
    expect(world.simulator.violations).toEqual([]);
    const pod = served.pod;
    expect(pod.spec).toMatchObject({
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      restartPolicy: "Never",
      securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
    });
    expect(pod.spec.containers[0]?.["resources"]).toEqual({
      requests: { cpu: "100m", memory: "256Mi" },
      limits: { memory: "2Gi" },
    });
    // No token was added in another way.
    expect(pod.spec.volumes ?? []).toEqual([]);
  });

  test.each([
    ["a waiting shell", { parking: "Shell" }],
    ["a key of the environment", { credential: "EnvironmentKey" }],
  ])("parks Pods with %s", async (_, sessions) => {
    await using world = await restrictedWorld({ sessions, container: { command: ["worker"] } });
    await world.createEnvironment();
    world.startOperator();
    await world.untilParked(1);
    await world.untilCondition("TemplateAccepted", "Accepted");
  });

  test("accepts sidecars and init containers of the template, with the same defaults", async () => {
    const podSpec = {
      initContainers: [
        { name: "checkout", image: "git:2" },
        { name: "proxy", image: "proxy:1", restartPolicy: "Always" },
      ],
    };
    await using world = await restrictedWorld({
      podSpec,
      node: { fates: (_pod, { name }) => (name === "checkout" ? undefined : { kind: "run" }) },
    });
    await world.createEnvironment();
    world.startOperator();
    await world.untilParked(1);
  });

  test("runs always-on workers of a template with only an image", async () => {
    await using world = await restrictedWorld({ node: { fates: () => ({ kind: "run" }) } });
    await world.createEnvironment(oneWorkerSpec(world));
    world.startOperator();
    const { spec } = await untilWorker(world);
    await world.untilCondition("TemplateAccepted", "Accepted");
    expect(spec).toMatchObject({
      automountServiceAccountToken: false,
      securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
      containers: [{ securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } } }],
    });
  });

  test("refuses a template beyond the standard, and names the violation", async () => {
    await using world = await restrictedWorld({ container: { securityContext: { capabilities: { drop: [] } } } });
    await world.createEnvironment();
    world.startOperator();
    const { message } = await world.untilCondition("TemplateAccepted", "AdmissionRefused");
    expect(message).toContain("unrestricted capabilities");
    expect(message).not.toContain("seccompProfile");
    expect(world.pods).toEqual([]);
  });
});

test("isolation waits for its RuntimeClass, and then all Pods have it", async () => {
  await using world = await startWorld(cluster, { sessions: { isolation: "gVisor" } });
  const name = world.namespace;
  await world.createEnvironment();
  world.startOperator({ flags: ["--runtime-classes", `gVisor=${name}`] });
  const { message } = await world.untilCondition("TemplateAccepted", "AdmissionRefused");
  expect(message).toBe(
    `spec.sessions.isolation: the cluster has no RuntimeClass ${name}; create it, or set the chart's runtimeClasses.gVisor to one that exists (--runtime-classes)`,
  );
  expect(world.pods).toEqual([]);
  await world.kube.create(RUNTIME_CLASSES, { metadata: { name }, handler: "runc" } as never);
  try {
    await world.untilParked(1);
    expect(world.pods.map(({ spec }) => spec.runtimeClassName)).toEqual([name]);
  } finally {
    await world.kube.delete(RUNTIME_CLASSES, { name });
  }
});

describe.concurrent("other Pod fields are passed through", () => {
  /** All fields that decide where and how a Pod runs, and the objects that they name. */
  async function placed(world: World) {
    const name = world.namespace;
    await world.kube.create(RUNTIME_CLASSES, { metadata: { name }, handler: "runc" } as never);
    await world.kube.create(PRIORITY_CLASSES, { metadata: { name }, value: 7 } as never);
    const matchExpressions = [{ key: "kubernetes.io/hostname", operator: "In", values: [world.node.name] }];
    const spec = {
      runtimeClassName: name,
      priorityClassName: name,
      imagePullSecrets: [{ name: "registry" }],
      nodeSelector: world.nodeSelector,
      affinity: {
        nodeAffinity: {
          requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [{ matchExpressions }] },
        },
      },
      topologySpreadConstraints: [
        {
          maxSkew: 5,
          topologyKey: "kubernetes.io/hostname",
          whenUnsatisfiable: "ScheduleAnyway",
          labelSelector: { matchLabels: { "berth.dev/environment": world.name } },
        },
      ],
      volumes: [{ name: "scratch", emptyDir: { sizeLimit: "1Gi" } }],
      dnsConfig: { searches: ["agents.example"] },
      hostAliases: [{ ip: "127.0.0.7", hostnames: ["mirror.example"] }],
    };
    const toleration = { key: "sandboxes", operator: "Exists", effect: "NoSchedule" };
    const drop = async () => {
      await world.kube.delete(RUNTIME_CLASSES, { name });
      await world.kube.delete(PRIORITY_CLASSES, { name });
    };
    return { spec, toleration, drop };
  }

  const taint = [{ key: "sandboxes", value: "only", effect: "NoSchedule" }];

  test("to a session's Pod", async () => {
    await using world = await startWorld(cluster, { ...SHORT_LEASE, node: { taints: taint } });
    const { spec, toleration, drop } = await placed(world);
    const template = {
      spec: {
        ...spec,
        tolerations: [toleration],
        containers: [{ name: "worker", image: "worker:1", volumeMounts: [{ name: "scratch", mountPath: "/scratch" }] }],
      },
    };
    await world.createEnvironment({ sessions: { maxConcurrent: 1, warm: 1, template } });
    world.startOperator({ flags: ANY_CLASS });
    const [pod] = await world.untilParked(1);
    expect(pod?.spec).toMatchObject(spec);
    expect(pod?.spec).toMatchObject({ priority: 7, nodeName: world.node.name });
    expect(pod?.spec["tolerations"]).toEqual(expect.arrayContaining([toleration]));
    expect(pod?.spec.containers[0]).toMatchObject({ volumeMounts: [{ name: "scratch", mountPath: "/scratch" }] });
    await drop();
  });

  test("to a worker's Pod", async () => {
    await using world = await startWorld(cluster, {
      ...SHORT_LEASE,
      node: { taints: taint, fates: () => ({ kind: "run" }) },
    });
    const { spec, toleration, drop } = await placed(world);
    await world.createEnvironment(oneWorkerSpec(world, { ...spec, tolerations: [toleration] }));
    world.startOperator({ flags: ANY_CLASS });
    const pod = await untilWorker(world);
    expect(pod.spec).toMatchObject(spec);
    expect(pod.spec["tolerations"]).toEqual(expect.arrayContaining([toleration]));
    await world.until("the Pod is scheduled", async () => {
      const { namespace = "", name = "" } = pod.metadata;
      return (await world.kube.get(PODS, { namespace, name })).spec.nodeName === world.node.name;
    });
    await drop();
  });

  test("a template that names a missing object is refused with the API server's message", async () => {
    await using world = await startWorld(cluster, { podSpec: { priorityClassName: "no-such-class" } });
    await world.createEnvironment();
    world.startOperator({ flags: ANY_CLASS });
    const { message } = await world.until("TemplateAccepted is False", () => {
      const condition = world.condition("TemplateAccepted");
      return condition?.status === "False" && condition;
    });
    expect(message).toContain("no PriorityClass with name no-such-class was found");
  });
});
