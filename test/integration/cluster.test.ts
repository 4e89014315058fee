import { readFile } from "node:fs/promises";
import { AuthenticationV1Api, CoreV1Api, KubeConfig } from "@kubernetes/client-node";
import { describe, expect, it } from "vitest";
import { ApiClient } from "../../testbed/cluster/api.ts";
import { useCluster } from "../support/cluster.ts";

describe("the shared control plane", () => {
  const cluster = useCluster();

  it("tells the version that it was built from", async () => {
    const version = await cluster.api.get("/version");
    expect(version).toMatchObject({ gitVersion: "v1.36.3", major: "1", minor: "36", gitTreeState: "archive" });
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

  it("collects what an owner leaves behind", async () => {
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
        { timeout: 30_000 },
      )
      .toBe(404);
  });

  it("has a scheduler, which says so when no node fits", async () => {
    const namespace = await cluster.createNamespace("schedule");
    const pods = `/api/v1/namespaces/${namespace}/pods`;
    const pod = { metadata: { name: "waits" }, spec: { containers: [{ name: "a", image: "a" }] } };
    await cluster.api.create(pods, pod);
    await expect
      .poll(async () => JSON.stringify((await cluster.api.get(`${pods}/waits`))["status"]), { timeout: 30_000 })
      .toContain("Unschedulable");
  });

  it("serves the CRDs of this project", async () => {
    const list = await cluster.api.get("/apis/berth.dev/v1alpha1/environments");
    expect(list.kind).toBe("EnvironmentList");
  });

  it("knows any user by a certificate and gives it no rights", async () => {
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

  it("refuses a token that it does not know", async () => {
    const stranger = new ApiClient(cluster.server, await readFile(cluster.caFile, "utf8"), "wrong");
    await expect(stranger.get("/api/v1/namespaces")).rejects.toMatchObject({ status: 401 });
    await stranger.close();
  });
});
