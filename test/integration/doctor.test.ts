import { readFile, writeFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { CHECKS, type CheckResult } from "../../src/doctor/checks.ts";
import type { DoctorReport } from "../../src/doctor/report.ts";
import { DEPLOYMENTS, NETWORK_POLICIES, PODS, type Resource, SECRETS } from "../../src/kube/resource.ts";
import { renderJournal } from "../../src/protocol/journal.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { berthVersion } from "../../src/settings/version.ts";
import { startCluster } from "../../testbed/cluster/cluster.ts";
import { installBerth } from "../../testbed/cluster/install.ts";
import { cliRun } from "../support/cli-run.ts";
import { useCluster } from "../support/cluster.ts";
import { freePort } from "../support/free-port.ts";
import { SHORT_LEASE, serveOne, untilState } from "../support/session-life.ts";
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
    const sessions = { workspace: { type: "Pod" } };
    await using world = await startWorld(cluster, { container: { command: ["worker"] }, sessions });
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
    const answer = await doctor(world, ["--check-key"]);
    // The Deployment has no Pods: the operator is part of this process.
    const wrong = answer.report.checks.filter(({ status, check }) => status !== "pass" && check !== "operator");
    expect(wrong).toEqual([]);
    expect(new Set(answer.report.checks.map(({ check }) => check))).toEqual(new Set(Object.keys(CHECKS)));
    expect(found(answer, "work-api")[0]?.message).toContain("accepts the key: 0 items wait");
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
    // The Deployment is scaled to zero, which explains that no replica holds the Lease.
    expect(found(lacking, "lease")[0]?.message).toBe("not checked: needs a running operator");

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

  test("reports that the operator may not add turns, where sessions sleep", async () => {
    await using world = await startWorld(cluster, { container: { command: ["worker"] } });
    const { namespace } = world;
    await installOperator(world);
    const rules = (await shippedRules(ACCOUNT)).filter(
      ({ resources }) => !resources.includes("pods/ephemeralcontainers"),
    );
    await world.kube.patch(ROLES, { namespace, name: "rights" }, { rules }, { type: "merge" });
    await world.createEnvironment();
    expect(statusOf(await doctor(world), "operator-rights")).toEqual(["pass"]);
    await world.patchSpec({ sessions: { workspace: { type: "Pod" } } });
    const lacking = await world.until("the permission is gone", async () => {
      const [result] = found(await doctor(world), "operator-rights");
      return result?.status === "warn" && result;
    });
    expect(lacking).toMatchObject({
      message: expect.stringContaining(`may not patch pods/ephemeralcontainers in namespace ${namespace}: sessions`),
      fix: "Set the chart's rbac.ephemeralContainers=true, unless this is intended.",
    });
  });

  test("reports a RuntimeClass that does not exist, under the name that the operator's flags give it", async () => {
    await using world = await startWorld(cluster, { sessions: { isolation: "Kata" } });
    await installOperator(world, [`--runtime-classes=Kata=${world.namespace}`]);
    await world.createEnvironment();
    const answer = await doctor(world);
    expect(found(answer, "runtime-class")).toMatchObject([
      {
        status: "fail",
        message: expect.stringMatching(`^spec.sessions.isolation: .* RuntimeClass ${world.namespace};`),
      },
    ]);
    expect(found(answer, "template")[0]?.message).toBe("not checked: needs the RuntimeClass");
  });

  test("reports an Environment without an operator, and its key and template errors", async () => {
    await using world = await startWorld(cluster, { key: false, podSpec: { hostNetwrok: true } });
    await world.createEnvironment();
    const answer = await doctor(world, ["--check-key"]);
    expect(answer.code).toBe(1);
    // The operator is the cause, so it comes first. Checks that need an operator are not separate problems.
    expect(answer.report.problems[0]).toMatchObject({ check: "operator", status: "fail", about: ["cluster"] });
    expect(found(answer, "conditions")[0]?.message).toBe("not checked: needs a running operator");
    expect(found(answer, "key")[0]?.message).toMatch(
      /^spec\.api\.keySecretRef\.name: Secret key does not exist in namespace/,
    );
    expect(statusOf(answer, "work-api")).toEqual(["skip"]);
    expect(found(answer, "template")[0]?.message).toBe(
      "Refused: spec.sessions.template.spec.hostNetwrok: unknown field; correct its name, or remove it",
    );
    expect(statusOf(answer, "network-policy")).toEqual(["skip"]);
  });

  test("reports conditions with their fix, and only warns about deliberate states", async () => {
    await using world = await startWorld(cluster, { key: false });
    await world.createEnvironment();
    world.startOperator();
    await world.untilCondition("Ready", "KeySecretMissing");
    // The key's own check replaces the condition.
    const missing = await doctor(world);
    expect(statusOf(missing, "conditions")).toEqual([]);
    expect(found(missing, "key")[0]).toMatchObject({
      status: "fail",
      message: expect.stringMatching(/^spec\.api\.keySecretRef\.name: Secret key does not exist in namespace/),
      fix: "Create the Secret, or correct api.keySecretRef.name.",
      reason: "KeySecretMissing",
    });
    await world.createKey();
    await world.patchSpec({ paused: true });
    await world.untilCondition("Ready", "Paused");
    await world.untilCondition("Authenticated", "KeyAccepted");
    expect(statusOf(await doctor(world), "conditions")).toEqual(["warn"]);
  });

  test("sends the key to the Work API only with --check-key, and only to allowed origins", async () => {
    await using world = await startWorld(cluster, { key: false });
    await world.createKey("sk-ant-oat01-of-nobody");
    await world.createEnvironment();
    expect(found(await doctor(world), "work-api")).toEqual([]);
    expect(found(await doctor(world, ["--check-key"]), "work-api")[0]?.message).toMatch(
      /^spec\.api\.baseUrl: the operator may not send keys to http:\/\/127\.0\.0\.1/,
    );
    const asked = await doctor(world, ["--check-key", "--allowed-api-origins", world.simulator.url]);
    expect(found(asked, "work-api")[0]).toMatchObject({
      status: "fail",
      message: expect.stringMatching(/^KeyRejected: /),
    });
    expect(asked.text).not.toContain("of-nobody");
  });

  test("finds claim records of a deleted Environment, and a modified NetworkPolicy", async () => {
    await using world = await startWorld(cluster, SHORT_LEASE);
    await installOperator(world);
    const { item, operator } = await serveOne(world);
    await untilState(world, item, "active");
    await operator.stop();
    expect(statusOf(await doctor(world), "claims")).toEqual(["pass"]);
    const where = { name: "berth-other-x", namespace: world.namespace, environment: "other" };
    const journal: Parameters<typeof renderJournal>[1] = {
      use: "session",
      lease: "Worker",
      environmentUid: "gone",
      podUid: "gone",
      api: "",
      workId: "work_1",
      sessionId: "session_1",
      queuedAt: "",
      polledFromMs: 0,
      polledUntilMs: 0,
    };
    await world.kube.create(SECRETS, renderJournal(where, journal, "sk-ant-of-a-claim"));
    const policy = { namespace: world.namespace, name: "berth-served" };
    await world.kube.patch(NETWORK_POLICIES, policy, { spec: { egress: [{}] } }, { type: "merge" });
    const answer = await doctor(world);
    expect(found(answer, "claims")[0]).toMatchObject({
      status: "fail",
      message: "claim Secrets belong to a deleted Environment: berth-other-x",
    });
    expect(found(answer, "network-policy")[0]?.message).toBe("NetworkPolicy berth-served differs from the spec");
    expect(answer.text).not.toContain("of-a-claim");
  });

  test("of a fleet lists each problem once, and can check one Environment only", async () => {
    await using world = await startWorld(cluster, { key: false });
    const { namespace } = world;
    await installOperator(world);
    const names = ["first", "second", "third"];
    for (const name of names)
      await world.kube.create(ENVIRONMENTS, { metadata: { name, namespace }, spec: world.spec() } as never);
    const { report } = await doctor(world, ["--problems"]);
    expect(report.checks).toBeUndefined();
    expect(report.problems[0]).toMatchObject({
      check: "operator",
      message: "it is scaled to 0 replicas, as after berth uninstall",
    });
    const key = report.problems.filter(({ check }) => check === "key");
    expect(key.map(({ about }) => about)).toEqual([names.map((name) => `environment ${namespace}/${name}`)]);
    expect(report.problems.map(({ check }) => check)).not.toContain("conditions");
    expect(report.problems.map(({ check }) => check)).not.toContain("lease");

    const one = await doctor(world, ["second"]);
    expect(found(one, "spec").map(({ about }) => about)).toEqual([`environment ${namespace}/second`]);
    expect(statusOf(one, "claims")).toEqual(["pass"]);
    const none = await doctor(world, ["second", "forth"]);
    expect(none.report.problems.find(({ check }) => check === "spec")).toMatchObject({
      message: "there is no Environment forth",
      about: [`namespace ${namespace}`],
    });
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
      const looked = await doctor(world, ["--check-key"], kubeconfig);
      return found(looked, "key").length > 0 && statusOf(looked, "operator")[0] !== "skip" && looked;
    });
    // Without permission to read the key, doctor still reports whether the Work API answers.
    expect(found(answer, "work-api-reach")[0]).toMatchObject({
      status: "pass",
      message: expect.stringContaining("answers this machine: 401 to a request without a key"),
    });
    const skipped = answer.report.checks.filter(({ status }) => status === "skip");
    expect(Object.fromEntries(skipped.map(({ check, message }) => [check, message]))).toEqual({
      conditions: "not checked: needs a running operator",
      "crd-schema": "not checked: needs get customresourcedefinitions environments.berth.dev",
      lease: `not checked: needs list leases in namespace ${namespace}`,
      "operator-rights": "not checked: needs create subjectaccessreviews.authorization.k8s.io",
      "cluster-dns": "not checked: needs list pods in namespace kube-system",
      "pod-security": `not checked: needs get namespaces ${namespace}`,
      claims: `not checked: needs list secrets in ${namespace}`,
      key: `not checked: needs get secrets in ${namespace}`,
      "work-api": "not checked: needs the environment key",
      template: `not checked: needs create pods in ${namespace} (for a dry run)`,
      "network-policy": `not checked: needs get networkpolicies in ${namespace}`,
      pods: `not checked: needs list pods in ${namespace}`,
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
  await world.until("a schema that accepts anything is served", async () => {
    const metadata = { namespace: world.namespace, name: world.name };
    return world.kube
      .create(ENVIRONMENTS, { metadata, spec: { ...world.spec(), sessions: { warm: -1 } } } as never)
      .then(
        () => true,
        () => false,
      );
  });
  const stored = await doctor(world, [], own.kubeconfig);
  expect(found(stored, "spec")[0]).toMatchObject({
    status: "fail",
    message: expect.stringContaining("spec.sessions.warm: is too small"),
  });
});
