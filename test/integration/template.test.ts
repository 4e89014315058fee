import { expect, test } from "vitest";
import { stringify } from "yaml";
import { API_VERSION, KIND, LABEL_TEMPLATE_HASH } from "../../src/api/names.ts";
import { type KubeList, type KubeObject, NETWORK_POLICIES, PODS, type Pod } from "../../src/kube/resource.ts";
import { cliRun } from "../support/cli-run.ts";
import { useCluster } from "../support/cluster.ts";
import { startWorld } from "../support/world.ts";

const cluster = useCluster();

test("berth template prints what the operator creates for an Environment, and the API server accepts it", async () => {
  await using world = await startWorld(cluster);
  await world.createEnvironment();
  world.startOperator();
  const [parked] = await world.untilParked(1);
  const flags = ["--allowed-api-origins", world.simulator.url, "-n", world.namespace, "-o", "json"];
  const { code, out, err } = await cliRun(["template", world.name, "--kubeconfig", cluster.kubeconfig, ...flags]);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  const { items }: KubeList<Pod> = JSON.parse(out);
  const [pod, policy] = items;
  expect(pod?.metadata.labels?.[LABEL_TEMPLATE_HASH]).toBe(parked?.metadata.labels?.[LABEL_TEMPLATE_HASH]);
  expect(pod?.metadata.ownerReferences).toEqual(parked?.metadata.ownerReferences);
  const made = await world.kube.get(NETWORK_POLICIES, { namespace: world.namespace, name: "berth-served" });
  expect(policy?.spec).toEqual({ ...made.spec, ingress: [] });

  // Also for a file, whose Environment has no uid from an API server.
  const metadata = { name: "of-a-file", namespace: world.namespace };
  const input = stringify({ apiVersion: API_VERSION, kind: KIND, metadata, spec: world.spec() });
  const filed = await cliRun(["template", "-f", "-", ...flags], { input });
  const [ofFile] = (JSON.parse(filed.out) as KubeList<KubeObject & Pod>).items;
  if (!ofFile) throw new Error(filed.err);
  const taken = await world.kube.create(PODS, ofFile, { dryRun: true, fieldValidation: "Strict" });
  expect(taken.metadata.name).toBe("berth-of-a-file-template");

  const gone = await cliRun(["template", "nobody", "--kubeconfig", cluster.kubeconfig, ...flags]);
  expect(gone.code).toBe(1);
  expect(gone.err).toContain('environments.berth.dev "nobody" not found');
});
