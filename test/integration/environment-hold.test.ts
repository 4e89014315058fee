import { expect, test } from "vitest";
import { FINALIZER } from "../../src/api/names.ts";
import { NO_POINTS, type Points } from "../../src/core/points.ts";
import { ENVIRONMENTS, EnvironmentFinalizer } from "../../src/reconcile/finalizer.ts";
import { useCluster } from "../support/cluster.ts";
import { startWorld } from "../support/world.ts";

// Tests against a real API server how it handles the patch that adds the finalizer.
const cluster = useCluster();

/**
 * An Environment without an operator, and its finalizer hold. `between` runs once, after the read and before the patch.
 */
async function startHold(between: (ref: { namespace: string; name: string }) => Promise<unknown>) {
  const world = await startWorld(cluster);
  await world.createEnvironment();
  const { kube, namespace, name } = world;
  const ref = { namespace, name };
  const { uid } = (await kube.get(ENVIRONMENTS, ref)).metadata;
  const asked: string[] = [];
  const points: Points = {
    ...NO_POINTS,
    async run(point, _subject, request) {
      asked.push(point);
      if (point === "environment.hold" && asked.length === 2) await between(ref);
      return await request();
    },
  };
  const hold = new EnvironmentFinalizer({ kube, points, namespace, name, uid });
  const finalizers = async () => (await kube.get(ENVIRONMENTS, ref)).metadata.finalizers;
  return { world, hold, asked, finalizers };
}

test("adds the finalizer on the first try while a status is written", async () => {
  const { world, hold, asked, finalizers } = await startHold((ref) =>
    world.kube.patch(
      ENVIRONMENTS,
      ref,
      { status: { observedGeneration: 1 } },
      { type: "merge", subresource: "status" },
    ),
  );
  await using _ = world;
  expect(await hold.hold()).toBe(true);
  expect(asked).toEqual(["environment.read", "environment.hold"]);
  expect(await finalizers()).toEqual([FINALIZER]);
});

test("keeps a finalizer that another client adds meanwhile", async () => {
  const { world, hold, asked, finalizers } = await startHold((ref) =>
    world.kube.patch(ENVIRONMENTS, ref, { metadata: { finalizers: ["example.org/theirs"] } }, { type: "merge" }),
  );
  await using _ = world;
  expect(await hold.hold()).toBe(true);
  expect(asked.filter((point) => point === "environment.hold")).toHaveLength(2);
  expect(await finalizers()).toEqual(["example.org/theirs", FINALIZER]);
  await world.kube.patch(ENVIRONMENTS, world, { metadata: { finalizers: null } }, { type: "merge" });
});

test("does not hold an Environment that is deleted meanwhile", async () => {
  const { world, hold } = await startHold(async (ref) => {
    await world.kube.patch(ENVIRONMENTS, ref, { metadata: { finalizers: ["example.org/theirs"] } }, { type: "merge" });
    await world.kube.delete(ENVIRONMENTS, ref);
  });
  await using _ = world;
  expect(await hold.hold()).toBe(false);
  await world.kube.patch(ENVIRONMENTS, world, { metadata: { finalizers: null } }, { type: "merge" });
});
