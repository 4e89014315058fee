import { readFileSync } from "node:fs";
import { Agent } from "undici";
import { afterAll, beforeAll, expect, test } from "vitest";
import { realClock } from "../../src/core/clock.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import type { Container, Pod } from "../../src/kube/objects.ts";
import { PODS } from "../../src/kube/resource.ts";
import { shellFrame, waitingCommand } from "../../src/pods/frame.ts";
import { FATE_ANNOTATION, type FateInput, type SimulatedNode, startNode } from "../../testbed/node/node.ts";
import { useCluster } from "../support/cluster.ts";
import { Attached } from "../testbed/node/attached.ts";

const cluster = useCluster();
const NODE_NAME = "attached-node-test";
const agent = new Agent({ connect: { ca: readFileSync(cluster.caFile) } });
const headers = { authorization: `Bearer ${cluster.adminToken}` };
let kube: KubeClient;
let namespace: string;
let node: SimulatedNode;

beforeAll(async () => {
  kube = new KubeClient({ access: loadKubeConfig(cluster.kubeconfig), clock: realClock });
  namespace = await cluster.createNamespace("attach");
  node = await startNode({ client: cluster.nodeKubeconfig, name: NODE_NAME, runtime: "process" });
});

afterAll(async () => {
  await node?.stop();
  await kube?.close();
  await agent.destroy();
});

const path = (pod: string, subresource: string) => `/api/v1/namespaces/${namespace}/pods/${pod}/${subresource}`;

function attach(pod: string): Promise<Attached> {
  const url = `${cluster.server.replace("https:", "wss:")}${path(pod, "attach")}`;
  return Attached.open(`${url}?container=c&stdin=true&stdout=true&stderr=false&tty=false`, agent, headers);
}

const log = async (pod: string, query: string) =>
  String(await kube.raw("GET", `${path(pod, "log")}?container=c&${query}`));

/** Creates a Pod on this test's node, and waits until the node reports that its container runs. */
async function run(name: string, container: Partial<Container>, fate?: FateInput): Promise<void> {
  const annotations = fate ? { [FATE_ANNOTATION]: JSON.stringify(fate) } : {};
  const pod: Pod = {
    metadata: { name, namespace, annotations },
    spec: { nodeName: NODE_NAME, restartPolicy: "Never", containers: [{ name: "c", image: "worker:1", ...container }] },
  };
  const seen = Promise.withResolvers<void>();
  const unsubscribe = node.subscribe((event) => {
    if (event.type === "status" && event.pod.metadata.name === name && event.status.phase === "Running") seen.resolve();
  });
  await kube.create(PODS, pod);
  await seen.promise;
  unsubscribe();
}

test("the API server connects clients with a process's streams, and reads its log", async () => {
  await run("cat", { command: ["cat"], stdin: true });
  const [first, second] = [await attach("cat"), await attach("cat")];
  first.send("one\n");
  await Promise.all([first.printed("one\n"), second.printed("one\n")]);
  first.close();
  await first.closed;
  second.send("two\n");
  await second.printed("one\ntwo\n");
  expect(await log("cat", "limitBytes=1")).toBe("o");
  expect(await log("cat", "tailLines=1")).toBe("two\n");
  node.kill({ namespace, name: "cat" });
  await second.closed;
  expect(JSON.parse(second.status)).toMatchObject({ status: "Success" });
});

test.each<[string, FateInput | undefined]>([
  ["a real shell", undefined],
  ["a scripted container", { kind: "exit", afterMs: 0 }],
])("%s waits as a ready Pod, and starts with the frame that a client sends", async (_what, fate) => {
  const name = fate ? "scripted" : "shell";
  await run(name, { command: waitingCommand(["node", "-p", "process.env.ITEM"]), stdin: true }, fate);
  await expect
    .poll(async () => (await kube.get(PODS, { namespace, name })).status?.conditions)
    .toContainEqual(expect.objectContaining({ type: "Ready", status: "True" }));
  const first = await attach(name);
  first.send("\njunk\n");
  first.close();
  await first.closed;
  expect(await log(name, "limitBytes=1")).toBe("");
  const second = await attach(name);
  second.send(shellFrame({ ITEM: "work-1" }) ?? "");
  await second.printed("berth1 started\n");
  expect(await log(name, "limitBytes=15")).toBe("berth1 started\n");
  await second.closed;
  const output = fate ? "berth1 started\n" : "berth1 started\nwork-1\n";
  expect([second.output, await node.logs({ namespace, name })]).toEqual([output, output]);
});
