import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { POD_DISRUPTION_BUDGETS, type PodDisruptionBudget } from "../../../src/kube/resource.ts";
import { findClientTools } from "../../../testbed/cluster/client-tools.ts";
import { connectNodeControl } from "../../../testbed/real-node/control-client.ts";
import { kubectl } from "../support/kubectl.ts";
import { untilNodeReady } from "../support/node-state.ts";
import { nodeControl, runOperatorProcess } from "../support/operator-process.ts";
import { latest, terminatedOf } from "../support/pods.ts";
import { e2eCluster, hasNodeControl } from "../support/provided.ts";
import { enqueueOne, serveOne, untilEnded, untilGone, untilSettled, untilState } from "../support/session-life.ts";
import { NEVER } from "../support/worker-template.ts";
import { type E2eOptions, type E2eWorld, startE2eWorld } from "../support/world.ts";

/** A `kubectl drain` in progress. */
interface Drain extends AsyncDisposable {
  /** Its output so far. */
  readonly said: string;
  readonly ended: Promise<number | null>;
}

/** Drains the node as users do. It spares only the simulator's Pod, which represents an external service. */
async function drain({ cluster }: E2eWorld, nodeName: string, ...more: string[]): Promise<Drain> {
  const flags = ["--ignore-daemonsets", "--delete-emptydir-data", "--pod-selector=app!=simulator", ...more];
  const env = { ...process.env, KUBECONFIG: cluster.kubeconfig, HOME: cluster.dir };
  const child = spawn(join(await findClientTools(), "kubectl"), ["drain", nodeName, ...flags], { env });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (said += chunk));
  const ended = once(child, "close").then(([code]) => code as number | null);
  return {
    get said() {
      return said;
    },
    ended,
    [Symbol.asyncDispose]: async () => {
      child.kill();
      await ended;
    },
  };
}

async function uncordon(world: E2eWorld): Promise<void> {
  const { nodeName } = await nodeControl(world).state();
  await kubectl(world.cluster, ["uncordon", nodeName]);
}

async function budgetOf(world: E2eWorld): Promise<PodDisruptionBudget | undefined> {
  return (await world.kube.list(POD_DISRUPTION_BUDGETS, { namespace: world.namespace })).items[0];
}

// A heartbeat every 3 s: as frequent as an operator expects whose timers run ten times as fast.
const drained = (options: E2eOptions = {}) =>
  startE2eWorld({ ttlSeconds: 6, maxIdleMs: NEVER, podSpec: { terminationGracePeriodSeconds: 5 }, ...options });

/** Checks that the next session is served as usual. */
async function expectWell(world: E2eWorld): Promise<void> {
  await world.untilParked(1);
  await world.untilCondition("CapacityAvailable", "Available");
  const served = await enqueueOne(world, { script: bashScript("echo hello") });
  await untilState(world, served.item, "active");
  await world.simulator.stopItem(served.item.id);
  await untilSettled(world, served, "Completed");
}

/** A line about a fault. Conditions that turn are logged, too. */
const isUnexpected = ({ level, condition }: { readonly [field: string]: unknown }) =>
  level === "error" || (level === "warn" && condition === undefined);

describe.skipIf(!hasNodeControl())("kubectl drain of the node", () => {
  afterEach(async () => {
    const { nodeControl: socket } = e2eCluster();
    if (socket === undefined) return;
    const { nodeName } = await connectNodeControl(socket).state();
    await kubectl(e2eCluster(), ["uncordon", nodeName]);
  });

  test("ends an unprotected busy session, whose worker stops its item; nothing is claimed until uncordon", async () => {
    await using world = await drained({ sessions: { warm: 1, maxConcurrent: 2 } });
    const { nodeName } = await nodeControl(world).state();
    await using operator = await runOperatorProcess(world);
    const served = await serveOne(world, { script: bashScript("echo hello") });
    await untilState(world, served.item, "active");
    const [parked] = await world.untilParked(1);
    {
      // Without --force, because its Pods have a controller, the Environment.
      await using draining = await drain(world, nodeName);
      expect(await draining.ended, draining.said).toBe(0);
    }
    const { last, message } = await untilEnded(world, served, "Evicted");
    expect(message).toContain("Eviction API");
    expect(last.stoppedBy?.as).toBe("sessions-token");
    expect(last.acks).toHaveLength(1);
    expect(terminatedOf(world, served)?.exitCode).toBe(0);
    if (parked) await untilGone(world, parked);
    const { message: why } = await world.untilCondition("CapacityAvailable", "Unschedulable");
    expect(why).toContain("unschedulable");
    const waiting = await world.simulator.enqueue(world.environmentId, { script: bashScript("echo later") });
    await world.until("the item is seen", () => {
      const { depth = 0, pending = 0 } = world.environment?.status?.queue ?? {};
      return depth + pending === 1;
    });
    expect((await world.simulator.item(waiting.id)).acks).toEqual([]);
    await uncordon(world);
    await untilState(world, waiting, "active");
    await world.simulator.stopItem(waiting.id);
    await world.untilServed(2);
    await world.untilCondition("CapacityAvailable", "Available");
    expect((await operator.log()).filter(isUnexpected)).toEqual([]);
  });

  test("waits for a busy session under Protect and evicts parked Pods at once; it ends after the session", async () => {
    await using world = await drained({ sessions: { warm: 1, maxConcurrent: 2, disruption: "Protect" } });
    const { nodeName } = await nodeControl(world).state();
    await using operator = await runOperatorProcess(world, { timeScale: 10 });
    const served = await serveOne(world, { script: bashScript("echo hello") });
    await untilState(world, served.item, "active");
    const [parked] = await world.untilParked(1);
    await using draining = await drain(world, nodeName, "--force");
    await world.until("kubectl is refused", () => {
      return /Cannot evict pod as it would violate the pod's disruption budget/.test(draining.said);
    });
    if (parked) await untilGone(world, parked);
    expect((await budgetOf(world))?.spec?.["minAvailable"]).toBe(1);
    const { beats } = await world.simulator.item(served.item.id);
    await world.until(
      "it still sends heartbeats",
      async () => (await world.simulator.item(served.item.id)).beats > beats + 1,
    );
    expect(latest(world, served.pod).metadata.deletionTimestamp).toBe(undefined);
    await world.simulator.stopItem(served.item.id);
    expect(await draining.ended, draining.said).toBe(0);
    await untilEnded(world, served, "Completed");
    await world.until("the budget is lowered", async () => (await budgetOf(world))?.spec?.["minAvailable"] === 0);
    await untilNodeReady(world, "True");
    await uncordon(world);
    await expectWell(world);
    expect((await operator.log()).filter(isUnexpected)).toEqual([]);
  });

  test.each(["Stop", "Release"])(
    "evicts a claimed Pod before its session starts, and its item is settled by onPodFailure: %s",
    async (onPodFailure) => {
      await using world = await drained({ sessions: { warm: 1, maxConcurrent: 1, onPodFailure } });
      const { nodeName } = await nodeControl(world).state();
      await using operator = await runOperatorProcess(world, { timeScale: 10 });
      await world.createEnvironment();
      const [parked] = await world.untilParked(1);
      // The answer to the acknowledgement is lost, so the operator reads the item's state only once no other client can
      // get it.
      await world.simulator.inject({ kind: "lost-reply", call: "ack" });
      const item = await world.simulator.enqueue(world.environmentId, { script: bashScript("echo hello") });
      await untilState(world, item, "starting");
      await using draining = await drain(world, nodeName, "--force");
      expect(await draining.ended, draining.said).toBe(0);
      await world.simulator.clearFaults();
      if (parked) await untilGone(world, parked);
      if (onPodFailure === "Stop") {
        await untilState(world, item, "stopped");
      } else {
        await untilState(world, item, "queued");
      }
      await world.until("no claim is left", () => world.claims.length === 0);
      expect((await world.simulator.item(item.id)).acks).toHaveLength(1);
      // The session never had a container, but its end is still reported.
      const message = await world.until("its end is reported", () => {
        const told = [...world.events("Evicted"), ...world.events("PodDeleted")];
        return told.find(({ message }) => message?.includes(item.id))?.message;
      });
      expect(message).toContain("the session had not started");
      expect(message?.includes("in the queue again")).toBe(onPodFailure === "Release");
      await uncordon(world);
      if (onPodFailure === "Release") {
        await untilState(world, item, "active");
        await world.simulator.stopItem(item.id);
        await world.untilServed(1);
      } else await expectWell(world);
      expect((await operator.log()).filter(({ level }) => level === "error")).toEqual([]);
    },
  );
});
