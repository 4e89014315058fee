/** What a node does to all of its Pods: shut down, run out of resources, restart. */
import type { Act } from "./act.ts";
import { startLogind } from "./logind.ts";
import { isParked, type Recording, type Stage } from "./stage.ts";

/** The grace periods of a shutdown. They're longer than the Pods' own, so that those apply. */
const SHUTDOWN = { shutdownGracePeriod: "20s", shutdownGracePeriodCriticalPods: "5s" };

export const shutdown: Act = {
  name: "shutdown",
  async play(stage) {
    const { control } = stage.cluster;
    const logind = await startLogind(stage.cluster);
    await control.stopKubelet();
    await control.startKubelet(SHUTDOWN);
    await logind.inhibited();
    const note = "on a node that is shut down in an orderly way";
    const running = await stage.pod("shutdown-running", `a running Pod ${note}`);
    const clean = await stage.pod("shutdown-running-exit-0", `a running Pod, which ends with 0, ${note}`, {
      container: { command: ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 2147483647 & wait"] },
    });
    const stubborn = await stage.pod("shutdown-running-exit-137", `a running Pod, which ignores SIGTERM, ${note}`, {
      container: { command: ["/bin/sh", "-c", "trap '' TERM; while true; do sleep 1; done"] },
    });
    const parked = await stage.pod("shutdown-parked", `a parked Pod ${note}`, { parked: true });
    await stage.running(running, clean, stubborn);
    await stage.parked(parked);
    stage.did("the node shuts down");
    await logind.shutDown();
    await stage.until("the node says so", () => stage.node()?.ready.startsWith("False"));
    const late = await stage.pod("shutdown-refused", "bound to a node that shuts down", {
      spec: { nodeName: stage.cluster.nodeName },
    });
    await stage.failed(running, clean, stubborn, parked, late);
    await logind.released();
    await stage.quiet(running, clean, stubborn, parked);
  },
};

/** No machine has this much free memory. */
const NEVER_ENOUGH = { "memory.available": "99%" };

export const pressureAtStart: Act = {
  name: "pressure-at-start",
  async play(stage) {
    const { control } = stage.cluster;
    const note = "whose kubelet finds the node short of memory when it is started again";
    const running = await stage.pod("pressure-at-start-running", `a running Pod ${note}`);
    const parked = await stage.pod("pressure-at-start-parked", `a parked Pod ${note}`, { parked: true });
    await stage.running(running);
    await stage.parked(parked);
    stage.did("kubelet was started again, with a threshold of memory that is never met");
    await control.stopKubelet();
    await control.startKubelet({ evictionHard: NEVER_ENOUGH, evictionPressureTransitionPeriod: "10s" });
    await stage.failed(running, parked);
    const late = await stage.pod("pressure-refused", "bound to a node that is short of memory", {
      spec: { nodeName: stage.cluster.nodeName },
    });
    await stage.failed(late);
    await stage.quiet(running, parked);
  },
};

const MIB = 1024 ** 2;
/** The part of the machine's memory that Pods can use, and how much of it must stay free. */
const ALLOCATABLE_BYTES = 600 * MIB;
const LEAST_FREE = "300Mi";
/** Fills a memory volume that is as large as the allocatable memory, so that too little remains. */
const FILL = "dd if=/dev/zero of=/memory/filled bs=1M count=400 || true";
const MEMORY = {
  volumes: [{ name: "memory", emptyDir: { medium: "Memory" } }],
};
const MOUNT = { volumeMounts: [{ name: "memory", mountPath: "/memory" }] };

export const pressure: Act = {
  name: "pressure",
  async play(stage) {
    const { control, api, nodeName } = stage.cluster;
    const node = await api.get<{ status: { capacity: { memory: string } } }>(`/api/v1/nodes/${nodeName}`);
    const capacity = Number.parseInt(node.status.capacity.memory, 10) * 1024;
    await control.stopKubelet();
    await control.startKubelet({
      systemReserved: { memory: String(capacity - ALLOCATABLE_BYTES) },
      evictionHard: { "memory.available": LEAST_FREE },
      evictionPressureTransitionPeriod: "10s",
    });
    const running = await stage.pod("pressure-running", "a running Pod that uses the memory of its node up", {
      spec: MEMORY,
      container: {
        ...MOUNT,
        command: ["/bin/sh", "-c", `trap 'exit 143' TERM; sleep 2; ${FILL}; sleep 2147483647 & wait`],
      },
    });
    await stage.failed(running);
    const parked = await stage.pod("pressure-parked", "a parked Pod that uses the memory of its node up", {
      parked: true,
      spec: MEMORY,
      initContainers: [{ name: "fill", ...MOUNT, command: ["/bin/sh", "-c", FILL] }],
      container: MOUNT,
    });
    await stage.failed(parked);
    await stage.quiet(running, parked);
  },
};

export const restarts: Act = {
  name: "restarts",
  async play(stage) {
    const { control } = stage.cluster;
    await around(stage, "kubelet-restarted", "whose kubelet is started again", async () => {
      stage.did("kubelet was killed and started");
      await control.stopKubelet("SIGKILL");
      await control.startKubelet();
    });
    await around(stage, "containerd-restarted", "whose containerd is started again", async () => {
      stage.did("containerd was killed and started");
      await control.stopContainerd("SIGKILL");
      await control.startContainerd();
    });
    await around(
      stage,
      "rebooted",
      "that is rebooted: kubelet, containerd and every container end at once",
      async () => {
        stage.did("kubelet, containerd and all containers were killed; both were started");
        await control.stopKubelet("SIGKILL");
        await control.stopContainerd("SIGKILL");
        await killContainers(stage);
        await control.startContainerd();
        await control.startKubelet();
      },
    );
    await around(stage, "containers-lost", "whose containers are gone when kubelet comes back", async () => {
      stage.did("kubelet was killed, all containers removed, kubelet started");
      await control.stopKubelet("SIGKILL");
      await removeContainers(stage);
      await control.startKubelet();
    });
  },
};

/** Records the same steps for every fault: a running and a parked Pod, the fault, and then the parked one is opened. */
async function around(stage: Stage, name: string, note: string, fault: () => Promise<void>): Promise<void> {
  const running = await stage.pod(`${name}-running`, `a running Pod of a node ${note}`);
  const parked = await stage.pod(`${name}-parked`, `a parked Pod of a node ${note}`, { parked: true });
  await stage.running(running);
  await stage.parked(parked);
  await fault();
  await stage.quiet(running, parked);
  if (isParked(parked.pod)) {
    await stage.open(parked);
    await stage.running(parked);
  }
  await remove(stage, [running, parked]);
}

async function remove(stage: Stage, recordings: readonly Recording[]): Promise<void> {
  for (const recording of recordings) if (!recording.gone) await stage.delete(recording);
  await stage.gone(...recordings);
}

/** Sends SIGKILL to every shim and its processes. */
async function killContainers({ cluster: { control } }: Stage): Promise<void> {
  const processes = await control.processes();
  const shims = processes.filter(({ arguments: [program = ""] }) => program.includes("containerd-shim"));
  const doomed = new Set(shims.map(({ pid }) => pid));
  for (let size = 0; size !== doomed.size; ) {
    size = doomed.size;
    for (const { pid, parent } of processes) if (doomed.has(parent)) doomed.add(pid);
  }
  await control.run("kill", ["-KILL", ...[...doomed].map(String)]);
}

async function removeContainers({ cluster: { control, state } }: Stage): Promise<void> {
  const ctr = `ctr --address ${state.containerdSocket} --namespace k8s.io`;
  const script = [
    `for id in $(${ctr} tasks list -q); do ${ctr} tasks kill -s SIGKILL $id; done`,
    "sleep 1",
    `for id in $(${ctr} tasks list -q); do ${ctr} tasks delete --force $id; done`,
    `for id in $(${ctr} containers list -q); do ${ctr} containers delete $id; done`,
  ].join("\n");
  await control.run("sh", ["-c", script]);
  // Restart containerd, so that it also forgets what it ran.
  await control.stopContainerd("SIGKILL");
  await control.startContainerd();
}
