import { lstat, readdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import type { Simulator } from "../../simulator/simulator.ts";
import { SECOND_MS } from "../../src/core/clock.ts";
import { OPERATOR } from "../../testbed/cluster/users.ts";
import type { NodeState } from "../../testbed/real-node/control-protocol.ts";
import type { Inside } from "./inside.ts";
import { settle, shuffled } from "./lane.ts";
import { SleepLane, type Turn } from "./sleep-lane.ts";
import { withMeasured } from "./starts.ts";
import { type Disk, type Relists, relistsBetween, type TurnsFound, type WakesOptions } from "./wakes.ts";

const BLOCK_BYTES = 512;
/** What a folder takes on usual file systems. The node's containers are on a tmpfs, where it takes nothing. */
const FOLDER_BYTES = 4_096;

/** Measures late turns of a Pod against its second one. */
export async function measureTurns(
  inside: Inside<WakesOptions>,
  simulator: Simulator,
  random: () => number,
): Promise<TurnsFound> {
  const { sessions, late, rounds, relistSeconds } = inside.options.turns;
  const lane = await SleepLane.create({ kind: "pod", name: "turns", simulator, maxConcurrent: 2 * sessions }, inside);
  await using _lane = lane;
  const firstTurns = () => Promise.all(Array.from({ length: sessions }, () => lane.startAndSleep()));
  /** The next item of each session, one at a time. */
  const oneByOne = async (all: readonly Turn[]): Promise<Turn[]> => {
    const turns: Turn[] = [];
    for (const { sessionId } of shuffled(all, random)) {
      await settle([lane], random);
      turns.push(await lane.startAndSleep(undefined, sessionId));
    }
    return turns;
  };

  const { audit } = inside.stand.cluster;
  const since = await audit.mark();
  const second = await oneByOne(await firstTurns());
  const early = { relists: await watchRelists(inside, relistSeconds), disk: await diskOf(inside.node) };
  let turns: readonly Turn[] = second;
  for (let turn = 3; turn < late; turn += 1) {
    turns = await Promise.all(turns.map(({ sessionId }) => lane.startAndSleep(undefined, sessionId)));
    console.log(`turn ${turn} of ${late}`);
  }
  const grown = { relists: await watchRelists(inside, relistSeconds), disk: await diskOf(inside.node) };
  const objectBytes = await Promise.all(turns.map(({ namespace, pod }) => bytesOf(inside, namespace, pod)));

  const lateTurns: Turn[] = [];
  const secondBeside: Turn[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const isOld = new Set(turns.map(({ sessionId }) => sessionId));
    const both = await oneByOne([...turns, ...(await firstTurns())]);
    turns = both.filter(({ sessionId }) => isOld.has(sessionId));
    lateTurns.push(...turns);
    secondBeside.push(...both.filter(({ sessionId }) => !isOld.has(sessionId)));
  }
  const entries = await audit.entries({ since, namespace: lane.served.namespace });
  const measured = (all: readonly Turn[]) => withMeasured(all, entries, () => OPERATOR);
  await lane.endAll();
  const ended = sessions * Math.max(1, late - 3);
  const perTurn = (of: keyof Disk) => (grown.disk[of] - early.disk[of]) / ended;
  return {
    second: measured(second),
    late: measured(lateTurns),
    secondBeside: measured(secondBeside),
    objectBytes,
    relists: { early: early.relists, late: grown.relists },
    diskPerTurn: { layers: perTurn("layers"), logs: perTurn("logs"), records: perTurn("records") },
  };
}

async function bytesOf({ stand }: Inside<unknown>, namespace: string, pod: string): Promise<number> {
  return JSON.stringify(await stand.kube.raw("GET", `/api/v1/namespaces/${namespace}/pods/${pod}`)).length;
}

async function watchRelists({ stand, node }: Inside<unknown>, seconds: number): Promise<Relists> {
  const read = async () => String(await stand.kube.raw("GET", `/api/v1/nodes/${node.nodeName}/proxy/metrics`));
  const before = await read();
  await pause(seconds * SECOND_MS);
  return relistsBetween(before, await read());
}

/** What all containers together take on the node's disk, except for images and volumes. */
async function diskOf({ podLogs }: NodeState): Promise<Disk> {
  const node = dirname(podLogs);
  const containerd = join(node, "containerd");
  const pods = join(node, "kubelet", "pods");
  const containers = (await readdir(pods)).map((uid) => bytesBelow(join(pods, uid, "containers")));
  const kubelet = (await Promise.all(containers)).reduce((sum, bytes) => sum + bytes, 0);
  return {
    layers: await bytesBelow(join(containerd, "io.containerd.snapshotter.v1.overlayfs")),
    logs: await bytesBelow(podLogs),
    records: kubelet + (await bytesBelow(join(containerd, "io.containerd.grpc.v1.cri"))),
  };
}

/** Bytes on disk of everything below a folder. Files may be removed meanwhile. */
async function bytesBelow(folder: string): Promise<number> {
  const entries = await readdir(folder, { withFileTypes: true, recursive: true }).catch(() => []);
  let sum = 0;
  for (const entry of entries) {
    const stats = await lstat(join(entry.parentPath, entry.name)).catch(() => undefined);
    if (stats) sum += entry.isDirectory() ? FOLDER_BYTES : stats.blocks * BLOCK_BYTES;
  }
  return sum;
}
