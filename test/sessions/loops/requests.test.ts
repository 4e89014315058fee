import { describe, expect, test } from "vitest";
import { LABEL_PHASE } from "../../../src/api/names.ts";
import { type KubeObject, PODS } from "../../../src/kube/resource.ts";
import { refusal } from "./api-server.ts";
import type { Interceptor } from "./kube.ts";
import { LoopWorld, NAMESPACE } from "./loop-world.ts";

const MINUTE = 60_000;
const KEPT_SECONDS = 60;

const CLAIM = ["create secrets", "get pods", "patch secrets", "patch pods"];

/** The API requests of one session from claim to cleanup, in order. The request for a new Pod is separate. */
const BUDGET = [
  [0, [...CLAIM, "delete secrets", "delete pods"]],
  [KEPT_SECONDS, [...CLAIM, "delete secrets", "patch pods", "delete pods"]],
] as const;

describe.each(["Worker", "Operator"])("lease: %s", (lease) => {
  test.each(BUDGET)("a Pod that is retained for %i s costs only the necessary requests", async (seconds, budget) => {
    const world = new LoopWorld({
      sessions: { lease, warm: 1, maxConcurrent: 2, retainEndedSeconds: seconds },
      // A second touch is only needed when the kubelet sees the first one before the key, which happens by chance.
      timing: { touchAgainMs: [MINUTE] },
    });
    world.createEnvironment();
    const operator = world.startOperator();
    await serve(world);
    const asked: string[] = [];
    operator.kube.intercept.push(({ verb, plural, name }) => {
      // Requests for the environment key and the status depend on time, not on sessions.
      if (name === "key" || plural === "environments" || verb === "watch") return;
      asked.push(`${verb} ${plural}`);
    });
    const told = world.told.length;
    await serve(world);

    expect(asked.filter((request) => request !== "create pods")).toEqual(budget);
    expect(asked.filter((request) => request === "create pods")).toHaveLength(1);
    expect(world.told.slice(told).map((event) => event.split(":")[0])).toEqual(["SessionStarted", "Completed"]);
    expect(world.violations).toEqual([]);
  });
});

/** Serves one item, from its arrival until it is cleaned up and a Pod is parked. */
async function serve(world: LoopWorld): Promise<void> {
  await world.until("a Pod is parked", () => world.parked.length === 1, MINUTE);
  const id = world.enqueue();
  await world.until(
    "the item is stopped and its claim is settled",
    () => world.item(id).state === "stopped" && world.claims.length === 0,
    10 * MINUTE,
  );
  const isClean = () => world.pods.length === 1 && world.parked.length === 1;
  await world.until("nothing is left of the session", isClean, 10 * MINUTE);
}

describe("a Pod that is not retained", () => {
  async function served(intercept: (world: LoopWorld) => Interceptor): Promise<{ world: LoopWorld; asked: string[] }> {
    const world = new LoopWorld({ sessions: { warm: 0, maxConcurrent: 2, retainEndedSeconds: 0 } });
    world.createEnvironment();
    const asked: string[] = [];
    const operator = world.startOperator();
    operator.kube.intercept.push(({ verb, plural }) => {
      if (plural === "pods" && verb !== "watch") asked.push(verb);
    });
    operator.kube.intercept.push(intercept(world));
    const id = world.enqueue();
    await world.until("the item is stopped", () => world.item(id).state === "stopped", 10 * MINUTE);
    await world.until("no Pod is left", () => world.pods.length === 0, 10 * MINUTE);
    expect(world.violations).toEqual([]);
    return { world, asked };
  }

  test.each([
    ["once: deleted with the version from the watch", 1, ["delete", "delete"]],
    ["twice: deleted after a live read", 2, ["delete", "delete", "get", "delete"]],
  ])("that changed before its deletion, %s", async (_, times, expected) => {
    let changes = 0;
    const { asked } = await served((world) => ({ verb, plural, name }) => {
      if (verb !== "delete" || plural !== "pods" || changes === times) return;
      changes += 1;
      world.server.patch(PODS, NAMESPACE, name, { metadata: { annotations: { changes: String(changes) } } });
    });
    expect(asked.slice(asked.indexOf("delete"))).toEqual(expected);
  });

  test("is marked as finished although its touch was refused, or it would count as free", async () => {
    const phases: unknown[] = [];
    const { world } = await served(() => ({ verb, plural, body }) => {
      if (verb !== "patch" || plural !== "pods") return;
      const phase = (body as KubeObject).metadata.labels?.[LABEL_PHASE];
      phases.push(phase);
      if (phase === "running") throw refusal(422, "Invalid", "a webhook does not like it");
    });
    expect(phases).toContain("ended");
    expect(await world.metrics.prepareFailures.get()).toMatchObject({ values: [] });
  });
});

test("Pods that were just marked do not look left behind when watches lag", async () => {
  const world = new LoopWorld({ sessions: { warm: 3, maxConcurrent: 6, retainEndedSeconds: 60 } });
  world.weather.watch = { lagMs: 1_000, breaks: 0 };
  world.createEnvironment();
  const read: string[] = [];
  world.startOperator().kube.intercept.push(({ verb, plural, name }) => {
    if (verb === "get" && plural === "secrets" && name !== "key") read.push(name);
  });
  await world.until("Pods are parked", () => world.parked.length === 3, MINUTE);
  for (let sent = 0; sent < 6; sent += 1) {
    world.enqueue();
    await world.pass(300);
  }
  await world.until("six finished Pods are kept", () => world.podsOf("ended").length === 6, 10 * MINUTE);
  expect(read).toEqual([]);
  expect(world.violations).toEqual([]);
});
