import { expect, test } from "vitest";
import type { Pod } from "../../../src/kube/resource.ts";
import { refusal } from "./api-server.ts";
import type { Operator } from "./loop-world.ts";
import { sleepyWorld, TEMPLATE } from "./sleepy-world.ts";

const LIMITS = { limits: { memory: "2Gi" } };
/** As an API server whose admission injects a sidecar with requests. */
const NO_ROOM =
  'spec.resources.requests[memory]: Invalid value: "256Mi": must be greater than or equal to aggregate container requests of 384Mi';

/** Refuses Pods with limits of the whole Pod. @returns whether each Pod that was sent had such limits */
function refuseLimits({ kube }: Operator, error: () => Error = () => refusal(422, "Invalid", NO_ROOM)): boolean[] {
  const sent: boolean[] = [];
  kube.intercept.push(({ verb, plural, body, dryRun }) => {
    if (verb !== "create" || plural !== "pods" || dryRun) return;
    const isLimited = (body as Pod).spec["resources"] !== undefined;
    sent.push(isLimited);
    if (isLimited) throw error();
  });
  return sent;
}

const resourcesOf = (pods: readonly Pod[]) => pods.map(({ spec }) => spec["resources"]);

test("a Pod whose session can sleep has the limits of its container, for its turns", async () => {
  const { world, serve } = await sleepyWorld();
  await serve();
  expect(resourcesOf(world.podsOf("sleeping"))).toEqual([LIMITS]);
});

test.each([
  ["the API server", () => refusal(422, "Invalid", NO_ROOM)],
  ["a policy", () => refusal(403, "Forbidden", "Pods must not have resources")],
  ["a webhook", () => refusal(400, "BadRequest", "Pods must not have resources")],
])("Pods that %s refuses with limits of the whole Pod are created without, and sleep", async (_, error) => {
  const { world, operator, serve, nameOf } = await sleepyWorld({ sessions: { warm: 0 } });
  const sent = refuseLimits(operator, error);
  const sessionId = await serve();
  const name = nameOf(sessionId);
  expect(resourcesOf(world.podsOf("sleeping"))).toEqual([undefined]);
  await serve(sessionId);
  expect(nameOf(sessionId)).toBe(name);
  await serve();
  // Not tried again with the same template.
  expect([sent[0], sent.lastIndexOf(true)]).toEqual([true, 0]);
  const before = sent.length;
  const [container] = TEMPLATE.spec.containers;
  const template = { spec: { ...TEMPLATE.spec, containers: [{ ...container, image: "worker:2" }] } };
  world.patchEnvironment({ spec: { sessions: { template, warm: 1 } } });
  await world.until("a Pod of the new template is created", () => sent.length >= before + 2);
  expect(sent.slice(before)).toEqual([true, false]);
});

test("a Pod that is refused in any case is not sent without limits", async () => {
  const { world, operator } = await sleepyWorld({ sessions: { warm: 0 } });
  const quota = () => refusal(403, "Forbidden", "exceeded quota: pods, requested: pods=1");
  const fault = () => refusal(500, "InternalError", "etcdserver: request timed out");
  for (const error of [quota, fault]) {
    const sent = refuseLimits(operator, error);
    const item = world.enqueue();
    await world.until("two tries were refused", () => sent.length >= 2);
    expect(sent).not.toContain(false);
    operator.kube.intercept.splice(0);
    await world.until("the item is served", () => world.item(item).state === "stopped" && world.isSettled, 600_000);
  }
});
