import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { API_VERSION, KIND } from "../../src/api/names.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { judge } from "../../testbed/gitops/evaluate.ts";
import { useCluster } from "../support/cluster.ts";
import { SHORT_LEASE, serveOne, untilState } from "../support/session-life.ts";
import { startWorld, type World } from "../support/world.ts";

const EXAMPLE = new URL("../../examples/gitops/argocd-cm.yaml", import.meta.url);
const BUILD_TIMEOUT_MS = 600_000;

const cluster = useCluster();
let folder = "";
let healthCheck = "";

beforeAll(async () => {
  const { data } = parse(await readFile(EXAMPLE, "utf8")) as { data: Record<string, string> };
  folder = await mkdtemp(join(tmpdir(), "berth-gitops-"));
  healthCheck = join(folder, "health.lua");
  await writeFile(healthCheck, data["resource.customizations.health.berth.dev_Environment"] ?? "");
  // Builds the program, if that was not done before.
  await judge([{ apiVersion: API_VERSION, kind: KIND, metadata: {} }], healthCheck);
}, BUILD_TIMEOUT_MS);

afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** What Flux and Argo CD say about the Environment as the API server returns it. */
async function judged(world: World) {
  const environment = await world.kube.get(ENVIRONMENTS, { namespace: world.namespace, name: world.name });
  const [judgement] = await judge([environment], healthCheck);
  return { flux: judgement?.flux.status, argocd: judgement?.argocd.status, message: judgement?.argocd.message };
}

describe.concurrent("Flux and Argo CD", () => {
  test("wait until an operator has read a new Environment and serves it", async () => {
    await using world = await startWorld(cluster);
    await world.createEnvironment();
    expect(await judged(world)).toMatchObject({ flux: "InProgress", argocd: "Progressing" });
    world.startOperator();
    await world.untilCondition("Ready", "Ready");
    expect(await judged(world)).toEqual({ flux: "Current", argocd: "Healthy", message: "Berth serves work" });
  });

  test("wait for a Secret that does not exist yet", async () => {
    await using world = await startWorld(cluster, { key: false });
    await world.createEnvironment();
    world.startOperator();
    const { message } = await world.untilCondition("Ready", "KeySecretMissing");
    expect(await judged(world)).toEqual({ flux: "InProgress", argocd: "Progressing", message });
    await world.createKey();
    await world.untilCondition("Ready", "Ready");
    expect(await judged(world)).toMatchObject({ flux: "Current", argocd: "Healthy" });
  });

  test("wait for the first Pod of a changed template, also while the earlier one's session runs", async () => {
    const slow = (pod: Pod) => (pod.spec.containers[0]?.image === "worker:2" ? { pullMs: 600_000 } : {});
    await using world = await startWorld(cluster, {
      ...SHORT_LEASE,
      node: { fates: (pod) => ({ kind: "worker", end: "hang", ...slow(pod) }) },
    });
    await untilState(world, (await serveOne(world)).item, "active");
    const template = { spec: { containers: [{ name: "worker", image: "worker:2" }] } };
    await world.patchSpec({ sessions: { template } });
    await world.until("the change is read", () => world.environment?.status?.observedGeneration === 2);
    await world.untilCondition("Ready", "Ready");
    expect(await judged(world)).toMatchObject({ flux: "InProgress", argocd: "Progressing" });
  });

  test("report a template that the API server refuses, until it is fixed", async () => {
    await using world = await startWorld(cluster);
    const containers = (limits: Record<string, string>) => ({
      sessions: { template: { spec: { containers: [{ name: "worker", image: "worker:1", resources: { limits } }] } } },
    });
    await world.createEnvironment();
    world.startOperator();
    await world.untilCondition("Ready", "Ready");
    await world.patchSpec(containers({ memory: "2gb" }));
    const { message } = await world.untilCondition("Ready", "Refused");
    expect(await judged(world)).toEqual({ flux: "Failed", argocd: "Degraded", message });
    await world.patchSpec(containers({ memory: "2Gi" }));
    await world.untilCondition("Ready", "Ready");
    expect(await judged(world)).toMatchObject({ flux: "Current", argocd: "Healthy" });
  });

  test("tell a paused Environment from one that is ready", async () => {
    await using world = await startWorld(cluster);
    await world.createEnvironment({ paused: true });
    world.startOperator();
    await world.untilCondition("Ready", "Paused");
    expect(await judged(world)).toMatchObject({ flux: "InProgress", argocd: "Suspended" });
  });

  test("wait until a change of the spec is read", async () => {
    await using world = await startWorld(cluster);
    await world.createEnvironment();
    const operator = world.startOperator();
    await world.untilCondition("Ready", "Ready");
    await operator.stop();
    await world.patchSpec({ sessions: { maxConcurrent: 3 } });
    expect(await judged(world)).toMatchObject({ flux: "InProgress", argocd: "Progressing" });
  });
});
