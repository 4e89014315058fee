import { describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { podOf, serveOne, untilAnswered, untilEnded, untilState } from "../support/session-life.ts";
import { type E2eOptions, startE2eWorld } from "../support/world.ts";

/** Milliseconds for which the runner waits with an idle session. It does not use BERTH_WORKER_MAX_IDLE_MS. */
const MAX_IDLE_MS = "300";

/**
 * The operator sends a heartbeat every half of it. It is long because a heartbeat may be many seconds late on a busy
 * machine.
 */
const TTL_SECONDS = 30;

/**
 * A program that does not know about work items: the SDK's session tool runner, as in examples/worker/tool-runner.mjs.
 */
const RUNNER = {
  command: ["node", "/app/tool-runner.mjs"],
  env: [{ name: "MAX_IDLE_MS", value: MAX_IDLE_MS }],
};
const WAYS: readonly (readonly [name: string, options: E2eOptions])[] = [
  ["parking Key", { container: RUNNER, sessions: { parking: "Key" } }],
  ["parking Shell", { container: RUNNER, sessions: { parking: "Shell" } }],
];

describe.concurrent.each(WAYS)("lease: Operator, with %s", (_name, { sessions, ...options }) => {
  test("a program unaware of work items serves its session, and the operator sends the heartbeats", async () => {
    await using world = await startE2eWorld({
      ...options,
      ttlSeconds: TTL_SECONDS,
      sessions: { ...sessions, lease: "Operator" },
    });
    // Longer than a lease, which would lapse with only one heartbeat.
    const served = await serveOne(world, { script: bashScript(`sleep ${TTL_SECONDS + 2}; echo awake`, "echo done") });
    const active = await untilState(world, served.item, "active");
    // The operator gets the lease before the container starts.
    expect(active.history.find(({ to }) => to === "active")?.by.as).toBe("environment-key");
    const { last } = await untilEnded(world, served, "Completed");
    expect(last).toMatchObject({ generation: 1, stoppedBy: { as: "environment-key" } });
    expect(last.beats).toBeGreaterThanOrEqual(2);
    expect(last.refusedBeats).toBe(0);
    expect(new Set(last.history.map(({ by }) => by.as))).not.toContain("sessions-token");
    expect(await untilAnswered(world, served.item, 2)).toEqual([
      ["awake", false],
      ["done", false],
    ]);
    const { toolCalls } = await world.simulator.session(served.item.sessionId ?? "");
    expect(new Set(toolCalls.map(({ answeredBy }) => answeredBy))).toEqual(new Set([served.item.id]));
    const marker = sessions?.["parking"] === "Shell" ? "berth1 started\n" : "";
    expect(await world.podLog(podOf(world, served.item) ?? served.pod)).toBe(`${marker}bash: ok\nbash: ok\n`);
    expect(await world.metric("berth_heartbeats_total", { result: "beaten" })).toBeGreaterThanOrEqual(2);
    expect(await world.metric("berth_leases_lost_total")).toBeFalsy();
  });
});
