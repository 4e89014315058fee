import { expect } from "vitest";
import { LABEL_PHASE } from "../../../src/api/names.ts";
import type { FateInput } from "../../../testbed/node/node.ts";
import type { TestCluster } from "../../support/cluster.ts";
import { OWN_PACE } from "../../support/operator-lease-pace.ts";
import type { OperatorProcess } from "../../support/operator-process.ts";
import { startWorld, type World } from "../../support/world.ts";
import { PATIENCE_MS } from "../support/patience.ts";
import { pause } from "./replica-world.ts";
import { between, oneOf, type Scenario, seedOf } from "./scenario.ts";

const MINUTE_MS = 60_000;

interface Clusters {
  readonly what: string;
  readonly long?: boolean;
  readonly leases: readonly ["Worker" | "Operator", "Worker" | "Operator"];
  /** How the operators are interrupted under load. */
  readonly ends: readonly ("kill" | "stop")[];
  /** Minutes by which their wall clocks are ahead. */
  readonly minutesAhead?: readonly [number, number];
}

const CLUSTERS: readonly Clusters[] = [
  {
    what: "lease: Worker, killed and restarted",
    long: true,
    leases: ["Worker", "Worker"],
    ends: ["kill", "stop", "kill"],
  },
  {
    what: "lease: Worker, with clocks twenty minutes apart",
    leases: ["Worker", "Worker"],
    ends: ["kill"],
    minutesAhead: [10, -10],
  },
  {
    what: "lease: Operator, killed and restarted",
    long: true,
    leases: ["Operator", "Operator"],
    ends: ["kill", "stop"],
  },
  { what: "one of each kind of lease", long: true, leases: ["Worker", "Operator"], ends: ["kill", "kill"] },
  {
    what: "lease: Operator, with clocks an hour apart",
    long: true,
    leases: ["Operator", "Operator"],
    ends: ["kill"],
    minutesAhead: [-30, 30],
  },
  {
    what: "lease: Worker, killed again and again",
    long: true,
    leases: ["Worker", "Worker"],
    ends: Array(8).fill("kill"),
  },
];

/** One of two clusters that serve the same queue by mistake. They share only the queue. */
class Cluster {
  readonly world: World;
  readonly #wallOffsetMs: number;
  #process: OperatorProcess | undefined;

  private constructor(world: World, wallOffsetMs: number) {
    this.world = world;
    this.#wallOffsetMs = wallOffsetMs;
  }

  static async start(
    cluster: TestCluster,
    options: { lease: "Worker" | "Operator"; pace: object; minutesAhead: number; beside?: World },
  ): Promise<Cluster> {
    const { lease, pace, minutesAhead, beside } = options;
    const fate: FateInput =
      lease === "Operator" ? { kind: "exit", afterMs: 2_000 } : { kind: "worker", workMs: { min: 50, max: 2_000 } };
    const world = await startWorld(cluster, {
      ...pace,
      node: { fates: () => fate },
      sessions: { lease, warm: 2, maxConcurrent: 5 },
      ...(beside && { beside }),
    });
    await world.createEnvironment();
    const one = new Cluster(world, minutesAhead * MINUTE_MS);
    await one.restart();
    return one;
  }

  async restart(): Promise<void> {
    const { process } = await this.world.startOperatorProcess({ leaderElect: true, wallOffsetMs: this.#wallOffsetMs });
    this.#process = process;
  }

  async end(how: "kill" | "stop"): Promise<void> {
    if (how === "kill") await this.#process?.kill();
    else expect(await this.#process?.stop()).toBe(0);
  }
}

async function besides(cluster: TestCluster, options: Clusters, random: () => number): Promise<void> {
  const { leases, ends, minutesAhead = [0, 0] } = options;
  const ofOperator = leases.includes("Operator");
  const pace = ofOperator ? OWN_PACE : {};
  const first = await Cluster.start(cluster, { lease: leases[0], pace, minutesAhead: minutesAhead[0] });
  await using one = first.world;
  const second = await Cluster.start(cluster, {
    ...{ lease: leases[1], pace, minutesAhead: minutesAhead[1] },
    beside: one,
  });
  await using other = second.world;
  await Promise.all([one.untilParked(2), other.untilParked(2)]);
  const arrivals = one.simulator.arrivals(one.environmentId, {
    kind: "poisson",
    ratePerSecond: ofOperator ? 0.4 : 1.5,
    durationSeconds: 20 + 5 * ends.length,
    seed: seedOf(random),
  });
  for (const end of ends) {
    await pause(between(random, 1_000, 6_000));
    const victim = oneOf(random, first, second);
    await victim.end(end);
    await victim.restart();
  }
  const count = await arrivals.done;

  const items = () => one.simulator.items(one.environmentId);
  await one.until(
    `${count} items served and settled`,
    () =>
      items().length >= count &&
      items().every(({ state }) => state === "stopped") &&
      one.claims.length + other.claims.length === 0,
    PATIENCE_MS,
  );
  one.simulator.assertNoViolations();
  const notServedOnce = items().filter(
    ({ acks, firstBeatAt, refusedBeats }) => acks.length !== 1 || firstBeatAt === undefined || refusedBeats > 0,
  );
  expect(notServedOnce, "items that were not served once").toEqual([]);
  const workers = new Set(items().map(({ acks }) => acks[0]?.workerId));
  expect(workers.size, "both had their share").toBeGreaterThan(1);
  for (const { world } of [first, second]) {
    const isParked = () => world.pods.every(({ metadata }) => metadata.labels?.[LABEL_PHASE] === "warm");
    await world.until("only free Pods are left", isParked, PATIENCE_MS);
    await world.deleteEnvironment();
    await world.until("nothing is left", () => !world.environment && world.pods.length === 0, PATIENCE_MS);
  }
}

export const TWO_CLUSTERS: readonly Scenario[] = CLUSTERS.map((options) => ({
  name: `two clusters serve one queue by mistake: ${options.what}`,
  long: options.long ?? false,
  run: (cluster, random) => besides(cluster, options, random),
}));
