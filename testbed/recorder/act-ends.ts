/** What happens to Pods on a healthy node. */
import type { Act } from "./act.ts";
import type { Stage } from "./stage.ts";

/** Like the gate of a parked Pod: the Pod stays in Init until a file of a missing Secret exists. */
const GATE = {
  name: "berth-gate",
  command: ["/bin/sh", "-c", `trap 'exit 143' TERM; until [ -e "$1" ]; do sleep 0.25; done`, "berth-gate", "/claim/go"],
  volumeMounts: [{ name: "claim", mountPath: "/claim" }],
};
const claimOf = (name: string) => ({
  volumes: [{ name: "claim", secret: { secretName: name, optional: true, items: [{ key: "go", path: "go" }] } }],
});

export const ends: Act = {
  name: "ends",
  async play(stage) {
    await deletions(stage);
    await evictions(stage);
    await gates(stage);
    await taintEviction(stage);
    await admissions(stage);
  },
};

async function deletions(stage: Stage): Promise<void> {
  const parked = await stage.pod("parked-deleted", "a parked Pod that is deleted", { parked: true });
  const opened = await stage.pod("parked-opened-exit-0", "a parked Pod that is given its key, and whose session ends", {
    parked: true,
    container: { command: ["/bin/sh", "-c", "sleep 3"] },
  });
  await stage.parked(parked, opened);
  await stage.delete(parked);
  await stage.open(opened);
  await stage.gone(parked);
  await stage.failed(opened);
}

async function evictions(stage: Stage): Promise<void> {
  const note = "evicted by the API, as a drain does it";
  const parked = await stage.pod("parked-evicted-by-api", `a parked Pod, ${note}`, { parked: true });
  const running = await stage.pod("running-evicted-by-api", `a running Pod, ${note}`);
  await stage.parked(parked);
  await stage.running(running);
  await stage.evict(parked);
  await stage.evict(running);
  await stage.gone(parked, running);
}

async function gates(stage: Stage): Promise<void> {
  const shape = (name: string) => ({ initContainers: [GATE], spec: claimOf(name) });
  const gated = ["gate-deleted", "gate-evicted-by-api", "gate-opened"];
  const notes = ["is deleted", "is evicted by the API", "is given its key"];
  const [deleted, evicted, opened] = await Promise.all(
    gated.map((name, i) => stage.pod(name, `a Pod parked by an init container that ${notes[i]}`, shape(name))),
  );
  if (!deleted || !evicted || !opened) throw new Error("three Pods were made");
  await stage.until("gated", () =>
    [deleted, evicted, opened].every(({ pod }) => pod?.status?.initContainerStatuses?.[0]?.state?.running),
  );
  await stage.delete(deleted);
  await stage.evict(evicted);
  await stage.open(opened);
  await stage.running(opened);
  await stage.delete(opened);
  await stage.gone(deleted, evicted, opened);
}

/** A taint that only an administrator sets: the node is healthy, and its Pods are evicted. */
async function taintEviction(stage: Stage): Promise<void> {
  const note = "on a node that is given a NoExecute taint";
  const running = await stage.pod("running-evicted-by-taint", `a running Pod ${note}`);
  const parked = await stage.pod("parked-evicted-by-taint", `a parked Pod ${note}`, { parked: true });
  const clean = await stage.pod("running-evicted-by-taint-exit-0", `a running Pod, which ends with 0, ${note}`, {
    container: { command: ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 2147483647 & wait"] },
  });
  await stage.running(running, clean);
  await stage.parked(parked);
  await stage.taint("example.com/maintenance", "NoExecute");
  await stage.gone(running, parked, clean);
  const bound = { nodeName: stage.cluster.nodeName };
  const refused = await stage.pod("refused-taint", "bound to a node with a NoExecute taint", { spec: bound });
  await stage.failed(refused);
  await stage.untaint();
}

/** Pods that the scheduler placed here with an outdated view of the node. */
async function admissions(stage: Stage): Promise<void> {
  const { nodeName } = stage.cluster;
  const resources = (name: string, amount: string) => ({ resources: { requests: { [name]: amount } } });
  const refused = await Promise.all([
    stage.pod("refused-out-of-cpu", "bound to a node without so much CPU", {
      spec: { nodeName },
      container: resources("cpu", "500"),
    }),
    stage.pod("refused-out-of-memory", "bound to a node without so much memory", {
      spec: { nodeName },
      container: resources("memory", "64Ti"),
    }),
    stage.pod("refused-node-affinity", "bound to a node that its selector does not want", {
      spec: { nodeName, nodeSelector: { "example.com/zone": "elsewhere" } },
    }),
  ]);
  await stage.failed(...refused);
}
