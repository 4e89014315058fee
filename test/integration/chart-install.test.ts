import { execFile } from "node:child_process";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { FINALIZER } from "../../src/api/names.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { findClientTools } from "../../testbed/cluster/client-tools.ts";
import { type Cluster, startCluster } from "../../testbed/cluster/cluster.ts";
import { DEPLOY_DIR } from "../../testbed/cluster/install.ts";
import type { FateInput } from "../../testbed/node/node.ts";
import { CHART } from "../../tools/helm.ts";
import { helmWithValues, RELEASE, withImage } from "../support/chart.ts";
import type { TestCluster } from "../support/cluster.ts";
import { freePort } from "../support/free-port.ts";
import { BERTH, exists, operatorNode, Release, serve } from "../support/release.ts";
import { untilState } from "../support/session-life.ts";
import { startWorld, type World } from "../support/world.ts";
import { asNamingCluster } from "./own-cluster.ts";

const CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/environments.berth.dev";
/** Everything happens in real time: an operator start, a Job, a shutdown, and the garbage collector's half minute. */
const TIMEOUT_MS = 300_000;
const PATIENCE_MS = 120_000;

const hanging: FateInput = { kind: "worker", end: "hang" };
const working = (workMs: number): FateInput => ({ kind: "worker", workMs });

/** Other files need the CRD, which these tests install and delete. */
let cluster: Cluster;
let shared: TestCluster;

beforeAll(async () => {
  cluster = await startCluster();
  shared = await asNamingCluster(cluster);
});
afterAll(() => cluster?.stop());

/** Each test installs the CRD itself. */
afterEach(() => kubectl("delete", "crd", "environments.berth.dev", "--ignore-not-found"));

/** A world whose node runs the operator, and whose sessions get these fates in order. */
async function worldOf(...fates: FateInput[]): Promise<World> {
  const byPod = new Map<string, FateInput>();
  return await startWorld(shared, {
    node: operatorNode(cluster, ({ metadata: { uid = "" } }) => {
      const fate = byPod.get(uid) ?? fates[Math.min(byPod.size, fates.length - 1)] ?? hanging;
      byPod.set(uid, fate);
      return fate;
    }),
    spec: { deletionGraceSeconds: 60 },
  });
}

/** Reads the finalizers live, since a watch may lag behind other signs of the operator's progress. */
async function finalizers({ kube, namespace, name }: World): Promise<readonly string[]> {
  return (await kube.get(ENVIRONMENTS, { namespace, name })).metadata.finalizers ?? [];
}

async function untilNamespaceGone(world: World, name: string): Promise<void> {
  await cluster.api.delete(`/api/v1/namespaces/${name}`);
  await world.until(
    `namespace ${name} is gone`,
    async () => !(await exists(cluster, `/api/v1/namespaces/${name}`)),
    PATIENCE_MS,
  );
}

/** Expects that none of the operator's requests was forbidden. */
async function expectNoRefusal(release: Release): Promise<void> {
  const entries = await cluster.audit.entries({ user: release.operator });
  expect(entries.length).toBeGreaterThan(0);
  expect(entries.filter(({ code }) => code === 403)).toEqual([]);
}

test(
  "a session survives upgrade, uninstall and reinstallation, and nothing is stuck at the end",
  async () => {
    await using world = await worldOf(hanging, working(300), hanging);
    const release = new Release(cluster, world, "release-life");
    const { stdout } = await release.install();
    expect(stdout).toMatch(/Berth \d.* is deployed/);
    await world.createEnvironment({ sessions: { ...(world.spec()["sessions"] as object), warm: 1 } });
    // An item before that would bring a second Pod, and either Pod could get it.
    await world.untilParked(1);
    const { item, pod } = await serve(world);
    expect(await finalizers(world)).toEqual([FINALIZER]);

    await release.upgrade({ logLevel: "debug", replicas: 2 });
    expect(await release.objects()).toContain("poddisruptionbudgets/berth-operator");
    expect(world.simulator.item(item.id).state).toBe("active");

    await release.uninstall();
    expect(await release.objects()).toEqual([]);
    expect(await finalizers(world)).toEqual([]);
    expect(await exists(cluster, CRD)).toBe(true);
    expect(world.simulator.item(item.id).state).toBe("active");
    await world.caughtUp("pods");
    expect(world.pods.map(({ metadata }) => metadata.uid)).toContain(pod.metadata.uid);

    await release.install();
    expect(world.simulator.item(item.id).state).toBe("active");
    world.simulator.stopItem(item.id);
    await untilState(world, item, "stopped");
    world.simulator.enqueue(world.environmentId);
    await world.untilServed(2);
    expect(world.simulator.item(item.id).acks).toHaveLength(1);

    const last = await serve(world);
    expect(await finalizers(world)).toEqual([FINALIZER]);
    await release.uninstall();
    expect(world.simulator.item(last.item.id).state).toBe("active");
    await expectNoRefusal(release);
    world.simulator.assertNoViolations();
    // Without an operator, neither the busy Environment's namespace nor the release's namespace gets stuck.
    await untilNamespaceGone(world, world.namespace);
    await untilNamespaceGone(world, release.namespace);
  },
  TIMEOUT_MS,
);

test(
  "with crds.keep=false, an uninstall drains the Environments first, and gives up what takes too long",
  async () => {
    const values = { crds: { keep: false }, uninstall: { drainSeconds: 10 } };
    await using world = await worldOf(working(3_000));
    const release = new Release(cluster, world, "release-drains");
    await release.install(values);
    await world.createEnvironment();
    const { item } = await serve(world);
    await release.uninstall();
    await world.until("the CRD is deleted", async () => !(await exists(cluster, CRD)));
    // The session's own worker stopped the item, and its claim was settled: the drain succeeded.
    expect(world.simulator.item(item.id).state).toBe("stopped");
    await world.caughtUp("secrets");
    expect(world.claims).toEqual([]);

    await using hung = await worldOf(hanging);
    const again = new Release(cluster, hung, "release-drains");
    await again.install(values);
    await hung.createEnvironment();
    await serve(hung);
    await again.uninstall();
    await hung.until("the CRD is deleted", async () => !(await exists(cluster, CRD)));
    expect(await again.objects()).toEqual([]);
    await hung.caughtUp("secrets");
    expect(hung.claims).toEqual([]);
    await expectNoRefusal(again);
    await untilNamespaceGone(hung, hung.namespace);
    await untilNamespaceGone(hung, again.namespace);
  },
  TIMEOUT_MS,
);

test(
  "a release for some namespaces serves those without permissions elsewhere",
  async () => {
    await using world = await worldOf(working(300));
    const release = new Release(cluster, world, "release-some");
    await release.install({
      namespaces: [world.namespace],
      features: { nodes: false, aggregate: false },
      crds: { keep: false },
      replicas: 2,
      uninstall: { drainSeconds: 10 },
    });
    const roles = await cluster.api.get<{ items: { metadata: { name: string } }[] }>(
      "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    );
    expect(roles.items.filter(({ metadata }) => metadata.name.startsWith("berth-operator"))).toEqual([]);
    await world.createEnvironment();
    world.simulator.enqueue(world.environmentId);
    await world.untilServed(1);
    const entries = await cluster.audit.entries({ user: release.operator });
    const refused = entries.filter(({ code, resource }) => code === 403 && resource !== "nodes");
    expect(refused).toEqual([]);
    const places = new Set(entries.filter(({ code }) => code < 400).map(({ namespace }) => namespace));
    places.delete("");
    expect(places).toEqual(new Set([world.namespace, release.namespace]));
    await release.uninstall();
    expect(await exists(cluster, CRD)).toBe(false);
    expect(await release.objects()).toEqual([]);
    world.simulator.assertNoViolations();
  },
  TIMEOUT_MS,
);

test(
  "an upgrade updates the CRD",
  async () => {
    await using world = await worldOf(hanging);
    const older = await mkdtemp(join(tmpdir(), "berth-older-chart-"));
    try {
      await cp(CHART, older, { recursive: true });
      const template = join(older, "templates", "crds.yaml");
      const text = await readFile(template, "utf8");
      expect(text).toContain("- name: Queue\n");
      await writeFile(template, text.replace("- name: Queue\n", "- name: Waiting\n"));
      const release = new Release(cluster, world, "release-upgrade", older);
      await release.install({ crds: { keep: false }, replicas: 0 });
      expect(await columns()).toContain("Waiting");
      await release.upgrade({ crds: { keep: false }, replicas: 0 }, CHART);
      expect(await columns()).toContain("Queue");
      expect(await columns()).not.toContain("Waiting");
      await release.rollback();
      expect(await columns()).toContain("Waiting");
      await release.uninstall();
      expect(await exists(cluster, CRD)).toBe(false);
    } finally {
      await rm(older, { recursive: true });
    }
  },
  TIMEOUT_MS,
);

test(
  "an uninstall whose Job can't run fails with an error, and succeeds without hooks",
  async () => {
    await using world = await worldOf(hanging);
    const release = new Release(cluster, world, "release-broken");
    await release.install({ image: { repository: "berth", tag: "not-there" }, replicas: 0 });
    await world.createEnvironment();
    const ref = { namespace: world.namespace, name: world.name };
    await world.kube.patch(ENVIRONMENTS, ref, { metadata: { finalizers: [FINALIZER] } }, { type: "merge" });

    const refused = await release.tryUninstall(["--timeout", "10s"]);
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toContain("berth-uninstall-or--no-hooks");
    expect(await release.objects()).not.toContain("jobs/berth-uninstall-or--no-hooks");
    expect(await release.objects()).toContain("deployments/berth-operator");
    expect((await world.kube.get(ENVIRONMENTS, ref)).metadata.finalizers).toEqual([FINALIZER]);

    expect(await release.tryUninstall(["--no-hooks", "--wait"])).toMatchObject({ code: 0 });
    await kubectl("-n", ref.namespace, "patch", "benv", ref.name, "--type=merge", "-p", NO_FINALIZERS);
    await untilNamespaceGone(world, world.namespace);
    await untilNamespaceGone(world, release.namespace);
  },
  TIMEOUT_MS,
);

test(
  "an install without an image creates nothing, and one that never ran is uninstalled at once, without hooks",
  async () => {
    const env = { ...process.env, KUBECONFIG: cluster.kubeconfig };
    const install = ["install", RELEASE, CHART, "--namespace", "never-ran", "--create-namespace"];
    const uninstall = ["uninstall", RELEASE, "--namespace", "never-ran", "--no-hooks", "--wait"];
    expect((await helmWithValues(install, {}, env)).stderr).toContain("image.repository is empty");
    expect(await exists(cluster, "/api/v1/namespaces/never-ran")).toBe(false);

    const { code, stdout } = await helmWithValues(install, withImage({ image: { tag: "not-there" } }), env);
    expect(code).toBe(0);
    // The notes say how, and so does the error of an uninstall with the Job, which ends at its deadline.
    expect(stdout).toContain(`helm ${uninstall.slice(0, 2).join(" ")} -n never-ran --no-hooks`);
    const withJob = helmWithValues(
      uninstall.filter((arg) => arg !== "--no-hooks"),
      undefined,
      env,
    );
    const job = "/apis/batch/v1/namespaces/never-ran/jobs/berth-uninstall-or--no-hooks";
    await expect.poll(() => exists(cluster, job)).toBe(true);
    const soon = JSON.stringify({ spec: { activeDeadlineSeconds: 1 } });
    await kubectl("patch", "-n", "never-ran", "job/berth-uninstall-or--no-hooks", "-p", soon);
    expect(await withJob).toMatchObject({ code: 1, stderr: expect.stringContaining("or--no-hooks") });
    expect(await helmWithValues(uninstall, undefined, env)).toMatchObject({ code: 0 });
    const kinds = "all,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,validatingadmissionpolicies";
    expect(await kubectl("get", kinds, "-A", "-l", `app.kubernetes.io/instance=${RELEASE}`, "-o", "name")).toBe("");
  },
  TIMEOUT_MS,
);

/** A patch for a finalizer that no operator removes. */
const NO_FINALIZERS = '{"metadata":{"finalizers":null}}';

test(
  "the plain manifests work like the chart, and `berth uninstall` cleans up before they are deleted",
  async () => {
    await using world = await worldOf(working(300), hanging);
    const nothingThere = await berthUninstall();
    expect(nothingThere).toMatchObject({ code: 0 });

    const folder = await mkdtemp(join(tmpdir(), "berth-deploy-"));
    try {
      await cp(DEPLOY_DIR, folder, { recursive: true });
      await moveToWorld(join(folder, "operator.yaml"), world);
      await kubectl("apply", "--server-side", "-k", folder);
      await kubectl("-n", "berth-system", "rollout", "status", "deployment/berth-operator", "--timeout=120s");
      await world.createEnvironment();
      // As above: the first item is for the first Pod.
      await world.untilParked(1);
      world.simulator.enqueue(world.environmentId);
      await world.untilServed(1);
      await serve(world);
      expect(await finalizers(world)).toEqual([FINALIZER]);

      expect(await berthUninstall("--deployment", "berth-system/berth-operator")).toMatchObject({ code: 0 });
      await kubectl("delete", "-f", join(folder, "operator.yaml"), "-f", join(folder, "rbac.yaml"));
      await untilNamespaceGone(world, world.namespace);
      const user = "system:serviceaccount:berth-system:berth-operator";
      expect((await cluster.audit.entries({ user })).filter(({ code }) => code === 403)).toEqual([]);
      world.simulator.assertNoViolations();
    } finally {
      await rm(folder, { recursive: true });
    }
  },
  TIMEOUT_MS,
);

test(
  "helm adopts an installation from plain manifests",
  async () => {
    await kubectl("apply", "--server-side", "-k", DEPLOY_DIR);
    const install = ["install", RELEASE, CHART, "--namespace", "berth-system"];
    const env = { ...process.env, KUBECONFIG: cluster.kubeconfig };
    const refused = await helmWithValues(install, withImage(), env);
    expect(refused.stderr).toContain("invalid ownership metadata");
    // As in docs/install.md.
    const flags = ["--take-ownership", "--force-conflicts"];
    const taken = await helmWithValues([...install, ...flags], withImage({ replicas: 2 }), env);
    expect(taken).toMatchObject({ code: 0 });
    const query = "labelSelector=app.kubernetes.io/managed-by%3DHelm";
    const { items } = await cluster.api.get<{ items: { spec: { replicas: number } }[] }>(
      `/apis/apps/v1/namespaces/berth-system/deployments?${query}`,
    );
    expect(items.map(({ spec }) => spec.replicas)).toEqual([2]);
  },
  TIMEOUT_MS,
);

/** Adapts the operator to this machine: its ports may be taken, and the Work API uses plain http. */
async function moveToWorld(file: string, world: World): Promise<void> {
  const text = await readFile(file, "utf8");
  const moved = text
    .replace("--metrics-bind-address=:8080", `--metrics-bind-address=:${await freePort()}`)
    .replace("--health-probe-bind-address=:8081", `--health-probe-bind-address=:${await freePort()}`)
    .replace("--log-level=info", "--log-level=debug")
    .replace("--allowed-api-origins=https://api.anthropic.com", `--allowed-api-origins=${world.simulator.url}`)
    .replace(/(name: allowedOrigins\n +expression: ).*$/m, `$1'["${world.simulator.url}"]'`);
  expect(moved.split(world.simulator.url)).toHaveLength(3);
  await writeFile(file, moved);
}

async function kubectl(...args: string[]): Promise<string> {
  const binary = join(await findClientTools(), "kubectl");
  const env = { ...process.env, KUBECONFIG: cluster.kubeconfig };
  return (await promisify(execFile)(binary, args, { env })).stdout;
}

function berthUninstall(...flags: string[]): Promise<{ code: number | null; stderr: string }> {
  const args = [BERTH, "uninstall", "--kubeconfig", cluster.kubeconfig, ...flags];
  return new Promise((resolve) => {
    const child = execFile(process.execPath, args, (_error, _stdout, stderr) =>
      resolve({ code: child.exitCode, stderr }),
    );
  });
}

async function columns(): Promise<string[]> {
  const crd = await cluster.api.get<{
    spec: { versions: { additionalPrinterColumns: { name: string }[] }[] };
  }>(CRD);
  return crd.spec.versions.flatMap(({ additionalPrinterColumns }) => additionalPrinterColumns.map(({ name }) => name));
}
