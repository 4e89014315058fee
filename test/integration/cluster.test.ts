import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, rmdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AuthenticationV1Api, CoreV1Api, KubeConfig } from "@kubernetes/client-node";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { ApiClient } from "../../testbed/cluster/api.ts";
import { type Cluster, startCluster, waitForServiceAccount } from "../../testbed/cluster/cluster.ts";
import { MINOR_VARIABLE, minorOf, TOOLS_DIR, toolModules } from "../../testbed/cluster/versions.ts";
import { useCluster } from "../support/cluster.ts";

describe("the shared control plane", () => {
  const cluster = useCluster();

  // Binaries from KUBEBUILDER_ASSETS have their own version.
  it.skipIf(process.env.KUBEBUILDER_ASSETS)("reports the version that it was built from", async () => {
    const gitVersion = (await toolModules(TOOLS_DIR, process.env[MINOR_VARIABLE])).at(-1)?.version ?? "";
    const [major, minor] = minorOf(gitVersion).split(".");
    const version = await cluster.api.get("/version");
    expect(version).toMatchObject({ gitVersion, major, minor, gitTreeState: "archive" });
  });

  it("counts requests by user", async () => {
    const namespace = await cluster.createNamespace("audit");
    const configMaps = `/api/v1/namespaces/${namespace}/configmaps`;
    const since = await cluster.audit.mark();
    await cluster.api.create(configMaps, { metadata: { name: "one" } });
    await cluster.api.create(configMaps, { metadata: { name: "two" } });
    await expect(cluster.api.get(`${configMaps}/three`)).rejects.toMatchObject({ status: 404 });
    const counts = await cluster.audit.counts({ since, user: "berth-admin", namespace });
    expect(counts).toEqual([
      { user: "berth-admin", verb: "create", resource: "configmaps", subresource: "", code: 201, count: 2 },
      { user: "berth-admin", verb: "get", resource: "configmaps", subresource: "", code: 404, count: 1 },
    ]);
  });

  it("garbage-collects the objects of a deleted owner", async () => {
    const namespace = await cluster.createNamespace("garbage");
    const configMaps = `/api/v1/namespaces/${namespace}/configmaps`;
    const owner = await cluster.api.create(configMaps, { metadata: { name: "owner" } });
    const ownerReferences = [{ apiVersion: "v1", kind: "ConfigMap", name: "owner", uid: owner.metadata?.uid }];
    await cluster.api.create(configMaps, { metadata: { name: "owned", ownerReferences } });
    await cluster.api.delete(`${configMaps}/owner`);
    await expect
      .poll(
        () =>
          cluster.api.get(`${configMaps}/owned`).then(
            () => "there",
            (error) => error.status,
          ),
        // The garbage collector pauses for up to half a minute when CRDs come and go, as they do in other tests.
        { timeout: 90_000 },
      )
      .toBe(404);
  });

  it("has a scheduler, which reports when no node fits", async () => {
    const namespace = await cluster.createNamespace("schedule");
    const pods = `/api/v1/namespaces/${namespace}/pods`;
    // Other tests have nodes in this cluster.
    const nodeSelector = { "kubernetes.io/hostname": "nowhere" };
    const pod = { metadata: { name: "waits" }, spec: { nodeSelector, containers: [{ name: "a", image: "a" }] } };
    await cluster.api.create(pods, pod);
    await expect
      .poll(async () => JSON.stringify((await cluster.api.get(`${pods}/waits`))["status"]), { timeout: 30_000 })
      .toContain("Unschedulable");
  });

  it("serves the CRDs of this project", async () => {
    const list = await cluster.api.get("/apis/berth.dev/v1alpha1/environments");
    expect(list.kind).toBe("EnvironmentList");
  });

  it("gives the operator's user the shipped permissions and no others", async () => {
    const config = new KubeConfig();
    config.loadFromFile(cluster.operatorKubeconfig);
    const client = config.makeApiClient(CoreV1Api);
    expect((await client.listPodForAllNamespaces()).kind).toBe("PodList");
    await expect(client.listConfigMapForAllNamespaces()).rejects.toMatchObject({ code: 403 });
  });

  it("authenticates any user by a certificate without granting permissions", async () => {
    const namespace = await cluster.createNamespace("users");
    const path = await cluster.kubeconfigFor("system:alice/ü", ["group one", "group two"]);
    const config = new KubeConfig();
    config.loadFromFile(path);
    const review = await config
      .makeApiClient(AuthenticationV1Api)
      .createSelfSubjectReview({ body: { apiVersion: "authentication.k8s.io/v1", kind: "SelfSubjectReview" } });
    expect(review.status?.userInfo).toMatchObject({
      username: "system:alice/ü",
      groups: ["group one", "group two", "system:authenticated"],
    });
    const client = config.makeApiClient(CoreV1Api);
    await expect(client.listNamespacedPod({ namespace })).rejects.toMatchObject({ code: 403 });
  });

  it("refuses an unknown token", async () => {
    const stranger = new ApiClient(cluster.server, await readFile(cluster.caFile, "utf8"), "wrong");
    await expect(stranger.get("/api/v1/namespaces")).rejects.toMatchObject({ status: 401 });
    await stranger.close();
  });
});

/** Has its own cluster, since the tests stop its API server. */
describe("a restarted API server", () => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await startCluster();
  });
  afterAll(async () => {
    await cluster.stop();
    // A second stop has no effect.
    await cluster.stop();
  });

  it.each(["SIGTERM", "SIGKILL"] as const)("keeps data, port and certificate after %s", async (signal) => {
    const configMaps = "/api/v1/namespaces/default/configmaps";
    const name = signal.toLowerCase();
    const before = await cluster.api.create(configMaps, { metadata: { name } });
    await cluster.stopApiServer(signal);
    await expect(cluster.api.get(`${configMaps}/${name}`)).rejects.toThrow();
    await cluster.startApiServer();
    expect((await cluster.api.get(`${configMaps}/${name}`)).metadata?.uid).toBe(before.metadata?.uid);
  });

  it("continues its audit log", async () => {
    const since = await cluster.audit.mark();
    await cluster.restartApiServer("SIGKILL");
    await cluster.api.get("/api/v1/namespaces/default");
    expect(await cluster.audit.total({ since, user: "berth-admin", resource: "namespaces", verb: "get" })).toBe(1);
  });

  it("has its controllers running again", async () => {
    await cluster.api.create("/api/v1/namespaces", { metadata: { name: "later" } });
    await waitForServiceAccount(cluster.api, "later");
  });

  it("reports a crash with the end of its log", async () => {
    const told = Promise.withResolvers<Error>();
    await using other = await startCluster({ onFailure: told.resolve });
    const [pid] = await processesOf(`${other.dir}/pki`);
    process.kill(pid ?? 0, "SIGKILL");
    expect((await told.promise).message).toMatch(/^kube-apiserver was ended by SIGKILL\. The end of its log \(.*\):\n/);
  });
});

describe("a control plane that cannot start", () => {
  it.each([
    ["kube-apiserver", { apiServer: ["--nonesuch"] }],
    ["kube-controller-manager", { controllerManager: ["--nonesuch"] }],
    ["kube-scheduler", { scheduler: ["--nonesuch"] }],
  ])("gives the reason with the end of %s's log, and leaves nothing behind", async (name, extraArgs) => {
    const parentDir = await mkdtemp(join(tmpdir(), "berth-test-"));
    const start = startCluster({ parentDir, extraArgs });
    await expect(start).rejects.toThrow(
      new RegExp(`^${name} ended with exit code 1\\..*unknown flag: --nonesuch`, "s"),
    );
    expect(await readdir(parentDir)).toEqual([]);
    expect(await processesOf(parentDir)).toEqual([]);
    await rmdir(parentDir);
  });

  it("names the port that was taken, after trying others", async () => {
    const port = new URL(inject("cluster").server).port;
    const start = startCluster({ extraArgs: { apiServer: [`--secure-port=${port}`] } });
    await expect(start).rejects.toThrow("the port of kube-apiserver is in use");
  });
});

describe("the process that started a cluster", () => {
  it("leaves no process and no folder behind when it is killed", async () => {
    const parentDir = await mkdtemp(join(tmpdir(), "berth-test-"));
    const program = join(parentDir, "start.ts");
    const module = new URL("../../testbed/cluster/cluster.ts", import.meta.url);
    await writeFile(
      program,
      `import { startCluster } from ${JSON.stringify(module.href)};
       const cluster = await startCluster({ parentDir: ${JSON.stringify(parentDir)} });
       process.send(cluster.dir);`,
    );
    const child = fork(program, { execArgv: [] });
    const [dir] = (await once(child, "message")) as [string];
    // etcd, API server, controller-manager, scheduler, supervisor.
    expect(await processesOf(dir)).toHaveLength(5);
    child.kill("SIGKILL");
    await once(child, "exit");
    await expect.poll(() => processesOf(dir), { timeout: 30_000 }).toEqual([]);
    await expect.poll(() => readdir(parentDir), { timeout: 30_000 }).toEqual(["start.ts"]);
    await rm(parentDir, { recursive: true });
  });
});

/** The PIDs of live processes whose command line contains the path. A zombie has no command line. */
async function processesOf(path: string): Promise<number[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const named = pids.map(async (pid) => {
    const commandLine = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    return commandLine.includes(path) && Number(pid) !== process.pid ? [Number(pid)] : [];
  });
  return (await Promise.all(named)).flat();
}
