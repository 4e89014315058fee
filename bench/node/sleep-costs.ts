import { setTimeout as pause } from "node:timers/promises";
import type { Simulator } from "../../simulator/simulator.ts";
import { SECOND_MS } from "../../src/core/clock.ts";
import { PODS, type Pod } from "../../src/kube/resource.ts";
import type { Inside } from "./inside.ts";
import { KeptLane } from "./kept-lane.ts";
import { plainPod } from "./plain-pods.ts";
import { type PodUsage, podUsages } from "./pod-cgroups.ts";
import { PodView } from "./pod-view.ts";
import { SleepLane } from "./sleep-lane.ts";
import { type PodCosts, type SleepingFound, type WakesOptions, writing } from "./wakes.ts";

const SECONDS_PER_MINUTE = 60;
const EMPTY = "empty";
const KEPT = "kept-idle";

/**
 * Measures what sleeping Pods cost, and at the same time Pods that are kept running, and empty ones: Pods with nothing
 * but their sandbox, because their container waits for a Secret that doesn't exist.
 */
export async function measureSleeping(
  inside: Inside<WakesOptions>,
  simulator: Simulator,
  random: () => number,
): Promise<SleepingFound> {
  const { stand } = inside;
  const { pods, settleSeconds, seconds } = inside.options.sleeping;
  const lane = await SleepLane.create({ kind: "pod", name: "sleeping", simulator, maxConcurrent: pods }, inside);
  await using _lane = lane;
  await using keeping = await KeptLane.create({ name: KEPT, simulator, sessions: pods }, inside);
  await stand.namespace(EMPTY);
  await using empty = new PodView(stand.kube, EMPTY);
  for (let at = 1; at <= pods; at += 1) {
    const input = { namespace: EMPTY, name: `empty-${at}`, baseUrl: simulator.url, environmentId: "none" };
    await stand.kube.create(PODS, await plainPod("cold", input));
  }
  const uids = (found: readonly Pod[]) => found.map(({ metadata }) => metadata.uid ?? "");
  const emptyUids = uids(await empty.untilWaiting(pods));
  const asleep = await Promise.all(
    Array.from({ length: pods }, async (_, at) => lane.untilAsleep(await lane.start(writing(`idle-${at}`)))),
  );
  const kept: Pod[] = [];
  while (kept.length < pods) kept.push((await keeping.begin(random)).pod);
  await pause(settleSeconds * SECOND_MS);
  const groups = [emptyUids, uids(asleep), uids(kept)];
  const read = async () => await Promise.all(groups.map(podUsages));
  const before = await read();
  await pause(seconds * SECOND_MS);
  const after = await read();
  const costs = (of: number) => after[of]?.map((usage, at) => costsOf(before[of]?.[at], usage, seconds)) ?? [];
  await Promise.all([stand.empty(EMPTY), stand.empty(KEPT), lane.endAll()]);
  await empty.until("all Pods to be deleted", (left) => left.length === 0);
  return { empty: costs(0), sleeping: costs(1), kept: costs(2) };
}

function costsOf(before: PodUsage | undefined, after: PodUsage, seconds: number): PodCosts {
  const { anonymousBytes, kernelBytes, workingSetBytes } = after;
  const cpuMs = (after.cpuSeconds - (before?.cpuSeconds ?? Number.NaN)) * SECOND_MS;
  return { anonymousBytes, kernelBytes, workingSetBytes, cpuMsPerMinute: (cpuMs / seconds) * SECONDS_PER_MINUTE };
}
