/** Changes that admission makes to Pods, as a mesh or an agent does when it injects a sidecar. */
import type { KubeClient } from "../../src/kube/client.ts";
import type { KubeObject, Resource } from "../../src/kube/resource.ts";

const ADMISSION = { group: "admissionregistration.k8s.io", version: "v1", namespaced: false };
const POLICIES: Resource = { ...ADMISSION, plural: "mutatingadmissionpolicies", kind: "MutatingAdmissionPolicy" };
const BINDINGS: Resource = {
  ...ADMISSION,
  plural: "mutatingadmissionpolicybindings",
  kind: "MutatingAdmissionPolicyBinding",
};

/**
 * Changes every new Pod of this namespace. The API server enforces that a moment later. Dispose the result to stop it.
 * @param mutation an entry of a MutatingAdmissionPolicy's `mutations`
 */
export async function mutatePods(
  kube: KubeClient,
  namespace: string,
  mutation: Readonly<Record<string, unknown>>,
): Promise<AsyncDisposable> {
  const name = `sidecar-${namespace}`;
  const policy: KubeObject = {
    metadata: { name },
    spec: {
      failurePolicy: "Fail",
      reinvocationPolicy: "Never",
      matchConstraints: {
        namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": namespace } },
        resourceRules: [{ apiGroups: [""], apiVersions: ["v1"], operations: ["CREATE"], resources: ["pods"] }],
      },
      mutations: [mutation],
    },
  };
  await kube.create(POLICIES, policy);
  await kube.create(BINDINGS, { metadata: { name }, spec: { policyName: name } });
  return {
    [Symbol.asyncDispose]: async () => {
      await kube.delete(BINDINGS, { name });
      await kube.delete(POLICIES, { name });
    },
  };
}
