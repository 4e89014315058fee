import { ANNOTATION_DELETION_COST } from "../../../../../src/api/names.ts";
import { DEPLOYMENTS, type Deployment, PODS } from "../../../../../src/kube/resource.ts";
import { type Act, pick } from "../../acts/act.ts";
import { deletePod, unlessGone, withPod } from "../../acts/cluster.ts";
import type { WorkersStage } from "../stage.ts";

/** What users do to workers and to their Deployments. */
export const DEPLOYMENT = {
  "pod:idle-deleted": withPod<WorkersStage>((stage) => stage.idlePods(), deletePod),
  "pod:mark-removed": withPod<WorkersStage>(
    (stage) =>
      stage.busyPods().filter(({ metadata }) => metadata.annotations?.[ANNOTATION_DELETION_COST] !== undefined),
    async ({ world }, { metadata }) => {
      const ref = { namespace: world.namespace, name: metadata.name ?? "" };
      const patch = { metadata: { annotations: { [ANNOTATION_DELETION_COST]: null } } };
      return await unlessGone(world.kube.patch(PODS, ref, patch, { type: "merge" }));
    },
  ),
  "deployment:scaled": withDeployment((stage, deployment, choice) => {
    const replicas = choice % 4;
    stage.witness.allows(replicas + restOf(stage, deployment));
    return patch(stage, deployment, { replicas });
  }),
  "deployment:changed": withDeployment((stage, deployment, choice) =>
    patch(stage, deployment, { template: { spec: { terminationGracePeriodSeconds: 4 + (choice % 3) } } }),
  ),
  // As kubectl rollout restart does.
  "deployment:restarted": withDeployment((stage, deployment, choice) => {
    const annotations = { "kubectl.kubernetes.io/restartedAt": new Date(choice).toISOString() };
    return patch(stage, deployment, { template: { metadata: { annotations } } });
  }),
  "deployment:deleted": withDeployment(({ world }, { metadata }) =>
    unlessGone(world.kube.delete(DEPLOYMENTS, { namespace: world.namespace, name: metadata.name ?? "" })),
  ),
} as const satisfies Record<string, Act<WorkersStage>>;

/** The act may end workers, including busy ones. */
function withDeployment(
  act: (stage: WorkersStage, deployment: Deployment, choice: number) => Promise<boolean>,
): Act<WorkersStage> {
  return async (stage, choice) => {
    const deployment = await stage.aim(() => {
      const live = stage.deployments.filter(({ metadata }) => !metadata.deletionTimestamp);
      return live.length === 0 ? undefined : pick(live, choice);
    });
    if (!deployment) return false;
    stage.witness.excuseAll();
    return await act(stage, deployment, choice);
  };
}

/** The number of workers in the other Deployments. */
function restOf(stage: WorkersStage, deployment: Deployment): number {
  const others = stage.deployments.filter(({ metadata }) => metadata.name !== deployment.metadata.name);
  return others.reduce((sum, { spec }) => sum + (spec.replicas ?? 1), 0);
}

function patch({ world }: WorkersStage, { metadata }: Deployment, spec: object): Promise<boolean> {
  const ref = { namespace: world.namespace, name: metadata.name ?? "" };
  return unlessGone(world.kube.patch(DEPLOYMENTS, ref, { spec }, { type: "merge" }));
}
