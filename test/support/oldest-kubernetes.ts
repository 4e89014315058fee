import { kubernetesMinors, MINOR_VARIABLE } from "../../testbed/cluster/versions.ts";

/** Environment variables that make every control plane start with the oldest supported version. */
export async function oldestKubernetes(): Promise<Record<string, string>> {
  const [oldest = ""] = await kubernetesMinors();
  // An explicit KUBEBUILDER_ASSETS would keep its own version.
  return { [MINOR_VARIABLE]: oldest, KUBEBUILDER_ASSETS: "" };
}
