import type { TestProject } from "vitest/node";
import { setupCluster } from "./cluster-setup.ts";
import { oldestKubernetes } from "./oldest-kubernetes.ts";

/** As cluster-setup.ts, with the oldest version of Kubernetes that is supported. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  return await setupCluster(project, { ...process.env, ...(await oldestKubernetes()) });
}
