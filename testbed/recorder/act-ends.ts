/** What happens to Pods on a healthy node. */
import type { Act } from "./act.ts";
import type { Stage } from "./stage.ts";

export const ends: Act = {
  name: "ends",
  async play(stage) {
    await deletions(stage);
    await evictions(stage);
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
