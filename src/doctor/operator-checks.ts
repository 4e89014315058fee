import { LEASE_NAME } from "../api/names.ts";
import { SECOND_MS } from "../core/clock.ts";
import { lastLines } from "../core/text.ts";
import { shardLeaseName } from "../election/shard-leases.ts";
import type { KubeClient } from "../kube/client.ts";
import { ORDINARY_WAITS } from "../kube/objects.ts";
import { LEASES, type Lease, PODS, type Pod } from "../kube/resource.ts";
import { type CheckResult, resultsOf } from "./checks.ts";
import { type Look, look, unseen } from "./look.ts";
import type { InstalledOperator } from "./operators.ts";

/**
 * A Lease that was not renewed for this long counts as free: four times its duration. The holder's clock writes the
 * renewal time, and it is compared with the API server's clock, so a skew of some seconds must not matter.
 */
const STALE_LEASE_MS = 60_000;

/** `deployment NS/NAME`. */
export function aboutOperator({ namespace, deployment }: InstalledOperator): string {
  return `deployment ${namespace}/${deployment.metadata.name}`;
}

/** Whether an operator is installed at all. `checkReplicas` reports problems of an installed one. */
export function checkInstalled(found: Look<readonly InstalledOperator[]>): CheckResult[] {
  const results = resultsOf("operator", "cluster");
  if (found.is === "forbidden") return [results.skip("list deployments, everywhere or in --operator-namespace")];
  if (found.is === "failed") return [unseen(results, found, "list deployments")];
  if (found.is === "seen" && found.value.length > 0) return [];
  return [
    results.fail(
      "no operator is installed: there is no Deployment with the chart's labels",
      "Install it (docs/install.md), or name its namespace with --operator-namespace. An operator outside the cluster, such as npm start, is not found.",
    ),
  ];
}

/** Whether its replicas are available, and why a Pod of it is not, such as one of a rollout that is stuck. */
export async function checkReplicas(kube: KubeClient, operator: InstalledOperator): Promise<CheckResult> {
  const results = resultsOf("operator", aboutOperator(operator));
  const { namespace } = operator;
  const { spec, status, metadata } = operator.deployment;
  const wanted = spec.replicas ?? 1;
  const available = status?.availableReplicas ?? 0;
  const count = `${available} of ${wanted} replicas are available`;
  const where = `kubectl -n ${namespace} describe deployment ${metadata.name}`;
  if (wanted === 0) {
    const fix = `Scale it up: kubectl -n ${operator.namespace} scale deployment ${metadata.name} --replicas 1`;
    return results.fail("it is scaled to 0 replicas, as after berth uninstall", fix);
  }
  const labelSelector = Object.entries(spec.selector.matchLabels ?? {})
    .map(([label, value]) => `${label}=${value}`)
    .join(",");
  const pods = await look(async () => (await kube.listAll(PODS, { namespace, labelSelector })).items);
  const stuck = pods.is === "seen" ? newestOf(pods.value).flatMap((pod) => whyStuck(pod)) : [];
  const words = stuck.length === 0 ? count : `${count}, and ${stuck[0]}`;
  if (available === 0) {
    const release = metadata.labels?.["app.kubernetes.io/instance"] ?? "RELEASE";
    const fix = `Check its Pods and their logs: ${where}. If it has never run, you can uninstall it: helm uninstall ${release} -n ${namespace} --no-hooks`;
    return results.fail(words, fix);
  }
  if (stuck.length > 0)
    return results.fail(words, `Correct the image or the values, and upgrade the release: ${where}`);
  const { observedGeneration = 0, replicas = 0, updatedReplicas = 0 } = status ?? {};
  const isSettled = observedGeneration >= (metadata.generation ?? 0) && replicas === updatedReplicas;
  if (!isSettled) return results.warn(`${count}, and a rollout is under way`, `Wait for it: ${where}`);
  if (available < wanted) return results.warn(count, `Check its Pods: ${where}`);
  return results.pass(`${count} (${operator.image})`);
}

/** The Pods of the newest ReplicaSet: a rollout that is stuck keeps the available Pods of the one before. */
function newestOf(pods: readonly Pod[]): readonly Pod[] {
  const alive = pods.filter(({ metadata }) => metadata.deletionTimestamp === undefined);
  const created = ({ metadata }: Pod) => metadata.creationTimestamp ?? "";
  const [newest] = alive.toSorted((one, other) => created(other).localeCompare(created(one)));
  return alive.filter((pod) => templateOf(pod) === templateOf(newest));
}

function templateOf(pod: Pod | undefined): string | undefined {
  return pod?.metadata.labels?.["pod-template-hash"];
}

/** Why a Pod of an operator does not get ready; empty: it is ready, or starts normally. */
function whyStuck({ metadata, status }: Pod): string[] {
  const scheduled = status?.conditions?.find(({ type, status: is }) => type === "PodScheduled" && is === "False");
  if (scheduled) return [`Pod ${metadata.name} has no node: ${scheduled.reason}: ${scheduled.message}`];
  return (status?.containerStatuses ?? []).flatMap(({ state, lastState }) => {
    const { reason = "", message = "" } = state?.waiting ?? {};
    if (ORDINARY_WAITS.has(reason)) return [];
    const end = lastState?.terminated;
    const last = end ? `; it ended last with exit code ${end.exitCode}${lastLines(end.message)}` : "";
    return [`Pod ${metadata.name} waits in ${reason}: ${message}${last}`];
  });
}

/** Whether it has this build's version, because other checks compare its objects with those of this build. */
export function checkVersion(operator: InstalledOperator, version: string): CheckResult {
  const results = resultsOf("operator-version", aboutOperator(operator));
  // Many tags, such as latest, name no version. The chart's label then tells what was meant to run.
  const [named = ""] = operator.image.split("@");
  const tag = /:v?(\d+\.\d+\.\d+[^/:]*)$/.exec(named)?.[1];
  const running = tag ?? operator.deployment.metadata.labels?.["app.kubernetes.io/version"] ?? "unknown";
  const fix = `Run the berth command of its image: kubectl -n ${operator.namespace} exec deploy/${operator.deployment.metadata.name} -- node /app/bin/berth.mjs doctor; or upgrade the operator.`;
  if (operator.settings === null) {
    return results.warn(`its flags are not flags of Berth ${version} (image ${operator.image})`, fix);
  }
  if (running === version) return results.pass(`${version}, the same as this build`);
  return results.warn(`it is ${running} (image ${operator.image}), and this build is ${version}`, fix);
}

/** Whether a replica is active: the Lease, or the Lease of every shard, is held and was renewed. */
export async function checkLeases(kube: KubeClient, operator: InstalledOperator): Promise<CheckResult> {
  const results = resultsOf("lease", aboutOperator(operator));
  const { elected = true, namespace = operator.namespace, shards = 1 } = operator.settings?.leases ?? {};
  if (!elected) return results.pass("leader election is off, so there is no Lease");
  const found = await look(() => kube.listAll(LEASES, { namespace }));
  if (found.is !== "seen") return unseen(results, notAbsent(found), `list leases in namespace ${namespace}`);
  const names = Array.from({ length: shards }, (_, shard) => shardLeaseName(LEASE_NAME, shard, shards));
  const leases = new Map(found.value.items.map((lease) => [lease.metadata.name, lease]));
  const states = names.map((name) => ({ name, state: stateOf(leases.get(name), kube.now()) }));
  const idle = states.filter(({ state }) => !state.isHeld);
  if (idle.length === 0) return results.pass(states.map(({ name, state }) => `${name}: ${state.words}`).join("; "));
  return results.fail(
    idle.map(({ name, state }) => `Lease ${namespace}/${name}: ${state.words}`).join("; "),
    "Read the operator's log. A replica needs permission to get, list, create and update leases in this namespace.",
  );
}

/** Whether a Pod of the cluster's DNS exists where the NetworkPolicies let sandboxes reach it. */
export async function checkClusterDns(kube: KubeClient, operator: InstalledOperator): Promise<CheckResult> {
  const results = resultsOf("cluster-dns", aboutOperator(operator));
  if (operator.settings === null) return results.skip("the berth command of the operator's version");
  const { pods, cidrs } = operator.settings.clusterDns;
  const looks = await Promise.all(
    pods.map(async ({ namespace, label, value }) => {
      const labelSelector = `${label}=${value}`;
      const found = await look(() => kube.list(PODS, { namespace, labelSelector, limit: 1 }));
      return { namespace, name: `${namespace}/${labelSelector}`, found };
    }),
  );
  const there = looks.filter(({ found }) => found.is === "seen" && found.value.items.length > 0);
  if (there.length > 0) return results.pass(`found Pods: ${there.map(({ name }) => name).join(", ")}`);
  for (const { namespace, found } of looks) {
    if (found.is !== "seen") return unseen(results, notAbsent(found), `list pods in namespace ${namespace}`);
  }
  if (cidrs !== undefined) return results.pass(`no Pods; addresses: ${cidrs.join(", ")}`);
  return results.warn(
    `no Pod has the namespace and label ${looks.map(({ name }) => name).join(" or ")}`,
    "Set the chart's clusterDns.pods to the namespace and label of the DNS Pods, or clusterDns.cidrs if DNS runs outside Pods.",
  );
}

function stateOf(lease: Lease | undefined, nowMs: number): { readonly isHeld: boolean; readonly words: string } {
  if (!lease) return { isHeld: false, words: "does not exist, so no replica has been active yet" };
  const { holderIdentity = "", renewTime } = lease.spec ?? {};
  if (holderIdentity === "") return { isHeld: false, words: "no replica holds it" };
  const ageMs = nowMs - Date.parse(renewTime ?? "");
  if (ageMs <= STALE_LEASE_MS) return { isHeld: true, words: `held by ${holderIdentity}` };
  const age = Number.isNaN(ageMs) ? "at an unknown time" : `${Math.round(ageMs / SECOND_MS)} s ago`;
  return { isHeld: false, words: `${holderIdentity} renewed it last ${age}` };
}

/** A list is never absent: a 404 means that the API server does not know the kind, which is a failure. */
function notAbsent<T>(found: Exclude<Look<T>, { readonly is: "seen" }>) {
  return found.is === "absent" ? ({ is: "failed", message: "the API server does not know this kind" } as const) : found;
}
