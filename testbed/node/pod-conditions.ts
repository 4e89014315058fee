import type { Condition, ContainerStatus, Pod } from "../../src/kube/objects.ts";
import { isRestartable } from "./container-record.ts";
import { hasStarted, type Phase } from "./pod-phase.ts";

/** Why the kubelet itself ended a Pod. */
export interface PodVerdict {
  readonly reason: string;
  readonly message: string;
  /** The node disrupted the Pod: the kubelet also reports this in a condition. */
  readonly disrupted?: true;
  /** The Pod is Failed even if all its containers ended with 0. */
  readonly always?: true;
}

/** The conditions that the kubelet owns. It doesn't change the others. */
export const OWN_CONDITIONS = [
  "PodReadyToStartContainers",
  "Initialized",
  "Ready",
  "ContainersReady",
  "PodScheduled",
] as const;

/** The reason of a disruption that the kubelet itself causes. */
export const BY_KUBELET = "TerminationByKubelet";

type Judgement = Pick<Condition, "status" | "reason" | "message">;

const TRUE: Judgement = { status: "True" };

/** Whether a Pod has a sandbox: none yet, one that runs, or one that has ended. */
export type SandboxState = "none" | "ready" | "ended";

/** Kubelets before 1.37 report no reason and no message (pkg/kubelet/types/constants.go). */
const SANDBOX: Readonly<Record<SandboxState, Judgement>> = {
  none: { status: "False", reason: "PodSandboxNotReady", message: "no pod sandbox exists" },
  ready: TRUE,
  ended: { status: "False", reason: "PodSandboxNotReady", message: "pod sandbox is not ready" },
};

export interface ConditionsInput {
  readonly pod: Pod;
  /** The phase that the containers imply, even while the reported phase is held back. */
  readonly phase: Phase;
  readonly init: readonly ContainerStatus[];
  readonly main: readonly ContainerStatus[];
  readonly sandbox: SandboxState;
  /** RFC 3339. */
  readonly now: string;
  readonly previous: readonly Condition[];
  /** Why the kubelet itself ended the Pod, once it has ended. */
  readonly verdict: PodVerdict | undefined;
}

/** Returns the conditions of a Pod in the kubelet's order (pkg/kubelet/status/generate.go). */
export function conditionsOf(input: ConditionsInput): Condition[] {
  const containersReady = judgeContainersReady(input);
  const judged: Record<(typeof OWN_CONDITIONS)[number], Judgement> = {
    PodReadyToStartContainers: SANDBOX[input.sandbox],
    Initialized: judgeInitialized(input),
    Ready: judgeReady(input.pod, containersReady),
    ContainersReady: containersReady,
    PodScheduled: TRUE,
  };
  const { generation } = input.pod.metadata;
  const condition = (type: string, judgement: Judgement) => {
    const before = input.previous.find((one) => one.type === type);
    const unchanged = before?.status === judgement.status;
    return {
      type,
      ...(generation === undefined ? {} : { observedGeneration: generation }),
      lastProbeTime: null,
      lastTransitionTime: (unchanged ? before?.lastTransitionTime : undefined) ?? input.now,
      ...judgement,
    };
  };
  const own = OWN_CONDITIONS.map((type) => condition(type, judged[type]));
  if (!input.verdict?.disrupted) return own;
  const { message } = input.verdict;
  return [condition("DisruptionTarget", { status: "True", reason: BY_KUBELET, message }), ...own];
}

function judgeContainersReady({ pod, phase, init, main }: ConditionsInput): Judgement {
  if (phase === "Succeeded") return { status: "False", reason: "PodCompleted" };
  if (phase === "Failed") return { status: "False", reason: "PodFailed" };
  const sidecars = (pod.spec.initContainers ?? []).filter(isRestartable).map(({ name }) => name);
  const unready = [...init.filter(({ name }) => sidecars.includes(name)), ...main].filter(
    ({ ready }) => ready !== true,
  );
  return listed(unready, "ContainersNotReady", "unready");
}

function judgeInitialized({ pod, phase, init, main }: ConditionsInput): Judgement {
  if (phase === "Succeeded") return { status: "True", reason: "PodCompleted" };
  if (hasStarted(main)) return TRUE;
  const sidecars = (pod.spec.initContainers ?? []).filter(isRestartable).map(({ name }) => name);
  const incomplete = init.filter(({ name, started, ready }) => (sidecars.includes(name) ? !started : !ready));
  return listed(incomplete, "ContainersNotInitialized", "incomplete");
}

function judgeReady(pod: Pod, containersReady: Judgement): Judgement {
  if (containersReady.status !== "True") return containersReady;
  const gates = (pod.spec["readinessGates"] ?? []) as { conditionType: string }[];
  const held = gates.find(
    ({ conditionType }) => pod.status?.conditions?.find(({ type }) => type === conditionType)?.status !== "True",
  );
  if (held === undefined) return TRUE;
  const message = `corresponding condition of pod readiness gate "${held.conditionType}" does not exist.`;
  return { status: "False", reason: "ReadinessGatesNotReady", message };
}

function listed(statuses: readonly ContainerStatus[], reason: string, word: string): Judgement {
  if (statuses.length === 0) return TRUE;
  const names = statuses.map(({ name }) => name).join(" ");
  return { status: "False", reason, message: `containers with ${word} status: [${names}]` };
}
