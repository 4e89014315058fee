import { describe, expect, test } from "vitest";
import { findOperators } from "../../src/doctor/operators.ts";
import type { KubeClient } from "../../src/kube/client.ts";
import type { Deployment } from "../../src/kube/resource.ts";

type Labels = Readonly<Record<string, string>>;

const COMPONENT = { "app.kubernetes.io/component": "operator" };

function deployment(name: string, labels: Labels, podLabels?: Labels): Deployment {
  const template = { ...(podLabels && { metadata: { labels: podLabels } }), spec: { containers: [] } };
  return { metadata: { name, namespace: name, labels }, spec: { selector: {}, template } };
}

/** A cluster with these Deployments. It supports only equality selectors. */
function cluster(...deployments: readonly Deployment[]): KubeClient {
  const listAll = async (_: unknown, { labelSelector }: { labelSelector: string }) => {
    const wanted = labelSelector.split(",").map((term) => term.split("="));
    const has = (labels: Labels = {}) => wanted.every(([key = "", value]) => labels[key] === value);
    return { items: deployments.filter(({ metadata }) => has(metadata.labels)) };
  };
  return { listAll } as unknown as KubeClient;
}

async function namesFound(kube: KubeClient): Promise<string[]> {
  const unread = () => {
    throw new Error("no flags");
  };
  const found = await findOperators(kube, { namespace: undefined, fallback: "berth-system" }, unread);
  return found.is === "seen" ? found.value.map(({ namespace }) => namespace) : [];
}

describe("the operators of a cluster", () => {
  test("are found with any name that the chart was given", async () => {
    const podLabels = { ...COMPONENT, "berth.dev/role": "operator" };
    const kube = cluster(
      deployment("plain", { ...COMPONENT, "app.kubernetes.io/name": "berth" }, podLabels),
      deployment("renamed", { ...COMPONENT, "app.kubernetes.io/name": "sandboxes" }, podLabels),
    );
    expect(await namesFound(kube)).toEqual(["plain", "renamed"]);
  });

  test("do not include those of other projects", async () => {
    const kube = cluster(
      deployment("database", { ...COMPONENT, "app.kubernetes.io/name": "postgres" }, COMPONENT),
      deployment("bare", COMPONENT),
      deployment("worker", { "app.kubernetes.io/name": "berth" }, { "berth.dev/role": "worker" }),
    );
    expect(await namesFound(kube)).toEqual([]);
  });
});
