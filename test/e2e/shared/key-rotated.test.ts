import { describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { execIn } from "../support/kubectl.ts";
import {
  enqueueOne,
  expectCounted,
  serveOne,
  untilAnswered,
  untilSettled,
  untilState,
} from "../support/session-life.ts";
import { startE2eWorld } from "../support/world.ts";

const UNTIL_TOLD = "until [ -e go ]; do sleep 0.2; done; echo done";

describe.concurrent("the environment key is rotated under a session", () => {
  test("and the Secret is updated late: the running session continues, and all are served after it", async () => {
    await using world = await startE2eWorld();
    const first = await serveOne(world, { script: bashScript(UNTIL_TOLD) });
    await untilState(world, first.item, "active");
    const key = await world.simulator.rotateKey();
    const rejected = await world.untilCondition("Authenticated", "KeyRejected");
    expect(rejected).toMatchObject({ status: "False" });
    expect(rejected.message).toContain("key");
    await world.untilCondition("Ready", "KeyRejected");
    expect(await world.metric("berth_environment_condition", { type: "Authenticated" })).toBe(0);
    const waiting = await world.simulator.enqueue(world.environmentId, { script: bashScript("echo late") });

    // The worker has its own credentials, and ends its item with them whatever the key is.
    await execIn(world, first.pod, ["touch", "go"]);
    expect(await untilAnswered(world, first.item, 1)).toEqual([["done", false]]);
    const ended = await untilState(world, first.item, "stopped");
    expect(ended.stoppedBy?.as).toBe("sessions-token");
    // The operator claims nothing with a rejected key.
    expect(await world.simulator.item(waiting.id)).toMatchObject({ state: "queued", acks: [] });

    await world.updateKey(key);
    await world.untilCondition("Authenticated", "KeyAccepted");
    await world.untilServed(2);
    await untilSettled(world, first, "Completed");
    expect(await untilAnswered(world, waiting, 1)).toEqual([["late", false]]);
    await world.untilCondition("Ready", "Ready");
    // One Event of each kind, however often the operator tried the key.
    expect(world.events("KeyRejected")).toHaveLength(1);
    expect(world.events("KeyRejected")[0]).toMatchObject({ type: "Warning" });
    expect(world.events("KeyRejected")[0]?.count ?? 1).toBe(1);
    await expectCounted(world, { Completed: 2 });
  });

  test("and the Secret is updated at once: running sessions are not affected", async () => {
    await using world = await startE2eWorld();
    const first = await serveOne(world, { script: bashScript(UNTIL_TOLD) });
    await untilState(world, first.item, "active");
    const key = await world.simulator.rotateKey();
    await world.updateKey(key);
    const second = await enqueueOne(world, { script: bashScript("echo new") });
    expect(await untilAnswered(world, second.item, 1)).toEqual([["new", false]]);
    await execIn(world, first.pod, ["touch", "go"]);
    for (const served of [first, second]) {
      const { last } = await untilSettled(world, served, "Completed");
      expect(last.stoppedBy?.as).toBe("sessions-token");
      expect(last.acks).toHaveLength(1);
    }
    await expectCounted(world, { Completed: 2 });
    await world.untilCondition("Authenticated", "KeyAccepted");
  });

  test("credential: EnvironmentKey: a worker with the old key ends, and the operator settles its item", async () => {
    await using world = await startE2eWorld({ sessions: { credential: "EnvironmentKey" }, ttlSeconds: 90 });
    const first = await serveOne(world, { script: bashScript(UNTIL_TOLD) });
    await untilState(world, first.item, "active");
    const key = await world.simulator.rotateKey();
    // An item that is claimed before the operator detects the change would get the old key.
    await world.untilCondition("Authenticated", "KeyRejected");
    await world.updateKey(key);
    await world.untilCondition("Authenticated", "KeyAccepted");
    const second = await enqueueOne(world, { script: bashScript("echo new") });
    expect(await untilAnswered(world, second.item, 1)).toEqual([["new", false]]);
    const ended = await untilState(world, first.item, "stopped");
    expect(ended.stoppedBy?.as).toBe("environment-key");
    await untilSettled(world, second, "Completed");
    await untilSettled(world, first, "Completed");
    await expectCounted(world, { Completed: 2 });
  });
});
