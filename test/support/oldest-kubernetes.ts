import { kubernetesMinors, MINOR_VARIABLE } from "../../testbed/cluster/versions.ts";

/** The environment in which everything that starts a control plane starts one of the oldest supported version. */
export async function oldestKubernetes(): Promise<Record<string, string>> {
  const [oldest = ""] = await kubernetesMinors();
  // Binaries that somebody names have the version that they have.
  return { [MINOR_VARIABLE]: oldest, KUBEBUILDER_ASSETS: "" };
}
