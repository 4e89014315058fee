import { expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { NODES } from "../../../src/kube/resource.ts";
import { serveOne, untilAnswered, untilEnded } from "../support/session-life.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

/** Whether the default runtime of all nodes can give a Pod its own user namespace. */
async function hasUserNamespaces({ kube }: E2eWorld): Promise<boolean> {
  interface Status {
    readonly runtimeHandlers?: readonly { readonly name?: string; readonly features?: { userNamespaces?: boolean } }[];
  }
  const { items } = await kube.list(NODES, {});
  return items.every(({ status }) => {
    const { runtimeHandlers = [] } = (status ?? {}) as Status;
    return runtimeHandlers.some(({ name = "", features }) => name === "" && features?.userNamespaces === true);
  });
}

test("hostUsers: false maps a session's users to others of the node, or the condition says why not", async () => {
  await using world = await startE2eWorld({ podSpec: { hostUsers: false } });
  if (!(await hasUserNamespaces(world))) {
    await world.createEnvironment();
    const { message } = await world.untilCondition("CapacityAvailable", "PreparationFailing");
    expect(message).toMatch(/FailedCreatePodSandBox: .*user namespaces/i);
    return;
  }
  const served = await serveOne(world, { script: bashScript("cat /proc/self/uid_map", "echo hello >file; cat file") });
  await untilEnded(world, served, "Completed");
  const [map, file] = await untilAnswered(world, served.item, 2);
  const [inside, outside, count] = (map?.[0] ?? "").trim().split(/\s+/).map(Number);
  expect({ inside, count }).toEqual({ inside: 0, count: 65_536 });
  expect(outside).toBeGreaterThanOrEqual(65_536);
  expect(file).toEqual(["hello", false]);
});
