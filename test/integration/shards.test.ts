import { randomInt } from "node:crypto";
import { mkdtempDisposable, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { shardOf } from "../../src/election/shard-plan.ts";
import { useCluster } from "../support/cluster.ts";
import { ManyEnvironments } from "../support/many-environments.ts";
import type { OperatorProcess } from "../support/operator-process.ts";
import { RecordingProxy } from "../support/recording-proxy.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";
import { startWorld, type World } from "../support/world.ts";

const cluster = useCluster();

/** Enough that every shard has some. */
const ENVIRONMENTS = 6;

/** An expiring Lease takes 15 to 20 s, and a moved shard 10 to 20 s. On a busy machine, everything takes longer. */
const PATIENCE_MS = 600_000;

/**
 * Until its deadline, a replica without answers continues to send a few requests per Environment at a time. More late
 * writes than this would mean that some were decided after it lost the Lease.
 */
const ON_THEIR_WAY = 64;

/** Items per second and Environment: some sessions run at any time. */
const RATE = 0.35;

const isWrite = (verb: string) => ["create", "update", "patch", "delete"].includes(verb);

const WORLD = {
  sessions: { warm: 2, maxConcurrent: 10 },
  node: { fates: () => ({ kind: "worker" as const, workMs: { min: 100, max: 2_000 } }) },
};

/** Each test adds to it. */
const seed = randomInt(2 ** 30);
console.log(`arrivals' seed: ${seed}`);

const replica = (world: World, shards: number, flags: readonly string[] = []) =>
  world.startOperatorProcess({ leaderElect: true, flags: ["--shards", String(shards), ...flags] });

const identityOf = ({ log }: OperatorProcess) => String(log.find(({ msg }) => msg === "berth starts")?.["identity"]);

/** Every item was acknowledged and served once, by any replica. */
function expectServedOnce(world: World, many: ManyEnvironments): void {
  world.simulator.assertNoViolations();
  const { items } = many;
  expect(
    items.filter(({ firstBeatAt }) => firstBeatAt === undefined),
    "items that no worker served",
  ).toEqual([]);
  expect(items.filter(({ acks }) => acks.length !== 1).map(({ id, acks }) => [id, acks])).toEqual([]);
  expect(
    items.reduce((sum, { refusedBeats }) => sum + refusedBeats, 0),
    "heartbeats of a second container",
  ).toBe(0);
}

test(
  "kill -9 of one of three replicas under load: the others adopt its Environments, and every item is served once",
  async () => {
    await using world = await startWorld(cluster, WORLD);
    const many = await ManyEnvironments.create(world, ENVIRONMENTS);
    const replicas = [await replica(world, 4), await replica(world, 4), await replica(world, 4)];
    const before = await many.untilShared(4, 3);
    const arrived = many.arrivals({ ratePerSecond: RATE, durationSeconds: 35, seed });
    // Picks a replica whose Environments have work, so that the kill has an effect.
    const busy = await world.until("a session of a replica that holds Environments runs", () => {
      const item = many.items.find(({ state }) => state === "active");
      return item && before.get(`berth-${shardOf(many.queueOf(item.environmentId), 4)}-of-4`);
    });
    const victim = replicas.find(({ process }) => identityOf(process) === busy);
    expect(victim, `a process with the identity ${busy}`).toBeDefined();

    await victim?.process.kill();

    const after = await many.untilShared(4, 2);
    expect([...after.values()]).not.toContain(busy);
    await many.untilServed(await arrived);
    expectServedOnce(world, many);
  },
  PATIENCE_MS,
);

test(
  "a rolling restart from 2 shards to 3: no Environment has two owners, and every item is served once",
  async () => {
    await using world = await startWorld(cluster, WORLD);
    const many = await ManyEnvironments.create(world, ENVIRONMENTS);
    const old = [await replica(world, 2), await replica(world, 2), await replica(world, 2)];
    await many.untilShared(2, 2);
    const seen = new Set<string>();
    const looking = new AbortController();
    const looks = (async () => {
      while (!looking.signal.aborted) {
        const names = [...(await many.holders()).keys()];
        seen.add([...new Set(names.map((name) => name.split("-of-")[1]))].sort().join("+"));
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    })();
    const arrived = many.arrivals({ ratePerSecond: RATE, durationSeconds: 25, seed });
    for (const one of old) {
      // Like a Deployment: the new one is ready before the old one ends.
      await replica(world, 3);
      await one.stop();
    }
    await many.untilShared(3, 3);
    await many.untilServed(await arrived);
    await world.until("the new number of shards is read", () => seen.has("3"));
    looking.abort();
    await looks;
    expectServedOnce(world, many);
    expect(seen).toContain("2");
  },
  PATIENCE_MS,
);

test(
  "a suspended replica whose shards another one took writes nothing more for them after it resumes",
  async () => {
    await using world = await startWorld(cluster, WORLD);
    await using api = await RecordingProxy.start(world.simulator.url);
    const many = await ManyEnvironments.create(world, ENVIRONMENTS, { baseUrl: api.url });
    const flags = ["--allowed-api-origins", api.url];
    const replicas = [await replica(world, 2, flags), await replica(world, 2, flags)];
    const before = await many.untilShared(2, 2);
    const arrived = many.arrivals({ ratePerSecond: RATE, durationSeconds: 40, seed });
    await world.until("sessions run", () => many.items.some(({ state }) => state === "active"));
    const { process: stopped } = replicas[0] as (typeof replicas)[0];
    const identity = identityOf(stopped);
    expect([...before.values()]).toContain(identity);
    expect(api.writes(identity).length).toBeGreaterThan(0);

    stopped.signal("SIGSTOP");
    await world.until("the other replica holds all shards", async () => {
      const holders = [...(await many.holders()).values()];
      return holders.length === 2 && !holders.includes(identity);
    });
    const mark = await cluster.audit.mark();
    const sent = api.writes(identity).length;
    const lines = stopped.log.length;
    stopped.signal("SIGCONT");
    await world.until("the replica logs that it lost leadership", () =>
      stopped.log.slice(lines).some(({ msg }) => msg === "leadership lost"),
    );
    // It is now on standby, and gets a shard again after a while. Until then:
    const again = () => stopped.log.slice(lines).some(({ msg }) => msg === "started leading");
    let writes = api.writes(identity).length;
    let entries = await cluster.audit.entries({ since: mark });
    await world.until("the replica has its shards again", async () => {
      if (again()) return true;
      const now = { writes: api.writes(identity).length, entries: await cluster.audit.entries({ since: mark }) };
      if (again()) return true;
      writes = now.writes;
      entries = now.entries;
      return false;
    });
    expect(writes - sent, "requests to the Work API after it woke up").toBe(0);
    const its = entries.filter(({ userAgent, verb }) => userAgent.includes(identity) && isWrite(verb));
    expect(its.filter(({ resource }) => resource !== "leases")).toEqual([]);

    await many.untilServed(await arrived);
    expectServedOnce(world, many);
  },
  PATIENCE_MS,
);

test(
  "requests under way when a Lease is lost land after the next replica took over, without harm",
  async () => {
    await using world = await startWorld(cluster, WORLD);
    await using network = await TcpProxy.start(cluster.server);
    const many = await ManyEnvironments.create(world, ENVIRONMENTS);
    await using dir = await mkdtempDisposable(join(tmpdir(), "berth-shards-"));
    const kubeconfig = join(dir.path, "kubeconfig");
    const text = await readFile(cluster.operatorKubeconfig, "utf8");
    await writeFile(kubeconfig, text.replaceAll(cluster.server, network.url(cluster.server)), { mode: 0o600 });
    const replicas = [await replica(world, 2, ["--kubeconfig", kubeconfig]), await replica(world, 2)];
    await many.untilShared(2, 2);
    const { process: cutOff } = replicas[0] as (typeof replicas)[0];
    const identity = identityOf(cutOff);
    const arrived = many.arrivals({ ratePerSecond: 2 * RATE, durationSeconds: 40, seed });
    await world.until("sessions run", () => many.items.some(({ state }) => state === "active"));

    network.stall();
    await world.until("the other replica holds all shards", async () => {
      const holders = [...(await many.holders()).values()];
      return holders.length === 2 && !holders.includes(identity);
    });
    const mark = await cluster.audit.mark();
    const lines = cutOff.log.length;
    network.forward();
    await many.untilServed(await arrived);
    await many.untilShared(2, 2);

    // Writes by a process without a Lease: those that were under way, and none that it decided later.
    const again = cutOff.log.slice(lines).find(({ msg }) => msg === "started leading");
    const untilMs = Date.parse(String(again?.["time"]));
    const late = (await cluster.audit.entries({ since: mark })).filter(
      ({ userAgent, verb, resource, completedAt }) =>
        userAgent.includes(identity) && isWrite(verb) && resource !== "leases" && completedAt < untilMs,
    );
    console.log(
      `landed late: ${late.map(({ verb, resource, code }) => `${verb} ${resource} ${code}`).join(", ") || "nothing"}`,
    );
    expect(late.length).toBeLessThanOrEqual(ON_THEIR_WAY);
    expectServedOnce(world, many);
  },
  PATIENCE_MS,
);

test(
  "a replica exports metrics of its own Environments only, and each Environment is exported once",
  async () => {
    await using world = await startWorld(cluster, WORLD);
    const many = await ManyEnvironments.create(world, ENVIRONMENTS);
    const replicas = [await replica(world, 2), await replica(world, 2)];
    await many.untilShared(2, 2);
    const shown = async ({ process }: { process: OperatorProcess }) => {
      const text = await (await fetch(`http://${process.addresses.metrics}/metrics`)).text();
      return [...text.matchAll(/berth_sessions_max\{.*?environment="(.*?)"\}/g)].map(([, name = ""]) => name);
    };
    const all = await world.until("each Environment is shown once", async () => {
      const names = await Promise.all(replicas.map(shown));
      return names.flat().length === ENVIRONMENTS && names;
    });
    expect(all.flat().sort()).toEqual([...many.ids.keys()].sort());
    await replicas[0]?.stop();
    await world.until("the other replica shows all Environments", async () => {
      const [, second] = replicas;
      return second && (await shown(second)).length === ENVIRONMENTS;
    });
  },
  PATIENCE_MS,
);
