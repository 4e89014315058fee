import { expect, test } from "vitest";
import { stringify } from "yaml";
import { API_VERSION, KIND, LABEL_TEMPLATE_HASH } from "../../src/api/names.ts";
import {
  DEPLOYMENTS,
  type KubeList,
  type KubeObject,
  NETWORK_POLICIES,
  PODS,
  type Pod,
} from "../../src/kube/resource.ts";
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

test("berth template judges by the flags of the running operator, and by dry runs", async () => {
  await using world = await startWorld(cluster);
  const { namespace, name } = world;
  const labels = { "app.kubernetes.io/component": "operator", "berth.dev/role": "operator" };
  const deploy = async (...args: readonly string[]) => {
    const container = { name: "berth", image: "berth:1", args: ["run", `--namespace=${namespace}`, ...args] };
    const template = { metadata: { labels }, spec: { containers: [container] } };
    const spec = { replicas: 0, selector: { matchLabels: labels }, template };
    await world.kube.create(DEPLOYMENTS, { metadata: { name: "berth-operator", namespace, labels }, spec } as never);
  };
  const ask = async (spec: unknown, ...flags: readonly string[]) => {
    const input = stringify({ apiVersion: API_VERSION, kind: KIND, metadata: { name, namespace }, spec });
    const where = ["--kubeconfig", cluster.kubeconfig, "--operator-namespace", namespace];
    return await cliRun(["template", "-f", "-", ...where, ...flags], { input });
  };

  const refused = await ask(world.spec());
  expect(refused.code).toBe(1);
  expect(refused.err).toMatch(
    /^note: the operator's flags are not known \(no operator is installed\); its defaults are used\n/,
  );
  expect(refused.err).toMatch(/^refused: OriginNotAllowed: /m);
  await deploy(`--allowed-api-origins=${world.simulator.url}`);
  expect(await ask(world.spec())).toMatchObject({ code: 0, err: "" });
  expect((await ask(world.spec(), "--allowed-api-origins=https://other.example")).code).toBe(1);

  const container = { name: "worker", image: "worker:1", imagee: "worker:1" };
  const template = { spec: { containers: [container], nodeSelectr: { pool: "a" } } };
  const path = "spec.sessions.template.spec";
  expect(await ask(world.spec({ sessions: { maxConcurrent: 1, template } }))).toMatchObject({
    code: 1,
    err:
      `refused: Refused: 2 problems: (1) ${path}.containers[0].imagee: unknown field; correct its name, or remove it ` +
      `(2) ${path}.nodeSelectr: unknown field; correct its name, or remove it\n`,
  });
});
