import { expect, test } from "vitest";
import { seededRandom } from "../../simulator/ids.ts";
import { KubeApiError } from "../../src/kube/errors.ts";
import { FleetWorld } from "./fleet-world.ts";

const SECOND_MS = 1_000;

/** In the words and under the status of a ValidatingAdmissionPolicy, whose reason is Invalid unless it says another. */
const REFUSED = new KubeApiError(
  "create deployments agents/x: deployments.apps \"x\" is forbidden: ValidatingAdmissionPolicy 'images' denied request: no image of this registry",
  { status: 422, reason: "Invalid" },
);
/** As the API server refuses a patch whose test failed. */
const CHANGED = new KubeApiError("patch deployments agents/x: the server rejected our request", {
  status: 422,
  reason: "Invalid",
});
const TAKEN = new KubeApiError('create deployments agents/x: deployments.apps "x" already exists', {
  status: 409,
  reason: "AlreadyExists",
});

/** One whose Deployments the API server refuses so. */
function refusing(error: KubeApiError): FleetWorld {
  const world = new FleetWorld(seededRandom(5), { minReplicas: 1, maxReplicas: 2 });
  world.refusal = error;
  world.start();
  return world;
}

/** From now on the API server takes Deployments: there is one, and nothing is said of it any more. Ends the world. */
async function expectTakenWithin(ms: number, world: FleetWorld): Promise<void> {
  world.refusal = null;
  await world.run(ms);
  expect({ replicas: Object.values(world.replicas), said: world.saidOf("ScalingFailed") }).toEqual({
    replicas: [1],
    said: undefined,
  });
  await world.stop();
}

test("says what a policy of the cluster has against the Deployment, until it takes it", async () => {
  const world = refusing(REFUSED);
  await world.run(30 * SECOND_MS);
  expect(world.saidOf("ScalingFailed")).toContain("ValidatingAdmissionPolicy 'images' denied request");
  await expectTakenWithin(60 * SECOND_MS, world);
});

test("says nothing of a Deployment that somebody else changed at the same moment", async () => {
  const world = refusing(CHANGED);
  await world.run(SECOND_MS);
  expect(world.saidOf("ScalingFailed")).toBeUndefined();
  await expectTakenWithin(10 * SECOND_MS, world);
});

test("says that the name is taken, by a Deployment that is being deleted or is not the Environment's any more", async () => {
  const world = refusing(TAKEN);
  await world.run(SECOND_MS);
  expect(world.saidOf("ScalingFailed")).toBeUndefined();
  await world.run(30 * SECOND_MS);
  expect(world.saidOf("ScalingFailed")).toContain("already exists");
  await expectTakenWithin(60 * SECOND_MS, world);
});
