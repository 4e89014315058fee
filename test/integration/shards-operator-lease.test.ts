import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import type { ItemRecord } from "../../simulator/item.ts";
import { bashScript } from "../../simulator/script.ts";
import { shardOf } from "../../src/election/shard-plan.ts";
import { useCluster } from "../support/cluster.ts";
import { ManyEnvironments } from "../support/many-environments.ts";
import { OWN_PACE } from "../support/operator-lease-pace.ts";
import type { OperatorProcess } from "../support/operator-process.ts";
import { startWorld, type World } from "../support/world.ts";

const cluster = useCluster();

const RUNNER = fileURLToPath(new URL("../../examples/worker/tool-runner.mjs", import.meta.url));

const SHARDS = 2;
const ENVIRONMENTS = 4;

/** A session pauses longer than the next replica needs to take its lease, so that it ends under that replica. */
const THINKS_MS = 75_000;

const PATIENCE_MS = 480_000;
const LONG = 420_000;

function runnerWorld(): Promise<World> {
  return startWorld(cluster, {
    ...OWN_PACE,
    node: { runtime: "process", fates: () => undefined },
    container: { command: [process.execPath, RUNNER], env: [{ name: "MAX_IDLE_MS", value: "300" }] },
    podSpec: { terminationGracePeriodSeconds: 30 },
    sessions: { lease: "Operator", warm: 1, maxConcurrent: 2 },
  });
}

const replica = async (world: World) =>
  (await world.startOperatorProcess({ leaderElect: true, flags: ["--shards", String(SHARDS)] })).process;

const identityOf = ({ log }: OperatorProcess) => String(log.find(({ msg }) => msg === "berth starts")?.["identity"]);

/** Works, pauses for a long time, then works again. */
function longScript() {
  const { turns: [one] = [] } = bashScript("echo before");
  const { turns: [two] = [] } = bashScript("echo after");
  return { turns: [one ?? {}, { ...two, delayMs: THINKS_MS }] };
}

/** The number of leases that this replica took from earlier holders, from its metrics. */
async function leasesTaken({ addresses }: OperatorProcess): Promise<number> {
  const text = await (await fetch(`http://${addresses.metrics}/metrics`)).text();
  const lines = text.matchAll(/^berth_heartbeats_total\{[^}]*result="taken"[^}]*\} (\d+)/gm);
  return [...lines].reduce((sum, [, value]) => sum + Number(value), 0);
}

/** Starts a session in each Environment, and returns which of two replicas holds each. */
async function sessionsUnderWay(world: World) {
  const many = await ManyEnvironments.create(world, ENVIRONMENTS);
  const replicas = [await replica(world), await replica(world)] as const;
  const holders = await many.untilShared(SHARDS, 2);
  const items = [...many.ids.values()].map((id) => {
    const shard = shardOf(many.queueOf(id), SHARDS);
    const item = world.simulator.enqueue(id, { script: longScript() });
    return { item, holder: holders.get(`berth-${shard}-of-${SHARDS}`) ?? "" };
  });
  await world.until(
    "all sessions have begun",
    () =>
      items.every(({ item: { id, sessionId = "" } }) => {
        const [first] = world.simulator.session(sessionId).toolCalls;
        return world.simulator.item(id).state === "active" && first?.answeredAt !== undefined;
      }),
    PATIENCE_MS,
  );
  return { many, replicas, items };
}

/** Every session finished in its one Pod, and its item was not given to another client. */
function expectNothingLost(world: World, items: readonly { readonly item: ItemRecord }[]): void {
  for (const { item } of items) {
    const { acks, refusedBeats, stoppedBy, sessionId = "" } = world.simulator.item(item.id);
    expect({ acks: acks.length, refusedBeats, by: stoppedBy?.as }).toEqual({
      acks: 1,
      refusedBeats: 0,
      by: "environment-key",
    });
    const outputs = world.simulator.session(sessionId).toolCalls.map(({ output }) => output);
    expect(outputs).toEqual(["before", "after"]);
  }
  expect(world.events("LeaseLost")).toEqual([]);
  world.simulator.assertNoViolations();
}

describe.concurrent("a shard's leases that move to another replica while the operator keeps them", () => {
  test.each([
    ["kill -9", (victim: OperatorProcess) => victim.kill()],
    ["SIGTERM", async (victim: OperatorProcess) => expect(await victim.stop()).toBe(0)],
  ] as const)(
    "%s of their holder: the other replica takes them, and no session is lost",
    async (_how, end) => {
      await using world = await runnerWorld();
      const { many, replicas, items } = await sessionsUnderWay(world);
      // A replica may have none, since shards depend on the names.
      const sessionsOf = (one: OperatorProcess) => items.filter(({ holder }) => holder === identityOf(one)).length;
      const [victim, other] = replicas.toSorted((a, b) => sessionsOf(b) - sessionsOf(a)) as [
        OperatorProcess,
        OperatorProcess,
      ];
      const orphans = sessionsOf(victim);
      expect(orphans, "sessions of the replica that ends").toBeGreaterThan(0);

      await end(victim);

      await many.untilShared(SHARDS, 1);
      await world.until(
        "the other replica adopts the leases",
        async () => (await leasesTaken(other)) >= orphans,
        PATIENCE_MS,
      );
      const isOver = () => items.every(({ item }) => world.simulator.item(item.id).state === "stopped");
      await world.until("all items are served", () => isOver() && world.claims.length === 0, PATIENCE_MS);
      expectNothingLost(world, items);
    },
    LONG,
  );
});
