/**
 * A process that runs its own node with a Pod, so that a test can check what is left of it: `node-owner.ts ARCHIVE`. It
 * prints a line of JSON when the Pod runs. On SIGTERM it stops the node, prints the milliseconds that this took, and
 * ends.
 */
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { PAUSE_IMAGE } from "../../../testbed/real-node/containerd.ts";
import { startNodeCluster } from "../../../testbed/real-node/node-cluster.ts";

const POD = "/api/v1/namespaces/default/pods";
const POLL_MS = 100;

const [archive = ""] = process.argv.slice(2);
const terminated = once(process, "SIGTERM");
const node = await startNodeCluster({ images: [archive] });
const container = { name: "pause", image: PAUSE_IMAGE, imagePullPolicy: "Never" };
await node.api.create(POD, { metadata: { name: "left" }, spec: { containers: [container] } });
while ((await node.api.get<{ status?: { phase?: string } }>(`${POD}/left`)).status?.phase !== "Running") {
  await delay(POLL_MS);
}
console.log(JSON.stringify({ dir: node.dir }));
await terminated;
const at = performance.now();
await node.stop();
console.log(JSON.stringify({ stoppedAfterMs: Math.round(performance.now() - at) }));
process.exit(0);
