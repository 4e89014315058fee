import { setTimeout as pause } from "node:timers/promises";
import { PODS } from "../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import type { AuditEntry } from "../../testbed/cluster/audit.ts";
import { ADMIN } from "../../testbed/cluster/users.ts";
import { OPERATOR_NAMESPACE, type Served } from "../support/stand.ts";
import { createEnvironment, type SessionsInput } from "./environment.ts";
import { type Inside, load, measureInside, startNodeSimulator } from "./inside.ts";
import { plainPod, type Way } from "./plain-pods.ts";
import { type PodUsage, podUsages } from "./pod-cgroups.ts";
import { PodView } from "./pod-view.ts";
import { type Program, programUsage, type Usage, usageOf } from "./processes.ts";
import type { Waiting, WaitingOptions, WaitingResult } from "./waiting-costs.ts";

/** Pods that wait: Berth's by their way of parking, or plain ones. */
type Kind = { readonly title: string } & (
  | { readonly parking: NonNullable<SessionsInput["parking"]> }
  | { readonly way: Way }
  | { readonly none: true }
);

const KINDS: readonly Kind[] = [
  { title: "none", none: true },
  ...(["Key", "Shell", "Program"] as const).map((parking) => ({
    title: `Berth, parking: ${parking}`,
    parking,
  })),
  { title: "plain Pod, shell", way: "shell" },
  { title: "plain Pod, program", way: "program" },
  { title: "plain Pod, sandbox", way: "sandbox" },
];

/** Measures what waiting Pods cost: see the scenario in scenarios/waiting.ts. */
await measureInside<WaitingOptions>(async (inside): Promise<WaitingResult> => {
  const { stand, options } = inside;
  const simulator = await startNodeSimulator(inside);
  const operator = await stand.operator(simulator.url, ["--leader-elect-namespace", OPERATOR_NAMESPACE]);
  const kinds: Waiting[] = [];
  const refused: string[] = [];
  for (const [at, kind] of KINDS.entries()) {
    const found = await measureKind(kind, `waiting-${at}`);
    if (found) kinds.push(found);
    else refused.push(kind.title);
    if (found) console.log(`${kind.title}, load ${found.load.toFixed(1)}`);
  }
  return { seconds: options.seconds, kinds, refused };

  async function measureKind(kind: Kind, name: string): Promise<Waiting | null> {
    const namespace = await stand.namespace(name);
    const { id: environmentId } = simulator.createEnvironment();
    const served: Served = { namespace, name: "bench", simulator, environmentId };
    await using view = new PodView(stand.kube, namespace);
    if (!(await park(inside, kind, served))) return null;
    const pods = "none" in kind ? 0 : options.pods;
    const waiting = await view.untilWaiting(pods);
    const uids = waiting.map(({ metadata }) => metadata.uid ?? "");
    await pause(options.settleSeconds * 1_000);
    const found = await watch(inside, { namespace, uids, operatorPid: operator.pid });
    if ("parking" in kind) await stand.kube.delete(ENVIRONMENTS, { namespace, name: served.name });
    else await stand.empty(namespace);
    await view.until("all Pods to be deleted", (left) => left.length === 0);
    return { title: kind.title, pods, ...found };
  }
});

/** Creates the Pods. False: the operator doesn't have this way of parking. */
async function park(inside: Inside<WaitingOptions>, kind: Kind, served: Served): Promise<boolean> {
  const { stand, options } = inside;
  if ("parking" in kind) {
    const sessions = { warm: options.pods, maxConcurrent: options.pods, parking: kind.parking };
    return await createEnvironment(inside, served, sessions);
  }
  if (!("way" in kind)) return true;
  const { namespace, environmentId, simulator } = served;
  for (let at = 1; at <= options.pods; at += 1) {
    const pod = await plainPod(kind.way, { namespace, name: `plain-${at}`, baseUrl: simulator.url, environmentId });
    await stand.kube.create(PODS, pod);
  }
  return true;
}

/** Watches a namespace's Pods for a while. */
async function watch(
  inside: Inside<WaitingOptions>,
  { namespace, uids, operatorPid }: { namespace: string; uids: readonly string[]; operatorPid: number },
): Promise<Omit<Waiting, "title" | "pods">> {
  const { stand, options } = inside;
  const usage = async (): Promise<Record<Program | "operator", Usage>> => {
    return { ...(await programUsage()), operator: await usageOf([operatorPid]) };
  };
  const since = await stand.cluster.audit.mark();
  const [before, podsBefore] = [await usage(), await podUsages(uids)];
  await pause(options.seconds * 1_000);
  const [after, podsAfter] = [await usage(), await podUsages(uids)];
  const entries = await stand.cluster.audit.entries({ since, namespace });
  const names = Object.keys(after) as (keyof typeof after)[];
  const cores = names.map((name) => [name, (after[name].cpuSeconds - before[name].cpuSeconds) / options.seconds]);
  const podSeconds = (usages: readonly PodUsage[]) => usages.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0);
  return {
    load: load(),
    podUsages: podsAfter,
    podCores: (podSeconds(podsAfter) - podSeconds(podsBefore)) / options.seconds,
    cores: Object.fromEntries(cores),
    rss: after,
    events: entries.filter(({ resource }) => resource === "events").length,
    requests: requestsByUser(entries),
  };
}

/** Without the bench's own requests, and without watches, which are counted when they end. */
function requestsByUser(entries: readonly AuditEntry[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { user, verb } of entries) {
    if (user !== ADMIN && verb !== "watch") counts[user] = (counts[user] ?? 0) + 1;
  }
  return counts;
}
