import { afterAll, beforeAll, expect, test } from "vitest";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import { isConflict, KubeApiError } from "../../src/kube/errors.ts";
import type { Container, ContainerState, Pod } from "../../src/kube/objects.ts";
import { PODS } from "../../src/kube/resource.ts";
import { STARTED_MARKER, shellFrame } from "../../src/pods/frame.ts";
import { renderTurn, turnName, turnPatch } from "../../src/pods/turns.ts";
import { type SimulatedNode, startNode } from "../../testbed/node/node.ts";
import { useCluster } from "../support/cluster.ts";
import { patchEphemeralContainers } from "../support/ephemeral-containers.ts";
import { keeperPod } from "../support/keeper-pods.ts";

const cluster = useCluster();
const NODE_NAME = "turns-node-test";
const SUBRESOURCE = { type: "strategic", subresource: "ephemeralcontainers" } as const;
/** Far more than any step takes, so that only a hang fails the test. */
const PATIENCE_MS = 60_000;
let kube: KubeClient;
let namespace: string;
let node: SimulatedNode;

beforeAll(async () => {
  kube = new KubeClient({ access: loadKubeConfig(cluster.kubeconfig) });
  namespace = await cluster.createNamespace("turns");
  node = await startNode({ client: cluster.nodeKubeconfig, name: NODE_NAME, runtime: "process" });
});

afterAll(async () => {
  await node?.stop();
  await kube?.close();
});

const read = (name: string): Promise<Pod> => kube.get(PODS, { namespace, name });

/** Without a node's name, nothing ever changes the Pod: no scheduler serves it. */
function create(name: string, nodeName: string | undefined, container: Partial<Container> = {}): Promise<Pod> {
  return kube.create(
    PODS,
    keeperPod({ name, namespace, container, spec: nodeName === undefined ? { schedulerName: "none" } : { nodeName } }),
  );
}

/** Tries again if the Pod's status changes at the same time. */
async function addTurn(name: string, turn: number): Promise<Pod> {
  for (;;) {
    try {
      return await kube.patch(PODS, { namespace, name }, turnPatch(await read(name), turn), SUBRESOURCE);
    } catch (error) {
      if (!isConflict(error)) throw error;
    }
  }
}

const stateOf = ({ status }: Pod, turn: number): ContainerState | undefined =>
  status?.ephemeralContainerStatuses?.find((each) => each.name === turnName(turn))?.state;

async function until(name: string, turn: number, state: keyof ContainerState): Promise<void> {
  await expect.poll(async () => stateOf(await read(name), turn), { timeout: PATIENCE_MS }).toHaveProperty(state);
}

async function serve(name: string, turn: number, code: string): Promise<string> {
  const container = turnName(turn);
  const stream = await kube.attach({ namespace, name }, { container });
  stream.send(shellFrame({ CODE: code, DIR: "/workspace" }) ?? "");
  expect(await stream.waitFor(`${STARTED_MARKER}\n`, AbortSignal.timeout(PATIENCE_MS))).toBe(true);
  await until(name, turn, "terminated");
  return await kube.log({ namespace, name }, { container, limitBytes: 1_000 });
}

test("turns of a Pod run one after the other, share its volume, and leave it running and ready", async () => {
  await create("sleeper", NODE_NAME, { command: [process.execPath, "-e", "eval(process.env.CODE)"] });
  await addTurn("sleeper", 1);
  await until("sleeper", 1, "running");
  await serve("sleeper", 1, "fs.writeFileSync(process.env.DIR + '/f', 'kept')");
  const { spec } = await addTurn("sleeper", 2);
  expect(spec.ephemeralContainers?.map(({ name }) => name)).toEqual([turnName(2), turnName(1)]);
  await until("sleeper", 2, "running");
  const show = "console.log(fs.readFileSync(process.env.DIR + '/f', 'utf8'))";
  expect(await serve("sleeper", 2, show)).toBe(`${STARTED_MARKER}\nkept\n`);
  const { status } = await read("sleeper");
  expect(status?.phase).toBe("Running");
  expect(status?.conditions).toContainEqual(expect.objectContaining({ type: "Ready", status: "True" }));
  await kube.delete(PODS, { namespace, name: "sleeper" });
  await expect.poll(() => node.pods.length, { timeout: PATIENCE_MS }).toBe(0);
});

test("no status may say that an ended ephemeral container runs again", async () => {
  await create("rerun", undefined);
  await addTurn("rerun", 1);
  const report = (state: ContainerState) => {
    const status = { ephemeralContainerStatuses: [{ name: turnName(1), state, image: "", imageID: "" }] };
    return kube.patch(PODS, { namespace, name: "rerun" }, { status }, { type: "strategic", subresource: "status" });
  };
  await report({ terminated: { exitCode: 0 } });
  const refused = report({ running: {}, terminated: null } as never);
  await expect(refused).rejects.toMatchObject({ status: 422 });
});

const container = (pod: Pod, more: Partial<Container>) => ({
  spec: { ephemeralContainers: [{ ...renderTurn(pod, 1), ...more }] },
});

test.each<[string, number, (pod: Pod) => unknown]>([
  ["the same turn", 200, (pod) => turnPatch(pod, 1)],
  ["another turn", 200, (pod) => turnPatch(pod, 2)],
  ["an empty object", 200, (pod) => container(pod, { resources: {} })],
  ["an empty list", 422, (pod) => container(pod, { ports: [] })],
  ["other fields", 200, (pod) => ({ ...turnPatch(pod, 2), status: { phase: "Failed" } })],
  ["some of a turn's variables", 200, (pod) => container(pod, { env: [] })],
  ["resources", 422, (pod) => container(pod, { name: "a", resources: { limits: { cpu: "1" } } })],
  ["ports", 422, (pod) => container(pod, { name: "a", ports: [{ containerPort: 80 }] })],
  ["a probe", 422, (pod) => container(pod, { name: "a", livenessProbe: { exec: { command: ["a"] } } })],
  [
    "a lifecycle hook",
    422,
    (pod) => container(pod, { name: "a", lifecycle: { preStop: { exec: { command: ["a"] } } } }),
  ],
  [
    "a subPath",
    422,
    (pod) => container(pod, { name: "a", volumeMounts: [{ name: "workspace", mountPath: "/w", subPath: "a" }] }),
  ],
  ["a missing volume", 422, (pod) => container(pod, { name: "a", volumeMounts: [{ name: "b", mountPath: "/w" }] })],
  ["a regular container's name", 422, (pod) => container(pod, { name: "worker" })],
  ["no image", 422, (pod) => container(pod, { name: "a", image: "" })],
  ["a changed turn", 422, (pod) => container(pod, { image: "worker:2" })],
])("the in-memory API server answers like a real one to a patch with %s: %i", async (what, status, patchOf) => {
  const name = what.replaceAll(/[^a-z]+/g, "-");
  await create(name, undefined, { env: [{ name: "A", value: "1" }] });
  const pod = await addTurn(name, 1);
  const patch = patchOf(pod);
  const patched = patchEphemeralContainers(pod, patch);
  expect("problem" in patched ? 422 : 200, JSON.stringify(patched)).toBe(status);
  const answer = await kube.patch(PODS, { namespace, name }, patch, SUBRESOURCE).catch((error: unknown) => error);
  expect(answer instanceof KubeApiError ? answer.status : 200, String(answer)).toBe(status);
  if ("problem" in patched) return;
  const names = (containers: readonly Container[] = []) => containers.map((each) => each.name);
  expect(names(patched.containers)).toEqual(names((answer as Pod).spec.ephemeralContainers));
});

test.each([
  ["uid", 422],
  ["resourceVersion", 409],
])("a patch is refused if its %s differs: %i", async (field, status) => {
  const name = field.toLowerCase();
  const { metadata, spec } = turnPatch(await create(name, undefined), 1);
  const patch = { metadata: { ...metadata, [field]: "1" }, spec };
  await expect(kube.patch(PODS, { namespace, name }, patch, SUBRESOURCE)).rejects.toMatchObject({ status });
});
