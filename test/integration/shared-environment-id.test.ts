import { expect, test } from "vitest";
import { findCondition } from "../../src/api/conditions.ts";
import { LABEL_ENVIRONMENT } from "../../src/api/names.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { useCluster } from "../support/cluster.ts";
import { startWorld, type World } from "../support/world.ts";

const cluster = useCluster();

const ITEMS = 40;
/** Far more than that many items take on a busy machine. */
const PATIENCE_MS = 150_000;

/** Creates two Environments with one id. Returns the names of the one that should be served, and of the other one. */
async function createBoth(world: World): Promise<string[]> {
  await world.createEnvironment();
  const metadata = { namespace: world.namespace, name: "second" };
  await world.kube.create(ENVIRONMENTS, { metadata, spec: world.spec() } as never);
  const { items } = await world.kube.listAll(ENVIRONMENTS, { namespace: world.namespace });
  const rank = ({ metadata: of }: (typeof items)[number]) => `${of.creationTimestamp} ${of.uid}`;
  return items.toSorted((a, b) => (rank(a) < rank(b) ? -1 : 1)).map(({ metadata: { name } }) => name);
}

function untilReady(world: World, name: string, reason: string) {
  return world.until(`${name} is ${reason}`, async () => {
    const { status } = await world.kube.get(ENVIRONMENTS, { namespace: world.namespace, name });
    const found = findCondition(status?.conditions, "Ready");
    return found?.reason === reason && found;
  });
}

test("of two Environments with one environmentId, the younger serves what is left after the older is deleted", {
  timeout: 240_000,
}, async () => {
  await using world = await startWorld(cluster, {
    sessions: { warm: 2, maxConcurrent: 4 },
    node: { fates: () => ({ kind: "worker", workMs: { min: 50, max: 400 } }) },
  });
  const [served = "", other = ""] = await createBoth(world);
  world.startOperator();
  expect((await untilReady(world, other, "EnvironmentIdShared")).message).toContain(`${world.namespace}/${served}`);
  for (let item = 0; item < ITEMS; item += 1) world.simulator.enqueue(world.environmentId);
  await world.until("some items are served", () => world.claims.length > 0);
  const working = () => new Set(world.claims.map(({ metadata }) => metadata.labels?.[LABEL_ENVIRONMENT]));
  expect(working()).toEqual(new Set([served]));
  await world.kube.delete(ENVIRONMENTS, { namespace: world.namespace, name: served });
  await world.until("the other one has claims", () => working().has(other), PATIENCE_MS);
  expect(working()).toEqual(new Set([other]));
  const items = () => world.simulator.items(world.environmentId);
  await world.until(
    "all items are served and settled",
    () => items().every(({ state }) => state === "stopped") && world.claims.length === 0,
    PATIENCE_MS,
  );
  expect(items().map(({ acks }) => acks.length)).toEqual(Array(ITEMS).fill(1));
  world.simulator.assertNoViolations();
  await untilReady(world, other, "Ready");
});
