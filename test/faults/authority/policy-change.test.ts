import { describe, expect, test } from "vitest";
import { ANNOTATION_NEEDS, FINALIZER, LABEL_PHASE } from "../../../src/api/names.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { templateOf } from "../../policy/template-cases.ts";
import { useCluster } from "../../support/cluster.ts";
import { SHORT_LEASE, untilAssigned, untilState } from "../../support/session-life.ts";
import { deploymentsOf, pollersWorld, workersOf, workersSpec } from "../../support/workers-world.ts";
import { startWorld, type World } from "../../support/world.ts";
import { installAdmissionPolicy } from "./admission-policy.ts";
import { environmentWith, type Json, refusalOf, untilEnforced } from "./environments.ts";

const cluster = useCluster();

const LOOSE = { flags: ["--allowed-in-templates", "capabilities=NET_ADMIN,tolerations=*"] };
const NET_ADMIN = { container: { securityContext: { capabilities: { add: ["NET_ADMIN"] } } } };
const hanging = { node: { fates: () => ({ kind: "worker", end: "hang" }) as const } };

/** Parked Pods that are not being deleted. */
const free = (world: World) =>
  world.pods.filter(({ metadata }) => metadata.labels?.[LABEL_PHASE] === "warm" && !metadata.deletionTimestamp);

describe("an operator that starts with a stricter policy", () => {
  test("removes parked Pods, spares the running session, and claims nothing until the template is fixed", async () => {
    await using world = await startWorld(cluster, { ...SHORT_LEASE, ...NET_ADMIN, ...hanging });
    await world.createEnvironment();
    const loose = world.startOperator(LOOSE);
    await world.untilParked(1);
    const item = world.simulator.enqueue(world.environmentId);
    const running = await untilAssigned(world, item);
    await untilState(world, item, "active");
    await world.untilParked(1);
    expect(JSON.parse(running.metadata.annotations?.[ANNOTATION_NEEDS] ?? "")).toEqual(["capabilities=NET_ADMIN"]);
    await loose.stop();

    const waiting = world.simulator.enqueue(world.environmentId);
    world.startOperator();
    await world.untilCondition("TemplateAccepted", "TemplateForbidden");
    await world.until("no Pod waits", () => free(world).length === 0);
    // The parked Pods take a moment to terminate.
    await world.until("no other Pod is left", () => world.pods.length <= 1);
    const { beats } = world.simulator.item(item.id);
    await world.until("the session sends heartbeats", () => world.simulator.item(item.id).beats > beats);
    expect(world.simulator.item(item.id).state).toBe("active");
    expect(world.simulator.item(waiting.id).state).toBe("queued");
    expect(world.pods.map(({ metadata }) => metadata.uid)).toEqual([running.metadata.uid]);

    await world.patchSpec({
      sessions: { template: { spec: { containers: [{ name: "worker", image: "worker:1" }] } } },
    });
    const next = await untilAssigned(world, waiting);
    expect(JSON.parse(next.metadata.annotations?.[ANNOTATION_NEEDS] ?? "")).toEqual([]);
    for (const { id } of [item, waiting]) world.simulator.stopItem(id);
    await world.untilServed(2);
    world.simulator.assertNoViolations();
  });

  test("gives no session to a Pod of the old template when the spec was fixed while no operator ran", async () => {
    await using world = await startWorld(cluster, { ...SHORT_LEASE, ...NET_ADMIN, ...hanging, sessions: { warm: 2 } });
    await world.createEnvironment();
    const loose = world.startOperator(LOOSE);
    const old = new Set((await world.untilParked(2)).map(({ metadata }) => metadata.uid));
    await loose.stop();

    await world.patchSpec({
      sessions: { template: { spec: { containers: [{ name: "worker", image: "worker:1" }] } } },
    });
    const item = world.simulator.enqueue(world.environmentId);
    world.startOperator();
    const pod = await untilAssigned(world, item);
    expect(old).not.toContain(pod.metadata.uid);
    await world.until("the old Pods are gone", () => !world.pods.some(({ metadata }) => old.has(metadata.uid)));
    world.simulator.stopItem(item.id);
    await world.untilServed(1);
  });

  test("ends idle always-on workers, and a busy one once it is idle", async () => {
    await using world = await pollersWorld(cluster);
    const podSpec = { tolerations: [{ operator: "Exists" }] };
    await world.createEnvironment(workersSpec(world, { podSpec, workers: { minReplicas: 3 } }));
    const loose = world.startOperator(LOOSE);
    await world.until("three workers", () => workersOf(world).length === 3);
    const item = world.simulator.enqueue(world.environmentId);
    await untilState(world, item, "active");
    await world.until("it is known to be busy", () => (world.environment?.status?.workers?.busy ?? 0) === 1);
    await loose.stop();

    world.startOperator();
    await world.untilCondition("TemplateAccepted", "TemplateForbidden");
    await world.until("the busy one is left", async () => {
      const [deployment] = await deploymentsOf(world);
      return deployment?.spec.replicas === 1 && workersOf(world).length === 1;
    });
    expect(world.simulator.item(item.id).state).toBe("active");
    world.simulator.stopItem(item.id);
    await world.until("none is left", () => workersOf(world).length === 0);
  });
});

describe("an admission policy that is installed after the Environment", () => {
  test("allows pausing, finalizer changes, deletion and fixes, but no further violation", async () => {
    await using world = await startWorld(cluster);
    const template = templateOf(NET_ADMIN);
    await world.kube.create(ENVIRONMENTS, environmentWith(world, world.name, "sessions", template) as never);
    await using _policy = await installAdmissionPolicy(cluster.api, world.namespace, [world.simulator.url]);
    await untilEnforced(world, environmentWith(world, "other", "sessions", template));

    const ref = { namespace: world.namespace, name: world.name };
    const merge = (patch: Json) => world.kube.patch(ENVIRONMENTS, ref, patch, { type: "merge" });
    const containers = (add: readonly string[]) => [
      { name: "worker", image: "worker:1", securityContext: { capabilities: { add } } },
    ];
    await merge({ metadata: { finalizers: [FINALIZER] } });
    await merge({ spec: { paused: true, sessions: { maxConcurrent: 2 } } });
    const worse = {
      spec: { sessions: { template: { spec: { containers: containers(["NET_ADMIN", "SYS_ADMIN"]) } } } },
    };
    await expect(merge(worse)).rejects.toThrow("podPolicy.capabilities");
    await merge({ metadata: { labels: { seen: "yes" } } });
    await merge({ spec: { sessions: { template: { spec: { containers: containers([]) } } } } });
    await expect(
      merge({ spec: { sessions: { template: { spec: { containers: containers(["NET_ADMIN"]) } } } } }),
    ).rejects.toThrow("not allowed: capabilities that containers add (podPolicy.capabilities=[]); remove it");
    await world.kube.delete(ENVIRONMENTS, ref);
    await merge({ metadata: { finalizers: null } });
    await world.until("the Environment is gone", () => world.environment === undefined);
  });

  test("has expressions without type errors, and affords the largest template", async () => {
    await using world = await startWorld(cluster);
    const capabilities = Array.from({ length: 40 }, (_, index) => `SOME_${index}`);
    const hostPaths = Array.from({ length: 40 }, (_, index) => `/data/folder-${index}`);
    await using policy = await installAdmissionPolicy(cluster.api, world.namespace, [world.simulator.url], {
      capabilities,
      hostPaths,
    });
    const probe = templateOf({ pod: { hostPID: true } });
    await untilEnforced(world, environmentWith(world, "probe", "sessions", probe));
    expect(await world.until("the types are checked", () => policy.typeWarnings())).toEqual([]);
    const largest = largestTemplate(capabilities, hostPaths);
    expect(JSON.stringify(largest).length).toBeGreaterThan(MIB);
    expect(await refusalOf(world, environmentWith(world, "largest", "sessions", largest))).toBeNull();
    const spec = { ...(largest["spec"] as Json), hostPID: true };
    const words = await refusalOf(world, environmentWith(world, "largest", "workers", { ...largest, spec }));
    expect(words).toContain("hostPID");
  });
});

const MIB = 1_048_576;

/** Close to the largest object that the API server stores, all of it in fields that the rules iterate over. */
function largestTemplate(capabilities: readonly string[], hostPaths: readonly string[]): Json {
  const many = <T>(length: number, make: (index: number) => T) => Array.from({ length }, (_, index) => make(index));
  const container = (name: string): Json => ({
    name,
    image: "worker:1",
    ports: many(260, (index) => ({ containerPort: 1_000 + index, name: `p-${index}`, protocol: "TCP" })),
    securityContext: { capabilities: { add: capabilities } },
    livenessProbe: { httpGet: { port: 80, path: "/" } },
  });
  const source = (index: number) => ({ configMap: { name: `map-${index}`, optional: true } });
  return {
    metadata: { annotations: Object.fromEntries(many(128, (index) => [`note-${index}`, "x".repeat(200)])) },
    spec: {
      containers: many(32, (index) => container(`c${index}`)),
      initContainers: many(32, (index) => container(`i${index}`)),
      tolerations: many(1_000, (index) => ({ key: `example.com/taint-${index}`, operator: "Exists" })),
      volumes: many(256, (index) =>
        index % 2 === 0
          ? { name: `v${index}`, hostPath: { path: `${hostPaths.at(-1)}/${index}` } }
          : { name: `v${index}`, projected: { sources: many(20, source) } },
      ),
    },
  };
}
