import { readFile, writeFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { CHECKS, type CheckResult } from "../../src/doctor/checks.ts";
import type { DoctorReport } from "../../src/doctor/report.ts";
import { DEPLOYMENTS, PODS, type Resource } from "../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { berthVersion } from "../../src/settings/version.ts";
import { startCluster } from "../../testbed/cluster/cluster.ts";
import { installBerth } from "../../testbed/cluster/install.ts";
import { cliRun } from "../support/cli-run.ts";
import { useCluster } from "../support/cluster.ts";
import { freePort } from "../support/free-port.ts";
import { shippedRules } from "../support/shipped-rights.ts";
import { startWorld, type World } from "../support/world.ts";
import { asTestCluster, takeAnything } from "./own-cluster.ts";

const cluster = useCluster();

const ACCOUNT = "berth-operator";
const RBAC = "rbac.authorization.k8s.io";
const ROLES: Resource = { group: RBAC, version: "v1", plural: "roles", kind: "Role", namespaced: true };
const BINDINGS: Resource = { ...ROLES, plural: "rolebindings", kind: "RoleBinding" };
const CLUSTER_BINDINGS: Resource = {
  ...ROLES,
  plural: "clusterrolebindings",
  kind: "ClusterRoleBinding",
  namespaced: false,
};

interface Answer {
  readonly code: number;
  readonly report: DoctorReport;
  readonly text: string;
}

/** Runs `berth doctor -o json` for one world only. */
async function doctor(world: World, flags: readonly string[] = [], kubeconfig = cluster.kubeconfig): Promise<Answer> {
  const where = ["--kubeconfig", kubeconfig, "-n", world.namespace, "--operator-namespace", world.namespace];
  const { code, out, err } = await cliRun(["doctor", ...where, "-o", "json", ...flags]);
  expect(err).toBe("");
  return { code, report: JSON.parse(out), text: out };
}

/** The results of one check. */
function found({ report }: Answer, check: keyof typeof CHECKS): CheckResult[] {
  return report.checks.filter((result) => result.check === check);
}

const statusOf = (answer: Answer, check: keyof typeof CHECKS) => found(answer, check).map(({ status }) => status);

/** Installs what the chart would, as far as doctor checks it: the operator's Deployment and permissions. */
async function installOperator(world: World, args: readonly string[] = []): Promise<void> {
  const { namespace, kube } = world;
  const subjects = [{ kind: "ServiceAccount", name: ACCOUNT, namespace }];
  await kube.create(ROLES, { metadata: { name: "rights", namespace }, rules: await shippedRules(ACCOUNT) } as never);
  for (const role of ["rights", "leases"]) {
    const roleRef = { apiGroup: RBAC, kind: "Role", name: role };
    await kube.create(BINDINGS, { metadata: { name: `${role}-account`, namespace }, roleRef, subjects } as never);
  }
  const roleRef = { apiGroup: RBAC, kind: "ClusterRole", name: "berth-operator-nodes.berth-system" };
  await kube.create(CLUSTER_BINDINGS, { metadata: { name: `nodes-${namespace}` }, roleRef, subjects } as never);
  // The name depends on the chart's nameOverride.
  const labels = { "app.kubernetes.io/name": "sandboxes", "app.kubernetes.io/component": "operator" };
  await kube.create(DEPLOYMENTS, {
    metadata: { name: "berth-operator", namespace, labels },
    spec: {
      replicas: 0,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels: { ...labels, "berth.dev/role": "operator" } },
        spec: {
          serviceAccountName: ACCOUNT,
          containers: [
            {
              name: "berth",
              image: `berth:${berthVersion()}`,
              args: ["run", `--namespace=${namespace}`, `--allowed-api-origins=${world.simulator.url}`, ...args],
            },
          ],
        },
      },
    },
  });
}

describe.concurrent("berth doctor", () => {
  test("finds nothing wrong with a correct setup, and prints no key", async () => {
    await using world = await startWorld(cluster);
    await installOperator(world);
    await world.createEnvironment();
    // The test control plane has no DNS.
    await world.kube.create(PODS, {
      metadata: { name: `dns-${world.namespace}`, namespace: "kube-system", labels: { "k8s-app": "kube-dns" } },
      spec: { containers: [{ name: "dns", image: "dns.example/dns" }] },
    });
    world.startOperator({ leaderElect: true });
    await world.untilParked(1);
    await world.untilCondition("Ready", "Ready");
    const answer = await doctor(world);
    // The Deployment has no Pods: the operator is part of this process.
    const wrong = answer.report.checks.filter(({ status, check }) => status !== "pass" && check !== "operator");
    expect(wrong).toEqual([]);
    expect(new Set(answer.report.checks.map(({ check }) => check))).toEqual(new Set(Object.keys(CHECKS)));
    expect(found(answer, "conditions").map(({ message }) => message)).toContainEqual(
      expect.stringMatching(/^TemplateAccepted=True Accepted: /),
    );
    const shipped = [...(await shippedRules(ACCOUNT)), ...(await shippedRules(`${ACCOUNT}-leader`))];
    const rights = shipped.reduce((sum, { resources, verbs }) => sum + resources.length * verbs.length, 0);
    expect(found(answer, "operator-rights")[0]?.message).toContain(`has the ${rights} permissions of the chart`);
    expect(answer.text).not.toContain(world.simulator.environmentKey(world.environmentId));
    expect(statusOf(answer, "operator")).toEqual(["fail"]);
    expect(answer.code).toBe(1);
  });

  test("reports an operator that is missing, outdated, or without permissions or a Lease", async () => {
    await using world = await startWorld(cluster);
    expect(found(await doctor(world), "operator")[0]).toMatchObject({ about: "cluster", status: "fail" });

    await installOperator(world);
    const { namespace } = world;
    const ref = { namespace, name: "berth-operator" };
    const rules = (await shippedRules(ACCOUNT)).map((rule) => ({
      ...rule,
      verbs: rule.verbs.filter((verb) => !(rule.resources.includes("secrets") && verb === "patch")),
    }));
    await world.kube.patch(ROLES, { namespace, name: "rights" }, { rules }, { type: "merge" });
    const container = { name: "berth", image: "registry.example/berth:0.0.1" };
    const spec = { template: { spec: { containers: [container] } } };
    await world.kube.patch(DEPLOYMENTS, ref, { spec }, { type: "strategic" });
    // The API server's authorizer learns of changed roles a moment later.
    const lacking = await world.until("the permission is gone", async () => {
      const answer = await doctor(world);
      return found(answer, "operator-rights")[0]?.status === "fail" && answer;
    });
    expect(found(lacking, "operator-rights")[0]?.message).toBe(
      `service account ${namespace}/${ACCOUNT} may not patch secrets in namespace ${namespace}`,
    );
    expect(found(lacking, "operator-version")[0]).toMatchObject({
      status: "warn",
      message: `it is 0.0.1 (image registry.example/berth:0.0.1), and this build is ${berthVersion()}`,
    });
    expect(statusOf(lacking, "lease")).toEqual(["fail"]);

    const foreign = { name: "berth", args: ["run", "--flag-of-tomorrow"] };
    const next = { template: { spec: { containers: [foreign] } } };
    await world.kube.patch(DEPLOYMENTS, ref, { spec: next }, { type: "strategic" });
    expect(found(await doctor(world), "operator-version")[0]?.message).toMatch(/^its flags are not flags of Berth/);

    // The operator works without permission to read Nodes, which may be intended.
    const patch = { rules: await shippedRules(ACCOUNT) };
    await world.kube.patch(ROLES, { namespace, name: "rights" }, patch, { type: "merge" });
    const known = { name: "berth", args: ["run", `--namespace=${namespace}`] };
    await world.kube.patch(
      DEPLOYMENTS,
      ref,
      { spec: { template: { spec: { containers: [known] } } } },
      { type: "strategic" },
    );
    await world.kube.delete(CLUSTER_BINDINGS, { name: `nodes-${namespace}` });
    await world.until("only the permission for Nodes is missing", async () => {
      const [result] = found(await doctor(world), "operator-rights");
      return result?.status === "warn" && result.message.includes("may not list nodes, watch nodes");
    });
  });

  test("reports conditions with their fix, each problem of a fleet once, and can check one Environment only", async () => {
    await using world = await startWorld(cluster, { key: false });
    const { namespace } = world;
    const names = ["first", "second", "third"];
    for (const name of names)
      await world.kube.create(ENVIRONMENTS, { metadata: { name, namespace }, spec: world.spec() } as never);
    const { report } = await doctor(world, ["--problems"]);
    expect(report.checks).toBeUndefined();
    // The operator is the cause, so it comes first.
    expect(report.problems.map(({ check, about }) => [check, about])).toEqual([
      ["operator", ["cluster"]],
      ["conditions", names.map((name) => `environment ${namespace}/${name}`)],
    ]);

    await world.createEnvironment();
    world.startOperator();
    await world.untilCondition("Ready", "KeySecretMissing");
    const one = await doctor(world, [world.name]);
    expect(found(one, "conditions")[0]).toMatchObject({
      about: `environment ${namespace}/${world.name}`,
      status: "fail",
      message: expect.stringMatching(/^Ready=False KeySecretMissing: /),
      fix: "Create the Secret, or correct api.keySecretRef.name.",
      reason: "KeySecretMissing",
    });
    expect(new Set(one.report.checks.map(({ about }) => about))).not.toContain(`environment ${namespace}/first`);
    const none = await doctor(world, ["second", "forth"]);
    expect(none.report.problems.find(({ check }) => check === "conditions")).toMatchObject({
      message: "there is no Environment forth",
      about: [`namespace ${namespace}`],
    });
  });

  test("of one Deployment needs only permission to read it, and waits until its replicas are available", async () => {
    await using world = await startWorld(cluster, { node: { fates: () => ({ kind: "run" }) } });
    const { kube, namespace } = world;
    const user = `tester-${namespace}`;
    const kubeconfig = await cluster.kubeconfigFor(user);
    const rules = [
      { apiGroups: ["apps"], resources: ["deployments"], resourceNames: ["berth-operator"], verbs: ["get"] },
    ];
    const subjects = [{ kind: "User", name: user, apiGroup: RBAC }];
    await kube.create(ROLES, { metadata: { name: "test", namespace }, rules } as never);
    const roleRef = { apiGroup: RBAC, kind: "Role", name: "test" };
    await kube.create(BINDINGS, { metadata: { name: "test", namespace }, roleRef, subjects } as never);
    const check = async (seconds: number) => {
      const where = ["--kubeconfig", kubeconfig, `--deployment=${namespace}/berth-operator`];
      return await cliRun(["doctor", ...where, `--timeout-seconds=${seconds}`]);
    };
    await world.until("the permission", async () => (await check(0)).out.includes("it is absent"));

    const labels = { app: "berth-operator" };
    const containers = [{ name: "berth", image: "berth" }];
    const template = { metadata: { labels }, spec: { nodeSelector: { node: "none" }, containers } };
    const spec = { replicas: 2, selector: { matchLabels: labels }, template };
    await kube.create(DEPLOYMENTS, { metadata: { name: "berth-operator", namespace }, spec });
    const missing = await check(0);
    expect(missing.code).toBe(1);
    expect(missing.out).toMatch(/^FAIL operator +0 of 2 replicas are available/);

    const waiting = check(60);
    const there = { spec: { template: { spec: { nodeSelector: { node: null, ...world.nodeSelector } } } } };
    await kube.patch(DEPLOYMENTS, { namespace, name: "berth-operator" }, there, { type: "merge" });
    expect(await waiting).toMatchObject({ code: 0, out: expect.stringContaining("2 of 2 replicas are available") });
  });

  test("skips checks without permission, names the permission, and does not fail", async () => {
    await using world = await startWorld(cluster);
    await world.createEnvironment();
    const user = `viewer-${world.namespace}`;
    const rules = [
      { apiGroups: ["berth.dev"], resources: ["environments"], verbs: ["list"] },
      { apiGroups: ["apps"], resources: ["deployments"], verbs: ["list"] },
    ];
    await installOperator(world);
    const { namespace } = world;
    await world.kube.create(ROLES, { metadata: { name: "viewer", namespace }, rules } as never);
    const subjects = [{ kind: "User", name: user, apiGroup: RBAC }];
    const roleRef = { apiGroup: RBAC, kind: "Role", name: "viewer" };
    await world.kube.create(BINDINGS, { metadata: { name: "viewer", namespace }, roleRef, subjects } as never);
    const kubeconfig = await cluster.kubeconfigFor(user);
    const answer = await world.until("the viewer has permission", async () => {
      const looked = await doctor(world, [], kubeconfig);
      return found(looked, "work-api-reach").length > 0 && statusOf(looked, "operator")[0] !== "skip" && looked;
    });
    expect(found(answer, "work-api-reach")[0]).toMatchObject({
      status: "pass",
      message: expect.stringContaining("answers this machine: 401 to a request without a key"),
    });
    const skipped = answer.report.checks.filter(({ status }) => status === "skip");
    expect(Object.fromEntries(skipped.map(({ check, message }) => [check, message]))).toEqual({
      "crd-schema": "not checked: needs get customresourcedefinitions environments.berth.dev",
      lease: `not checked: needs list leases in namespace ${namespace}`,
      "operator-rights": "not checked: needs create subjectaccessreviews.authorization.k8s.io",
      "cluster-dns": "not checked: needs list pods in namespace kube-system",
    });
  });

  test("reports an unreachable API server, and skips all other checks", async () => {
    const file = await cluster.kubeconfigFor("nobody");
    const elsewhere = (await readFile(file, "utf8")).replaceAll(
      cluster.server,
      `https://127.0.0.1:${await freePort()}`,
    );
    await writeFile(`${file}.elsewhere`, elsewhere);
    const { code, out } = await cliRun(["doctor", "--kubeconfig", `${file}.elsewhere`]);
    expect(code).toBe(1);
    expect(out).toMatch(/^FAIL api-server .*ECONNREFUSED/);
    expect(out).toMatch(/: 1 failed, 0 warned, 0 ok, 0 not checked\n$/);
  });
});

test("berth doctor reports a missing or different CRD", async () => {
  await using own = await startCluster();
  const bare = await cliRun(["doctor", "--kubeconfig", own.kubeconfig, "-o", "json"]);
  const without: Answer = { code: bare.code, report: JSON.parse(bare.out), text: bare.out };
  expect(without.code).toBe(1);
  expect(statusOf(without, "crd")).toEqual(["fail"]);
  expect(statusOf(without, "crd-schema")).toEqual(["skip"]);

  await installBerth(own.api);
  await takeAnything(own);
  await using world = await startWorld(await asTestCluster(own));
  const other = await doctor(world, [], own.kubeconfig);
  expect(found(other, "crd-schema")[0]?.message).toMatch(
    /^the CRD lacks metadata, spec, status|^the CRD lacks apiVersion/,
  );
});
