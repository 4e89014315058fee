import { expect, test } from "vitest";
import { refusal } from "./api-server.ts";
import { LoopWorld } from "./loop-world.ts";

const MINUTE = 60_000;

/** Answers to the deletion of a finished Pod; later requests succeed. */
test.each([
  ["a conflict, although it is the right Pod", refusal(409, "Conflict", "the object has been modified")],
  ["an error", refusal(500, "InternalError", "etcd has no leader")],
  ["NotFound, although it exists", refusal(404, "NotFound", "pods not found")],
])("retries the deletion of a finished Pod after %s", async (_what, answer) => {
  const world = new LoopWorld({ sessions: { maxConcurrent: 2, warm: 0, retainEndedSeconds: 0 } });
  world.createEnvironment();
  const refused: string[] = [];
  world.startOperator().kube.intercept.push(({ verb, plural, name }) => {
    if (verb !== "delete" || plural !== "pods" || refused.length > 0) return;
    refused.push(name);
    throw answer;
  });
  const id = world.enqueue();
  await world.until(
    "the item is stopped and its claim is settled",
    () => world.item(id).state === "stopped" && world.claims.length === 0,
    10 * MINUTE,
  );
  await world.until("no Pod is left", () => world.pods.length === 0, 5 * MINUTE);
  expect(refused).toHaveLength(1);
  expect(world.violations).toEqual([]);
});

test("deletes a Pod whose finished mark met a conflict", async () => {
  const world = new LoopWorld({ sessions: { maxConcurrent: 2, warm: 0, retainEndedSeconds: 3_600 } });
  world.createEnvironment();
  const refused: string[] = [];
  world.startOperator().kube.intercept.push(({ verb, plural, name, body }) => {
    if (verb !== "patch" || plural !== "pods" || !JSON.stringify(body).includes('"ended"')) return;
    refused.push(name);
    throw refusal(409, "Conflict", "the object has been modified");
  });
  const id = world.enqueue();
  await world.until(
    "the item is stopped and its claim is settled",
    () => world.item(id).state === "stopped" && world.claims.length === 0,
    10 * MINUTE,
  );
  expect(refused).toHaveLength(1);
  await world.until("no Pod is left", () => world.pods.length === 0, 5 * MINUTE);
  expect(world.violations).toEqual([]);
});
