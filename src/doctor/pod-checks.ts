import type { ConditionReason } from "../api/condition-reasons.ts";
import type { Environment } from "../api/environment.ts";
import { LABEL_ENVIRONMENT, LABEL_PHASE, LABEL_ROLE, toLabelValue } from "../api/names.ts";
import { SECOND_MS } from "../core/clock.ts";
import type { KubeClient } from "../kube/client.ts";
import { IMAGE_PROBLEMS } from "../kube/objects.ts";
import { PODS, type Pod } from "../kube/resource.ts";
import { readPodState } from "../pods/pod-state.ts";
import { type CheckResult, resultsOf } from "./checks.ts";
import { aboutEnvironment } from "./environment-checks.ts";
import { type Look, look, unseen } from "./look.ts";

/**
 * A deleted Pod is gone once its grace period has passed and its node has confirmed it. A lost node takes some minutes.
 */
const GONE_MARGIN_MS = 300_000;
/** The number of Pods that a message lists. */
const SHOWN = 3;

/** The Pods of an Environment, in either mode. */
export function podsOf(kube: KubeClient, environment: Environment): Promise<Look<readonly Pod[]>> {
  const { name, namespace } = environment.metadata;
  const role = environment.spec.workers ? "worker" : "session";
  const labelSelector = `${LABEL_ENVIRONMENT}=${toLabelValue(name)},${LABEL_ROLE}=${role}`;
  return look(async () => (await kube.listAll(PODS, { namespace, labelSelector })).items);
}

/** Whether a Pod takes too long to get ready for a session, or to be deleted. */
export function checkPods(environment: Environment, found: Look<readonly Pod[]>, nowMs: number): CheckResult {
  const results = resultsOf("pods", aboutEnvironment(environment));
  const { namespace } = environment.metadata;
  if (found.is === "absent") return results.pass("there are none");
  if (found.is !== "seen") return unseen(results, found, `list pods in ${namespace}`);
  const pods = found.value;
  const overdue = pods.filter((pod) => isOverdue(pod, nowMs));
  if (overdue.length > 0) {
    return results.fail(
      `${namesOf(overdue)} should be gone: the Pod was deleted, and its grace period and ${GONE_MARGIN_MS / SECOND_MS} s have passed`,
      "Check its node, and the finalizers of the Pod.",
    );
  }
  const blocked = pods.flatMap((pod) => blockedPod(pod, environment, nowMs));
  const [first] = blocked;
  if (!first) return results.pass(`${pods.length} ${pods.length === 1 ? "Pod" : "Pods"}, none is stuck`);
  return results.fail(
    `${namesOf(blocked.map(({ pod }) => pod))} did not get ready within prepareTimeoutSeconds: ${first.why}`,
    `kubectl -n ${namespace} describe pod ${first.pod.metadata.name}`,
    first.reason,
  );
}

function isOverdue({ metadata }: Pod, nowMs: number): boolean {
  // The timestamp marks the end of the grace period.
  return nowMs > Date.parse(metadata.deletionTimestamp ?? "") + GONE_MARGIN_MS;
}

/** A free Pod that has not been parked in time. Workers are exempt: they have no such limit. */
function blockedPod(
  pod: Pod,
  { spec }: Environment,
  nowMs: number,
): { readonly pod: Pod; readonly why: string; readonly reason: ConditionReason }[] {
  if (!spec.sessions || pod.metadata.labels?.[LABEL_PHASE] !== "parked" || pod.metadata.deletionTimestamp) return [];
  const ageMs = nowMs - Date.parse(pod.metadata.creationTimestamp ?? "");
  if (!(ageMs > spec.sessions.prepareTimeoutSeconds * SECOND_MS)) return [];
  const state = readPodState(pod);
  switch (state.is) {
    case "unscheduled":
      return [{ pod, why: `${state.reason || "not scheduled"}: ${state.message}`, reason: "Unschedulable" }];
    case "gated":
      return [{ pod, why: state.message, reason: "SchedulingGated" }];
    case "preparing":
      return [
        {
          pod,
          why: state.problem ? `${state.problem.reason}: ${state.problem.message}` : "its node reports no reason",
          reason: IMAGE_PROBLEMS.has(state.problem?.reason ?? "") ? "ImagePullFailing" : "PreparationFailing",
        },
      ];
    case "parked":
    case "running":
    case "ended":
      return [];
  }
}

function namesOf(pods: readonly Pod[]): string {
  const names = pods.slice(0, SHOWN).map(({ metadata }) => `Pod ${metadata.name}`);
  const more = pods.length > SHOWN ? [`${pods.length - SHOWN} more`] : [];
  return [...names, ...more].join(", ");
}
