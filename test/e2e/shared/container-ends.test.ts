import { describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { IS_GVISOR } from "../support/isolation.ts";
import { endPodIn, ranSeconds, terminatedOf } from "../support/pods.ts";
import { serveOne, untilAnswered, untilEnded, untilState, untilWritten } from "../support/session-life.ts";
import { DEAF, IS_DEAF, LIVELY_SECONDS, NEVER, WORKER_COMMANDS } from "../support/worker-template.ts";
import { startE2eWorld } from "../support/world.ts";

/** The worker as a child of a shell, which runs these commands after the worker ends. */
const WORKER = WORKER_COMMANDS.typescript.join(" ");
const underShell = (...after: string[]) => ["sh", "-c", [WORKER, ...after].join("\n")];

/** Long enough for a worker to drain on an overloaded node. */
const PATIENT = { terminationGracePeriodSeconds: 60 };

/** TTL of leases that must not lapse within half a minute, even on an overloaded node. */
const STEADY_SECONDS = 30;

/** The session's remaining time. It covers two heartbeats, the first of which shows that the worker holds the lease. */
const MORE_SECONDS = 35;

/** Runs in a tool, which is a child of the worker. */
const KILL_THE_WORKER = "kill -9 $PPID";

describe.concurrent("the end of the stock worker's container", () => {
  test("after the platform asks it to stop: the worker drains, stops its item and exits", async () => {
    await using world = await startE2eWorld({ ttlSeconds: LIVELY_SECONDS, maxIdleMs: NEVER, podSpec: PATIENT });
    const served = await serveOne(world, { script: bashScript("echo hello") });
    await untilAnswered(world, served.item, 1);
    await world.simulator.stopItem(served.item.id);
    const { last } = await untilEnded(world, served, "Completed");
    expect(last.history.map(({ event }) => event)).toContain("stop requested");
    expect(last.stoppedBy?.as).toBe("sessions-token");
    expect(terminatedOf(world, served)).toMatchObject({ exitCode: 0, reason: "Completed" });
    expect(world.history(served.pod).some(({ metadata }) => metadata.deletionTimestamp)).toBe(false);
  });

  test("a tool cannot kill a worker that is the container's first process, except with gVisor", async () => {
    await using world = await startE2eWorld();
    const served = await serveOne(world, { script: bashScript(KILL_THE_WORKER, "echo still here") });
    if (IS_GVISOR) {
      const { message } = await untilEnded(world, served, "Killed");
      expect(message).toContain("exit code 137");
      return;
    }
    await untilEnded(world, served, "Completed");
    expect(await untilAnswered(world, served.item, 2)).toEqual([
      ["(no output)", false],
      ["still here", false],
    ]);
  });

  test("when it is killed from inside: its item is stopped, and the exit code is reported", async () => {
    await using world = await startE2eWorld({ podSpec: { shareProcessNamespace: true } });
    const served = await serveOne(world, { script: bashScript(KILL_THE_WORKER) });
    const { last, message } = await untilEnded(world, served, "Killed");
    expect(message).toContain("exit code 137");
    expect(last.stoppedBy?.as).toBe("environment-key");
    expect(terminatedOf(world, served)).toMatchObject({ exitCode: 137, reason: "Error" });
  });

  test("when it crashes: the Event of a failed program has its last lines, and the item is stopped", async () => {
    const command = underShell("echo 'the model is gone' >&2", "exit 3");
    await using world = await startE2eWorld({ container: { command } });
    const served = await serveOne(world, { script: bashScript(KILL_THE_WORKER) });
    const { last, message } = await untilEnded(world, served, "Failed");
    expect(message).toMatch(/exit code 3: (.*\n)*the model is gone/);
    expect(last.stoppedBy?.as).toBe("environment-key");
    // The worker served a session, so nothing is wrong with the template.
    expect(world.condition("SessionsStarting")?.reason).toBe("Starting");
  });

  test("with exit code 0 but without a stop: the operator stops the item", async () => {
    await using world = await startE2eWorld({ container: { command: underShell("exit 0") } });
    const served = await serveOne(world, { script: bashScript(KILL_THE_WORKER) });
    const { last } = await untilEnded(world, served, "Completed");
    expect(last.stoppedBy?.as).toBe("environment-key");
  });

  test("when it crashes before the first heartbeat: the item is stopped at once, as a failed start", async () => {
    const command = ["sh", "-c", "echo 'no such model' > /dev/termination-log; exit 3"];
    await using world = await startE2eWorld({ container: { command } });
    const served = await serveOne(world);
    const { last, message } = await untilEnded(world, served, "Failed");
    expect(message).toContain("exit code 3: no such model");
    expect(last.beats).toBe(1);
    expect(last.stoppedBy?.as).toBe("environment-key");
    expect(await world.metric("berth_start_failures_total")).toBe(1);
  });

  test("with exit code 0 before any heartbeat: it is reported as a program that sends none", async () => {
    await using world = await startE2eWorld({ container: { command: ["true"] } });
    const served = await serveOne(world);
    const { last, message } = await untilEnded(world, served, "NoFirstBeat");
    expect(message).toContain("lease: Operator");
    expect(last.stoppedBy?.as).toBe("environment-key");
  });
});

describe.concurrent("a program that ignores SIGTERM", () => {
  const podSpec = { terminationGracePeriodSeconds: 3 };

  test("is killed after its grace period, and keeps its lease until then, with lease: Operator", async () => {
    await using world = await startE2eWorld({ sessions: { lease: "Operator" }, container: { command: DEAF }, podSpec });
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    await untilWritten(world, served.pod, IS_DEAF);
    await world.simulator.stopItem(served.item.id);
    const { last, message } = await untilEnded(world, served, "StoppedByUser");
    expect(last.stoppedBy?.as).toBe("environment-key");
    expect(message).toContain(last.id);
    expect(terminatedOf(world, served)).toMatchObject({ exitCode: 137 });
    const killedAt = Date.parse(terminatedOf(world, served)?.finishedAt ?? "");
    // The kubelet reports whole seconds.
    expect(last.history.at(-1)?.at).toBeGreaterThanOrEqual(killedAt);
  });

  test("outlives its item by at most its grace period, with lease: Worker", async () => {
    // The worker receives the stop and exits; its container does not.
    const command = ["sh", "-c", `trap '' TERM; ${WORKER}; exec sleep 1000000`];
    await using world = await startE2eWorld({
      ttlSeconds: STEADY_SECONDS,
      maxIdleMs: NEVER,
      container: { command },
      podSpec,
    });
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    await world.patchSpec({ sessions: { maxDurationSeconds: (await ranSeconds(world, served)) + MORE_SECONDS } });
    const { last } = await untilEnded(world, served, "MaxDuration");
    expect(last.history.map(({ event }) => event)).toContain("stop requested");
    expect(terminatedOf(world, served)).toMatchObject({ exitCode: 137 });
  });
});

describe.concurrent("a session exceeds its time limit", () => {
  test("maxDurationSeconds: the worker is told to stop, and exits", async () => {
    await using world = await startE2eWorld({ ttlSeconds: STEADY_SECONDS, maxIdleMs: NEVER, podSpec: PATIENT });
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    await world.patchSpec({ sessions: { maxDurationSeconds: (await ranSeconds(world, served)) + MORE_SECONDS } });
    const { last, message } = await untilEnded(world, served, "MaxDuration");
    expect(message).toContain("maxDurationSeconds");
    expect(last.history.map(({ event }) => event)).toContain("stop requested");
    expect(last.stoppedBy?.as).toBe("sessions-token");
    expect(terminatedOf(world, served)).toMatchObject({ exitCode: 0 });
  });

  test("the Pod's own deadline: the kubelet ends the Pod without an operator, and it is reported", async () => {
    await using world = await startE2eWorld({ maxIdleMs: NEVER });
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    await endPodIn(world, served.pod, 2);
    const { message } = await untilEnded(world, served, "DeadlineExceeded");
    expect(message).toMatch(/active.*deadline/i);
  });
});
