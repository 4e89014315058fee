import { describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { IS_GVISOR } from "../support/isolation.ts";
import { terminatedOf } from "../support/pods.ts";
import { serveOne, untilAnswered, untilEnded } from "../support/session-life.ts";
import { startE2eWorld } from "../support/world.ts";

/** The stock worker alone needs about 100 MiB. */
const resources = { requests: { memory: "64Mi" }, limits: { memory: "192Mi" } };

/** A process that keeps everything it reads, until the kernel ends it. */
const EAT = "tail /dev/zero";

/** A worker that uses up its memory once a tool creates this file. */
const HUNGRY_WORKER = [
  'import("/app/worker.mjs");',
  'import { existsSync } from "node:fs";',
  "const eaten = [];",
  'const eat = () => existsSync("hungry") && eaten.push(Buffer.alloc(1 << 25, 1));',
  "setInterval(eat, 20);",
].join("\n");

describe.concurrent("a container reaches its memory limit", () => {
  test("through the worker: its container ends, the limit to raise is reported, and its item is stopped", async () => {
    const command = ["node", "--input-type=module", "-e", HUNGRY_WORKER];
    await using world = await startE2eWorld({ container: { command, resources } });
    const served = await serveOne(world, { script: bashScript("touch hungry; sleep 600") });
    const { last, message } = await untilEnded(world, served, "OOMKilled");
    expect(message).toContain("more memory than its limit");
    expect(last.stoppedBy?.as).toBe("environment-key");
    // With gVisor, all containers of the Pod end.
    const exitCode = IS_GVISOR ? 128 : 137;
    expect(terminatedOf(world, served)).toMatchObject({ exitCode, reason: "OOMKilled" });
    expect(world.condition("SessionsStarting")?.reason).toBe("Starting");
  });

  test("through a tool: only the tool ends, and the session completes, or with gVisor ends like its Pod", async () => {
    await using world = await startE2eWorld({ container: { resources } });
    const served = await serveOne(world, { script: bashScript(EAT, "echo still here") });
    if (IS_GVISOR) {
      const { last, message } = await untilEnded(world, served, "OOMKilled");
      expect(message).toContain("more memory than its limit");
      expect(last.stoppedBy?.as).toBe("environment-key");
      return;
    }
    const { last } = await untilEnded(world, served, "Completed");
    expect(last.stoppedBy?.as).toBe("sessions-token");
    const [eaten, after] = await untilAnswered(world, served.item, 2);
    expect(eaten?.[1]).toBe(true);
    expect(after).toEqual(["still here", false]);
    expect(terminatedOf(world, served)).toMatchObject({ exitCode: 0 });
  });
});
