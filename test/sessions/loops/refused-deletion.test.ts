import { expect, test } from "vitest";
import { refusal } from "./api-server.ts";
import { LoopWorld } from "./loop-world.ts";

const MINUTE = 60_000;

/** A world whose API server answers the first deletions of one resource with a conflict, as it may for a mere race. */
async function conflicting(plural: "pods" | "secrets", sessions: Record<string, unknown>) {
  const world = new LoopWorld({
    sessions: { maxConcurrent: 4, warm: 2, ...sessions },
    timing: { warmScaleDownMs: 1_000 },
  });
  world.createEnvironment();
  const { kube } = world.startOperator();
  await world.until("two Pods are parked", () => world.parked.length === 2);
  let left = 3;
  kube.intercept.push((call) => {
    if (call.verb !== "delete" || call.plural !== plural || left === 0) return;
    left -= 1;
    throw refusal(
      409,
      "Conflict",
      `Operation cannot be fulfilled on ${plural} "${call.name}": the object was modified`,
    );
  });
  return { world, refused: () => 3 - left };
}

test.each(["pods", "secrets"] as const)("deletes a free Pod despite conflicts when %s are deleted", async (plural) => {
  const { world, refused } = await conflicting(plural, {});
  world.patchEnvironment({ spec: { sessions: { warm: 0 } } });
  await world.until(
    "no Pod and no claim is left",
    () => world.pods.length === 0 && world.claims.length === 0,
    5 * MINUTE,
  );
  expect(refused()).toBe(3);
  expect([...world.wrongs, ...world.violations]).toEqual([]);
});

test.each(["pods", "secrets"] as const)("deletes a session's Pod and claim despite conflicts on %s", async (plural) => {
  const { world, refused } = await conflicting(plural, { retainEndedSeconds: 0 });
  const id = world.enqueue();
  await world.until("the item is stopped", () => world.item(id).state === "stopped", MINUTE);
  const isClean = () => world.claims.length === 0 && world.podsOf("running").length === 0 && world.pods.length === 2;
  await world.until("nothing is left", isClean, 5 * MINUTE);
  expect(refused()).toBe(3);
  expect([...world.wrongs, ...world.violations]).toEqual([]);
});
