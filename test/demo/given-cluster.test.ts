import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { removalCommands, renderKubeconfig } from "../../demo/given-cluster.ts";
import { type ClusterAccess, loadKubeConfig } from "../../src/kube/config.ts";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "berth-test-"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

async function readBack(access: ClusterAccess): Promise<ClusterAccess> {
  const path = join(dir, "kubeconfig");
  await writeFile(path, renderKubeconfig(access, "berth-demo-x", "a-token"));
  return loadKubeConfig(path);
}

const admin = { cert: "CERT", key: "KEY", impersonate: { user: "root" } };
const common = { auth: admin, currentNamespace: "default" };

test.each<[string, ClusterAccess]>([
  ["a CA", { ...common, server: "https://10.0.0.1:6443", ca: "PEM" }],
  ["nothing but a server below a path", { ...common, server: "https://rancher.example.com/k8s/c-1" }],
  [
    "a proxy and another name",
    { ...common, server: "https://10.0.0.1:6443", proxyUrl: "http://proxy:3128", tlsServerName: "kube" },
  ],
  ["no verification", { ...common, server: "https://10.0.0.1:6443", insecureSkipTlsVerify: true }],
])("the operator reaches a cluster with %s by its own token, without the user's credentials", async (_name, access) => {
  const { auth: _auth, currentNamespace: _namespace, ...same } = access;
  expect(await readBack(access)).toEqual({ ...same, auth: { token: "a-token" }, currentNamespace: "berth-demo-x" });
});

test("the removal commands remove each Environment's finalizer, then the namespace and the node", () => {
  expect(removalCommands("berth-demo-x")).toEqual([
    `kubectl patch benv research -n berth-demo-x --type merge -p '{"metadata":{"finalizers":null}}'`,
    `kubectl patch benv batch -n berth-demo-x --type merge -p '{"metadata":{"finalizers":null}}'`,
    "kubectl delete namespace,node berth-demo-x",
  ]);
});
