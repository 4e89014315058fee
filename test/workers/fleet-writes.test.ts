import { expect, test } from "vitest";
import { NO_POINTS } from "../../src/core/points.ts";
import type { Deployment } from "../../src/kube/resource.ts";
import type { WorkersContext } from "../../src/workers/context.ts";
import { Fleet } from "../../src/workers/fleet.ts";
import { FakeKube } from "../reconcile/fake-kube.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const DEPLOYMENT = {
  metadata: { name: "berth-research-1", namespace: "agents", uid: "d1", generation: 1 },
  spec: { replicas: 3, selector: {}, template: { spec: { containers: [] } } },
} satisfies Deployment;

function fleet() {
  const kube = new FakeKube(() => DEPLOYMENT);
  const context = { namespace: "agents", points: NO_POINTS, clock: new VirtualClock(), kube: kube.client };
  return { kube, fleet: new Fleet(context as unknown as WorkersContext) };
}

test("a Deployment is scaled only if it is the same one, with as many workers as when that was decided", async () => {
  const { kube, fleet: writes } = fleet();
  await writes.scale(DEPLOYMENT, 1);
  expect(kube.calls).toMatchObject([
    {
      verb: "patch",
      query: { type: "json" },
      body: [
        { op: "test", path: "/metadata/uid", value: "d1" },
        { op: "test", path: "/spec/replicas", value: 3 },
        { op: "replace", path: "/spec/replicas", value: 1 },
      ],
    },
  ]);
});

test("a Deployment is deleted by its uid, with its Pods first", async () => {
  const { kube, fleet: writes } = fleet();
  await writes.remove(DEPLOYMENT);
  expect(kube.calls).toMatchObject([{ verb: "delete", query: { uid: "d1", propagationPolicy: "Foreground" } }]);
});
