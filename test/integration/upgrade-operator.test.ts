import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import type { ItemRecord } from "../../simulator/item.ts";
import { ANNOTATION_PARKING, API_VERSION, KIND, LABEL_ENVIRONMENT, LABEL_PHASE } from "../../src/api/names.ts";
import type { KubeObject, Pod } from "../../src/kube/resource.ts";
import { readPodState } from "../../src/pods/pod-state.ts";
import { readJournal } from "../../src/protocol/journal.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { type Cluster, startCluster } from "../../testbed/cluster/cluster.ts";
import { installBerth } from "../../testbed/cluster/install.ts";
import type { TestCluster } from "../support/cluster.ts";
import { type PreviousVersion, previousVersionMissing, unpackPreviousVersion } from "../support/previous-version.ts";
import { podOf, SHORT_LEASE } from "../support/session-life.ts";
import type { Death } from "../support/sudden-death.ts";
import { startWorld, type World } from "../support/world.ts";
import { asNamingCluster } from "./own-cluster.ts";

/** Several operators start and stop one after another, each as its own process. */
const TIMEOUT_MS = 300_000;

/** The init container in which Pods of the previous version wait with `parking: Init`. */
const GATE = "berth-gate";

const MISSING = await previousVersionMissing();

/** The tests change the CRD, so they have their own cluster. They run one after another. */
let cluster: Cluster;
let shared: TestCluster;
let previous: PreviousVersion;

beforeAll(async () => {
  if (MISSING !== undefined) return;
  previous = await unpackPreviousVersion();
  cluster = await startCluster();
  shared = await asNamingCluster(cluster);
}, TIMEOUT_MS);
afterAll(async () => {
  await cluster?.stop();
  await previous?.[Symbol.asyncDispose]();
});
beforeEach(({ skip }) => {
  if (MISSING !== undefined) skip(MISSING);
});

/** A world whose sessions run until they are stopped, and whose template can wait in a shell. */
function upgradeWorld(): Promise<World> {
  return startWorld(shared, {
    ...SHORT_LEASE,
    container: { command: ["worker"] },
    node: {
      runtime: (_pod, { name }) => (name === GATE ? "process" : "scripted"),
      fates: (_pod, { name }) => (name === GATE ? undefined : { kind: "worker", end: "hang" }),
    },
  });
}

/** One Environment of a world, with its own queue. */
class Served {
  readonly name: string;
  readonly id: string;
  readonly items: ItemRecord[] = [];
  readonly #world: World;

  private constructor(world: World, name: string, id: string) {
    this.#world = world;
    this.name = name;
    this.id = id;
  }

  static async create(world: World, name: string, sessions: Record<string, unknown>): Promise<Served> {
    const { id } = world.simulator.createEnvironment();
    await world.createKey(world.simulator.environmentKey(id), `key-${name}`);
    const spec = world.spec();
    const environment = {
      apiVersion: API_VERSION,
      kind: KIND,
      metadata: { name, namespace: world.namespace },
      spec: {
        ...spec,
        environmentId: id,
        api: { baseUrl: world.simulator.url, keySecretRef: { name: `key-${name}` } },
        sessions: { ...(spec["sessions"] as object), ...sessions },
      },
    };
    // The API server takes a moment to use a CRD that was just applied.
    await world.until(`the Environment ${name} is accepted`, () =>
      world.kube.create(ENVIRONMENTS, environment as never).then(
        () => true,
        () => false,
      ),
    );
    return new Served(world, name, id);
  }

  get ref() {
    return { namespace: this.#world.namespace, name: this.name };
  }

  async read(): Promise<KubeObject & { spec: { sessions: Record<string, unknown> } }> {
    return (await this.#world.kube.get(ENVIRONMENTS, this.ref)) as never;
  }

  /** Pods that wait for a session. */
  get waiting(): Pod[] {
    return this.#world.pods.filter(
      (pod) =>
        !pod.metadata.deletionTimestamp &&
        pod.metadata.labels?.[LABEL_ENVIRONMENT] === this.name &&
        pod.metadata.labels[LABEL_PHASE] === "parked" &&
        readPodState(pod).is === "parked",
    );
  }

  untilWaiting(count: number, fits: (pod: Pod) => boolean = () => true): Promise<Pod[]> {
    return this.#world.until(`${count} waiting Pods of ${this.name}`, () => {
      const found = this.waiting.filter(fits);
      return found.length >= count && found;
    });
  }

  enqueue(): ItemRecord {
    const item = this.#world.simulator.enqueue(this.id);
    this.items.push(item);
    return item;
  }

  /** Serves one more session. */
  async serve(): Promise<Pod> {
    const item = this.enqueue();
    await this.untilActive();
    return await this.#world.until("the session's Pod", () => podOf(this.#world, item));
  }

  /** Waits until all sessions that were not stopped have a worker. */
  async untilActive(): Promise<void> {
    await this.#world.until(`all sessions of ${this.name} are served`, () =>
      this.#states().every((state) => state === "active" || state === "stopped"),
    );
  }

  /** Stops a session as a user does, and waits until its claim is settled. */
  async stop({ id }: ItemRecord): Promise<void> {
    this.#world.simulator.stopItem(id);
    await this.#world.until(`item ${id} of ${this.name} is settled`, () => {
      const isClaimed = this.#world.claims.some((secret) => readJournal(secret)?.workId === id);
      return this.#world.simulator.item(id).state === "stopped" && !isClaimed;
    });
  }

  #states(): string[] {
    return this.items.map(({ id }) => this.#world.simulator.item(id).state);
  }
}

/** Whether a Pod waits, or waited, in a shell. */
function inShell({ metadata }: Pod): boolean {
  return metadata.annotations?.[ANNOTATION_PARKING] === "Shell";
}

/** Ends all sessions, and checks that each was served once, by one worker. */
async function endAll(world: World, served: readonly Served[]): Promise<void> {
  for (const each of served) {
    await each.untilActive();
    for (const item of each.items) if (world.simulator.item(item.id).state !== "stopped") await each.stop(item);
  }
  for (const { id } of served.flatMap(({ items }) => items)) {
    const { acks, refusedBeats, firstBeatAt, stoppedBy } = world.simulator.item(id);
    expect({ acks: acks.length, refusedBeats, by: stoppedBy?.as }).toEqual({
      acks: 1,
      refusedBeats: 0,
      by: "sessions-token",
    });
    expect(firstBeatAt).toBeDefined();
  }
  world.simulator.assertNoViolations();
}

/** No request that opens a claim arrives, so that items stay acknowledged until the process is killed. */
const OPENS_NOTHING: Death = {
  point: "none",
  phase: "before",
  unanswered: [{ point: "session.open", api: "kube", phase: "before" }],
};

test(
  "an upgrade loses no session, whether the previous operator stops or is killed while it opens claims",
  async () => {
    await installBerth(cluster.api, previous.deploy);
    await using world = await upgradeWorld();
    const key = await Served.create(world, "key", {});
    const init = await Served.create(world, "init", { parking: "Init" });
    const both = [key, init];
    const old = await world.startOperatorProcess({ root: previous.root, leaderElect: true });
    for (const each of both) {
      await each.serve();
      await each.untilWaiting(1);
    }

    // The new version takes over. It looks after sessions with the removed way to park, and claims nothing for it.
    await installBerth(cluster.api);
    const upgraded = await world.startOperatorProcess({ leaderElect: true });
    const before = key.waiting.map(({ metadata }) => metadata.uid);
    await old.stop();
    await key.untilWaiting(1, ({ metadata }) => !before.includes(metadata.uid));
    await world.until("the free Pod of the previous version is gone", () =>
      key.waiting.every(({ metadata }) => !before.includes(metadata.uid)),
    );
    await key.serve();
    for (const each of both) await each.stop(each.items[0] as ItemRecord);
    const { status } = await init.read();
    expect((status as { conditions: unknown[] }).conditions).toContainEqual(
      expect.objectContaining({ reason: "InvalidSpec", message: expect.stringContaining("Init no longer exists") }),
    );
    await upgraded.stop();

    // Back to the previous version, which is killed when it has acknowledged an item of each and opened none.
    await installBerth(cluster.api, previous.deploy);
    const doomed = await world.startOperatorProcess({ root: previous.root, death: OPENS_NOTHING, timeScale: 1 });
    for (const each of both) await each.untilWaiting(1);
    const opening = both.map((each) => each.enqueue());
    await world.until("both items are acknowledged", () =>
      opening.every(({ id }) => world.simulator.item(id).acks.length === 1),
    );
    await doomed.process.kill();

    await installBerth(cluster.api);
    await world.startOperatorProcess();
    for (const each of both) await each.untilActive();
    await world.kube.patch(ENVIRONMENTS, init.ref, { spec: { sessions: { parking: null } } }, { type: "merge" });
    await init.untilWaiting(1, ({ spec }) => !spec.initContainers?.some(({ name }) => name === GATE));
    await init.serve();
    await endAll(world, both);
  },
  TIMEOUT_MS,
);

test(
  "a downgrade loses no session, also of those that were just acknowledged, and replaces Pods that wait in a shell",
  async () => {
    await installBerth(cluster.api);
    await using world = await upgradeWorld();
    const shell = await Served.create(world, "shell", { warm: 4 });
    const operator = await world.startOperatorProcess({ leaderElect: true });
    await shell.untilWaiting(4, inShell);
    for (let running = 0; running < 2; running += 1) expect(inShell(await shell.serve())).toBe(true);
    await shell.untilWaiting(4, inShell);

    // It stops as soon as it has acknowledged one of these.
    const burst = [shell.enqueue(), shell.enqueue()];
    const acknowledged = () => burst.filter(({ id }) => world.simulator.item(id).acks.length > 0);
    await world.until("an item is acknowledged", () => acknowledged().length > 0);
    await operator.stop();
    await world.until("its session has started without an operator", () =>
      acknowledged().every(({ id }) => world.simulator.item(id).state === "active"),
    );

    await installBerth(cluster.api, previous.deploy);
    await world.until("the CRD of the previous version fills in parking", async () => {
      const { spec } = await shell.read();
      return spec.sessions["parking"] === "Key";
    });
    const old = await world.startOperatorProcess({ root: previous.root, leaderElect: true });
    await shell.untilWaiting(4, (pod) => !inShell(pod));
    await world.until("the Pods that wait in a shell are gone", () => shell.waiting.every((pod) => !inShell(pod)));
    expect(inShell(await shell.serve())).toBe(false);
    await shell.stop(shell.items[0] as ItemRecord);

    await installBerth(cluster.api);
    await world.startOperatorProcess({ leaderElect: true });
    await old.stop();
    await shell.serve();
    await endAll(world, [shell]);
  },
  TIMEOUT_MS,
);
