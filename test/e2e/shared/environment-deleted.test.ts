import { describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { FINALIZER } from "../../../src/api/names.ts";
import { isNotFound } from "../../../src/kube/errors.ts";
import type { Pod } from "../../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { execIn } from "../support/kubectl.ts";
import { podOf, serveOne, untilAnswered, untilState, untilTold, untilWritten } from "../support/session-life.ts";
import { DEAF, IS_DEAF, NEVER, SOON } from "../support/worker-template.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

/**
 * Gives a heartbeat every 10 s, so a worker receives a stop within the minute that a drain has beyond its grace period.
 */
const TTL_SECONDS = 20;

/** Waits until the Environment and everything that Berth created for it are gone. */
async function untilNothingIsLeft(world: E2eWorld): Promise<void> {
  await world.until("the Environment is gone, with its Pods and claims", async () => {
    if (world.pods.length > 0 || world.claims.length > 0) return false;
    try {
      await world.kube.get(ENVIRONMENTS, { namespace: world.namespace, name: world.name });
      return false;
    } catch (error) {
      if (!isNotFound(error)) throw error;
      return true;
    }
  });
  await world.simulator.assertNoViolations();
}

/** How the session's container ended, according to the kubelet's last report. */
function endOf(pod: Pod | undefined) {
  return pod?.status?.containerStatuses?.[0]?.state?.terminated;
}

const finalizers = (world: E2eWorld) => world.environment?.metadata.finalizers ?? [];

describe.concurrent("a busy Environment that is deleted", () => {
  test("waits for a session that ends in time, and claims nothing more", async () => {
    await using world = await startE2eWorld({ spec: { deletionGraceSeconds: 100 }, maxIdleMs: SOON });
    // Continues only when the test tells it to, when the drain is in progress.
    const { item, pod } = await serveOne(world, {
      script: bashScript("until [ -e go ]; do sleep 0.2; done; echo done"),
    });
    await untilState(world, item, "active");
    await world.until("it is held", () => finalizers(world).length > 0);
    expect(finalizers(world)).toEqual([FINALIZER]);
    await world.deleteEnvironment();
    const deleting = await world.untilCondition("Ready", "Deleting");
    expect(deleting.status).toBe("False");
    const late = await world.simulator.enqueue(world.environmentId);
    await world.until("only the session's Pod is left", () => world.pods.length === 1);
    expect((await world.simulator.item(item.id)).state).toBe("active");
    await execIn(world, pod, ["touch", "go"]);
    await untilTold(world, item, "Completed", "Pod", pod.metadata.name ?? "");
    await untilNothingIsLeft(world);
    const last = await world.simulator.item(item.id);
    expect(last).toMatchObject({ state: "stopped", stoppedBy: { as: "sessions-token" } });
    expect(last.history.filter(({ by }) => by.as === "environment-key").map(({ event }) => event)).not.toContain(
      "stop requested",
    );
    expect(await untilAnswered(world, item, 1)).toEqual([["done", false]]);
    expect((await world.simulator.item(late.id)).acks).toEqual([]);
  });

  test("asks a stock worker to stop after its grace period, and the worker exits with code 0", async () => {
    await using world = await startE2eWorld({
      ttlSeconds: TTL_SECONDS,
      spec: { deletionGraceSeconds: 1 },
      maxIdleMs: NEVER,
      // The operator requests the stop after the first heartbeat, and the worker receives it with the next one, before
      // SIGTERM.
      podSpec: { terminationGracePeriodSeconds: 45 },
    });
    const { item, pod } = await serveOne(world, { script: bashScript("echo ready") });
    await untilAnswered(world, item, 1);
    await world.deleteEnvironment();
    await untilNothingIsLeft(world);
    const { history, stoppedBy } = await world.simulator.item(item.id);
    expect(history.find(({ event }) => event === "stop requested")?.by.as).toBe("environment-key");
    expect(stoppedBy?.as).toBe("sessions-token");
    const message = await untilTold(world, item, "EnvironmentDeleted", "Pod", pod.metadata.name ?? "");
    expect(message).toContain("deletionGraceSeconds have passed");
    // The worker needed no signal.
    expect(endOf(podOf(world, item))).toMatchObject({ exitCode: 0 });
  });

  test("ends a worker that ignores the stop and SIGTERM by SIGKILL, and settles its item", async () => {
    await using world = await startE2eWorld({
      sessions: { lease: "Operator" },
      spec: { deletionGraceSeconds: 1 },
      container: { command: DEAF },
      podSpec: { terminationGracePeriodSeconds: 3 },
    });
    const { item, pod } = await serveOne(world);
    await untilState(world, item, "active");
    await untilWritten(world, pod, IS_DEAF);
    await world.deleteEnvironment();
    await untilNothingIsLeft(world);
    expect(await world.simulator.item(item.id)).toMatchObject({
      state: "stopped",
      stoppedBy: { as: "environment-key" },
    });
    await untilTold(world, item, "EnvironmentDeleted", "Pod", pod.metadata.name ?? "");
    expect(endOf(podOf(world, item))).toMatchObject({ exitCode: 137 });
  });

  test("with foreground deletion: the garbage collector ends the Pods, and the item is settled", async () => {
    await using world = await startE2eWorld({ spec: { deletionGraceSeconds: 60 }, maxIdleMs: NEVER });
    const { item } = await serveOne(world, { script: bashScript("echo ready") });
    await untilAnswered(world, item, 1);
    const ref = { namespace: world.namespace, name: world.name };
    await world.kube.delete(ENVIRONMENTS, ref, { propagationPolicy: "Foreground" });
    await untilNothingIsLeft(world);
    expect((await world.simulator.item(item.id)).state).toBe("stopped");
  });
});

test("an idle Environment has no finalizer, and is removed at once with its parked Pods", async () => {
  await using world = await startE2eWorld({ sessions: { warm: 2 } });
  await world.createEnvironment();
  await world.untilParked(2);
  expect(finalizers(world)).toEqual([]);
  await world.deleteEnvironment();
  await untilNothingIsLeft(world);
});
