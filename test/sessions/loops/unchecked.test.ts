import { expect, test } from "vitest";
import { LoopWorld, type LoopWorldOptions } from "./loop-world.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

async function started(options: LoopWorldOptions): Promise<LoopWorld> {
  const world = new LoopWorld(options);
  world.createEnvironment();
  world.startOperator();
  await world.until("Ready", () => world.conditionOf("Ready")?.status === "True", MINUTE);
  await world.pass(MINUTE);
  return world;
}

const shown = (world: LoopWorld, type: string) => {
  const { status, reason } = world.conditionOf(type) ?? {};
  return `${status} ${reason}`;
};

test("capacity and credentials are Unknown until a Pod and a work item show them", async () => {
  const world = await started({ sessions: { warm: 0 } });
  expect(shown(world, "CapacityAvailable")).toBe("Unknown CapacityUnchecked");
  expect(shown(world, "CredentialMissing")).toBe("Unknown CredentialUnchecked");
  world.enqueue();
  await world.until("a Pod has become ready", () => shown(world, "CapacityAvailable") === "True Available", MINUTE);
  await world.until(
    "an item has come with its secret",
    () => shown(world, "CredentialMissing") === "False CredentialsPresent",
    MINUTE,
  );
  // Both stay what was seen last.
  await world.until("the session has ended", () => world.podsOf("running").length === 0, 10 * MINUTE);
  await world.pass(MINUTE);
  expect(shown(world, "CapacityAvailable")).toBe("True Available");
  expect(shown(world, "CredentialMissing")).toBe("False CredentialsPresent");
});

test("capacity is Unknown again for a changed template until one of its Pods is ready", async () => {
  const world = await started({ sessions: { warm: 1 }, prepareMs: () => 20 * SECOND });
  expect(shown(world, "CapacityAvailable")).toBe("True Available");
  const template = { spec: { containers: [{ name: "worker", image: "worker:2" }] } };
  world.patchEnvironment({ spec: { sessions: { template } } });
  await world.until(
    "no Pod of the new template is ready",
    () => shown(world, "CapacityAvailable") === "Unknown CapacityUnchecked",
    10 * SECOND,
  );
  await world.until("one is ready", () => shown(world, "CapacityAvailable") === "True Available", MINUTE);
});

test("with credential: EnvironmentKey, items need no secret", async () => {
  const world = await started({ sessions: { credential: "EnvironmentKey" } });
  expect(shown(world, "CredentialMissing")).toBe("False CredentialsPresent");
});
