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
  test("the Secret is late: the key is rejected meanwhile, a session with a secret of its own goes on, and all is served after", async () => {
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

    // Its worker has credentials of its own, and ends its item with them, key or no key.
    await execIn(world, first.pod, ["touch", "go"]);
    expect(await untilAnswered(world, first.item, 1)).toEqual([["done", false]]);
    const ended = await untilState(world, first.item, "stopped");
    expect(ended.stoppedBy?.as).toBe("sessions-token");
    // And nothing was claimed with a key that is no good.
    expect(await world.simulator.item(waiting.id)).toMatchObject({ state: "queued", acks: [] });

    await world.updateKey(key);
    await world.untilCondition("Authenticated", "KeyAccepted");
    await world.untilServed(2);
    await untilSettled(world, first, "Completed");
    expect(await untilAnswered(world, waiting, 1)).toEqual([["late", false]]);
    await world.untilCondition("Ready", "Ready");
    // One of each, however often the key was tried.
    expect(world.events("KeyRejected")).toHaveLength(1);
    expect(world.events("KeyRejected")[0]).toMatchObject({ type: "Warning" });
    expect(world.events("KeyRejected")[0]?.count ?? 1).toBe(1);
    await expectCounted(world, { Completed: 2 });
  });

  test("the Secret follows at once: nothing that runs notices", async () => {
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

  test("credential: EnvironmentKey: the worker that was given the old key ends, and the operator settles its item", async () => {
    await using world = await startE2eWorld({ sessions: { credential: "EnvironmentKey" }, ttlSeconds: 90 });
    const first = await serveOne(world, { script: bashScript(UNTIL_TOLD) });
    await untilState(world, first.item, "active");
    const key = await world.simulator.rotateKey();
    // An item that was claimed before the operator knows would be given the old one.
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
