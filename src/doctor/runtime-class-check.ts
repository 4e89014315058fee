import type { Environment } from "../api/environment.ts";
import { isRecord } from "../core/json.ts";
import type { KubeClient } from "../kube/client.ts";
import { type KubeObject, NODES, type Node, type Resource, type Taint } from "../kube/resource.ts";
import { type Toleration, tolerates } from "../pods/node-health.ts";
import { templateOf } from "../reconcile/modes.ts";
import { type CheckResult, resultsOf } from "./checks.ts";
import { aboutEnvironment } from "./environment-checks.ts";
import { look, unseen } from "./look.ts";

/** The parts of a RuntimeClass that decide where its Pods run. */
interface RuntimeClass extends KubeObject {
  readonly handler: string;
  readonly scheduling?: {
    readonly nodeSelector?: Readonly<Record<string, string>>;
    readonly tolerations?: readonly Toleration[];
  };
}

const RUNTIME_CLASSES: Resource<RuntimeClass> = {
  group: "node.k8s.io",
  version: "v1",
  plural: "runtimeclasses",
  kind: "RuntimeClass",
  namespaced: false,
};

/** The number of nodes that a message lists. */
const SHOWN = 3;
/** The one taint effect that keeps no Pod away. */
const SOFT = "PreferNoSchedule";

const ELSEWHERE =
  "Install the runtime there, or set scheduling.nodeSelector of the RuntimeClass to the labels of nodes that have it (docs/hardening.md).";

/** Whether nodes have the runtime of the Pods' RuntimeClass. */
export async function checkRuntimeClass(kube: KubeClient, environment: Environment): Promise<CheckResult> {
  const results = resultsOf("runtime-class", aboutEnvironment(environment));
  const { runtimeClassName: name, ...spec } = templateOf(environment).written.spec;
  if (!name) return results.pass("Pods use the default runtime of their node");
  const [found, nodes] = await Promise.all([
    look(() => kube.get(RUNTIME_CLASSES, { name })),
    look(async () => (await kube.listAll(NODES)).items),
  ]);
  // A condition reports that it does not exist.
  if (found.is === "absent") return results.skip(`RuntimeClass ${name}`);
  if (found.is !== "seen") return unseen(results, found, `get runtimeclasses ${name}`);
  if (nodes.is === "absent") return results.fail("the API server does not know nodes", "Check the server address.");
  if (nodes.is !== "seen") return unseen(results, nodes, "list nodes");
  const { handler, scheduling = {} } = found.value;
  const selector = { ...labelsOf(spec["nodeSelector"]), ...scheduling.nodeSelector };
  const tolerations = [...tolerationsOf(spec["tolerations"]), ...(scheduling.tolerations ?? [])];
  const fitting = nodes.value.filter((node) => fits(node, selector, tolerations));
  const lacking = fitting.filter((node) => handlersOf(node)?.includes(handler) === false);
  const silent = fitting.filter((node) => handlersOf(node) === null);
  if (fitting.length === 0) {
    return results.warn(
      `no node fits RuntimeClass ${name}: none that takes Pods has the labels of its scheduling.nodeSelector, and only taints that it tolerates`,
      "Add such a node, or correct scheduling of the RuntimeClass (docs/hardening.md).",
    );
  }
  const words = `${lacking.length} of ${fitting.length} nodes for RuntimeClass ${name} lack its handler ${handler}: ${namesOf(lacking)}`;
  if (lacking.length === fitting.length) return results.fail(words, ELSEWHERE);
  if (lacking.length > 0) return results.warn(words, ELSEWHERE);
  const unknown = silent.length === 0 ? "" : `, of which ${silent.length} do not report their handlers`;
  const count = fitting.length === 1 ? "1 node" : `${fitting.length} nodes`;
  return results.pass(`RuntimeClass ${name} (handler ${handler}) fits ${count}${unknown}`);
}

/** Whether the scheduler may put Pods of the class there. */
function fits(
  { metadata, spec }: Node,
  selector: Readonly<Record<string, string>>,
  tolerations: readonly Toleration[],
): boolean {
  const taints: readonly Taint[] = spec?.taints ?? [];
  return (
    spec?.unschedulable !== true &&
    Object.entries(selector).every(([label, value]) => metadata.labels?.[label] === value) &&
    taints.every((taint) => taint.effect === SOFT || tolerates(tolerations, taint, "for a while"))
  );
}

/** The runtimes that a node reports; null: its kubelet or container runtime is too old to report them. */
function handlersOf({ status }: Node): readonly string[] | null {
  const handlers = isRecord(status) ? status["runtimeHandlers"] : undefined;
  if (!Array.isArray(handlers) || handlers.length === 0) return null;
  return handlers.map((handler) => (isRecord(handler) ? String(handler["name"] ?? "") : ""));
}

function labelsOf(value: unknown): Record<string, string> {
  return isRecord(value) ? (value as Record<string, string>) : {};
}

function tolerationsOf(value: unknown): readonly Toleration[] {
  return Array.isArray(value) ? value.filter(isRecord) : [];
}

function namesOf(nodes: readonly Node[]): string {
  const names = nodes.slice(0, SHOWN).map(({ metadata }) => metadata.name);
  return [...names, ...(nodes.length > SHOWN ? [`${nodes.length - SHOWN} more`] : [])].join(", ");
}
