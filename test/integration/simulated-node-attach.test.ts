import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { AttachStream } from "../../src/kube/attach.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import type { Container, Pod } from "../../src/kube/objects.ts";
import { PODS } from "../../src/kube/resource.ts";
import { shellFrame, waitingCommand } from "../../src/pods/frame.ts";
import {
  type AttachFault,
  FATE_ANNOTATION,
  type FateInput,
  type SimulatedNode,
  startNode,
} from "../../testbed/node/node.ts";
import { useCluster } from "../support/cluster.ts";

const cluster = useCluster();
const NODE_NAME = "attached-node-test";
const MARKER = "berth1 started\n";
/** Of the attempts to attach to each Pod, by its name. */
const faults: Record<string, (AttachFault | undefined)[]> = {};
/** Far more than any step takes, so that only a hang fails the test. */
const PATIENCE_MS = 60_000;
let kube: KubeClient;
let namespace: string;
let node: SimulatedNode;

beforeAll(async () => {
  kube = new KubeClient({ access: loadKubeConfig(cluster.kubeconfig) });
  namespace = await cluster.createNamespace("attach");
  const attachFaults = ({ metadata: { name = "" } }: Pod) => faults[name]?.shift();
  node = await startNode({ client: cluster.nodeKubeconfig, name: NODE_NAME, runtime: "process", attachFaults });
});

afterAll(async () => {
  await node?.stop();
  await kube?.close();
});

const attach = (name: string) => kube.attach({ namespace, name }, { container: "c" });
const log = (name: string) => kube.log({ namespace, name }, { container: "c", limitBytes: MARKER.length });

async function printed(stream: AttachStream, text: string): Promise<void> {
  expect(await stream.waitFor(text, AbortSignal.timeout(PATIENCE_MS)), `the output ${text}`).toBe(true);
}

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
  await Promise.all([printed(first, "one\n"), printed(second, "one\n")]);
  first.close();
  second.send("two\n");
  await printed(second, "two\n");
  expect(second.output).toBe("two\n");
  expect(await log("cat")).toBe("one\ntwo\n");
  const path = `/api/v1/namespaces/${namespace}/pods/cat/log?container=c&tailLines=1`;
  expect(await kube.raw("GET", path)).toBe("two\n");
  node.kill({ namespace, name: "cat" });
  expect(await second.closed).toContain("1000");
});

test.each<[string, FateInput | undefined]>([
  ["a real shell", undefined],
  ["a scripted container", { kind: "exit" }],
])("%s waits as a ready Pod, and starts with the frame that a client sends", async (_what, fate) => {
  const name = fate ? "scripted" : "shell";
  await run(name, { command: waitingCommand(["node", "-p", "process.env.ITEM"]), stdin: true }, fate);
  await expect
    .poll(async () => (await kube.get(PODS, { namespace, name })).status?.conditions)
    .toContainEqual(expect.objectContaining({ type: "Ready", status: "True" }));
  const first = await attach(name);
  first.send("\njunk\n");
  first.close();
  expect(await log(name)).toBe("");
  const second = await attach(name);
  second.send(shellFrame({ ITEM: "work-1" }) ?? "");
  await printed(second, MARKER);
  expect(await log(name)).toBe(MARKER);
  await second.closed;
  const output = fate ? MARKER : `${MARKER}work-1\n`;
  expect([second.output, await node.logs({ namespace, name })]).toEqual([output, output]);
});

describe("a fault of the node", () => {
  const frame = shellFrame({ ITEM: "work-1" }) ?? "";

  test("refuses a client with its status", async () => {
    faults["refused"] = [{ kind: "refused" }];
    await run("refused", { command: waitingCommand(["x"]), stdin: true }, { kind: "run" });
    await expect(attach("refused")).rejects.toMatchObject({ status: 405 });
    (await attach("refused")).close();
  });

  test("loses the line, half of it, or the marker", async () => {
    const cut = { kind: "cut", afterBytes: 20 } as const;
    faults["lossy"] = [{ kind: "input-lost" }, cut, { ...cut, silent: true }, { kind: "output-lost" }];
    await run("lossy", { command: waitingCommand(["x"]), stdin: true }, { kind: "run" });
    const [swallowed, half, silent, mute] = [
      await attach("lossy"),
      await attach("lossy"),
      await attach("lossy"),
      await attach("lossy"),
    ];
    swallowed.send(frame);
    half.send(frame);
    await half.closed;
    silent.send(frame);
    expect(await log("lossy")).toBe("");
    mute.send(frame);
    // The output reaches every client whose connection still works.
    await printed(swallowed, MARKER);
    expect(await log("lossy")).toBe(MARKER);
    expect([half, silent, mute].map(({ output }) => output)).toEqual(["", "", ""]);
  });
});
