import { expect, test } from "vitest";
import { LABEL_ROLE } from "../../../src/api/names.ts";
import type { Pod } from "../../../src/kube/resource.ts";
import { LoopWorld } from "./loop-world.ts";

test("deletes Pods that lose their labels at creation, and names the fix in a condition", async () => {
  const world = new LoopWorld({ sessions: { maxConcurrent: 4, warm: 2 } });
  world.createEnvironment();
  const { kube } = world.startOperator();
  kube.intercept.push(({ verb, plural, body }) => {
    if (verb === "create" && plural === "pods") delete (body as Pod).metadata.labels?.[LABEL_ROLE];
  });
  const told = () => JSON.stringify(world.environment?.status ?? {});
  await world.until("the condition reports the changed labels", () =>
    told().includes(`changes the labels ${LABEL_ROLE} of new Pods`),
  );
  expect(told()).toContain("exclude labels that begin with berth.dev/ from it");
  await world.until("no Pod is left behind", () => world.pods.length === 0);

  kube.intercept.splice(0);
  await world.until("two Pods are parked", () => world.parked.length === 2, 10 * 60_000);
  expect(told()).not.toContain("changes the labels");
  expect([...world.wrongs, ...world.violations]).toEqual([]);
});
