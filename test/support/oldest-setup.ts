import type { TestProject } from "vitest/node";
import { setupCluster } from "./cluster-setup.ts";
import { oldestKubernetes } from "./oldest-kubernetes.ts";

/** Like cluster-setup.ts, with the oldest supported version of Kubernetes. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  return await setupCluster(project, { ...process.env, ...(await oldestKubernetes()) });
}
