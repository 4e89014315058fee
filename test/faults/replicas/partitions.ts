import type { Replica } from "./replica.ts";
import { LATE_PACE, pause, type ReplicaWorld } from "./replica-world.ts";
import type { Passing, Rule, Treatment } from "./request-proxy.ts";
import { between, oneOf, type Scenario, scenario, seedOf } from "./scenario.ts";

/** The requests of the partitioned replica that are affected. */
interface Part {
  readonly what: string;
  /** The server that these requests go to. */
  readonly at: "kube" | "work";
  readonly which: (passing: Passing) => boolean;
  /** Whether the replica can't renew its Lease, so that another one leads after a while. */
  readonly losesLease: boolean;
}

/** What happens to these requests. Held requests take effect when the partition ends. */
type How = "hang" | "are held" | "are reset" | "get no reply";

const isLease = ({ call }: Passing) => call.endsWith(" leases");
const isWatch = ({ call }: Passing) => call.startsWith("watch ");

const PARTS = {
  all: { what: "all requests to the API server", at: "kube", which: () => true, losesLease: true },
  writes: { what: "all writes to the API server", at: "kube", which: ({ isWrite }) => isWrite, losesLease: true },
  leases: { what: "requests about Leases", at: "kube", which: isLease, losesLease: true },
  others: {
    what: "writes to the API server but those of Leases",
    at: "kube",
    which: (passing) => passing.isWrite && !isLease(passing),
    losesLease: false,
  },
  watches: { what: "watches", at: "kube", which: isWatch, losesLease: false },
  work: { what: "requests to the Work API", at: "work", which: () => true, losesLease: false },
} as const satisfies Record<string, Part>;

/**
 * Short: within the renew deadline of 10 s minus the time of a renewal. Long: beyond a Lease of 15 s plus a candidate's
 * pause.
 */
const SHORT_MS = [2_000, 5_000] as const;
const LONG_MS = [22_000, 26_000] as const;

interface Partition {
  readonly part: Part;
  readonly how: How;
  readonly for: "short" | "long";
  readonly lease?: "Operator";
}

const hows: readonly How[] = ["hang", "are held", "are reset", "get no reply"];

const IN_CI: readonly Partition[] = [
  { part: PARTS.all, how: "hang", for: "long" },
  { part: PARTS.work, how: "get no reply", for: "long" },
];

const ALL: readonly Partition[] = Object.values(PARTS).flatMap((part) =>
  hows.flatMap((how) => (["short", "long"] as const).map((length): Partition => ({ part, how, for: length }))),
);

/**
 * Excludes partitions that would make a Work API request arrive so late that the server's window, not Berth, is at
 * fault.
 */
function isSensible({ part, how, for: length }: Partition): boolean {
  return !(part.at === "work" && how === "are held" && length === "long");
}

/** Cuts a replica off until `heal`. */
function cut(world: ReplicaWorld, replica: Replica, { part, how }: Partition): { heal: () => void } {
  const healed = Promise.withResolvers<void>();
  const never = new Promise<never>(() => {});
  const treatments: Readonly<Record<How, Treatment>> = {
    hang: { before: never },
    "are held": { before: healed.promise },
    "are reset": { before: "reset" },
    "get no reply": { after: never },
  };
  const isCut = (passing: Passing) => replica.is(passing) && part.which(passing);
  const rule: Rule = (passing) => (isCut(passing) ? treatments[how] : undefined);
  const off = world[part.at].rule(rule);
  // Watches are replies in flight. Unless they were reset, TCP delivers what it held back once the network recovers.
  const streams = world[part.at].freeze(isCut);
  if (how === "are reset") streams.reset();
  return {
    heal: () => {
      off();
      if (how === "are held") streams.resume();
      else streams.reset();
      healed.resolve();
    },
  };
}

function partitionOf(partition: Partition): Scenario {
  const { part, how, for: length, lease } = partition;
  const time = length === "short" ? "less than the renew deadline" : "longer than a Lease lasts";
  return scenario({
    name: `${lease ? `lease: ${lease}: ` : ""}of one replica ${part.what} ${how} for ${time}`,
    long: !IN_CI.includes(partition),
    world: lease ? { lease } : how === "are held" ? LATE_PACE : {},
    async act(world, random) {
      const replica = await world.replica();
      await world.untilHeldBy(replica);
      const other = await world.replica();
      world.load({ ratePerSecond: lease ? 0.3 : 0.7, durationSeconds: 30, seed: seedOf(random) });
      await world.untilServing(replica);
      await pause(between(random, 0, 2_000));

      const [minMs, maxMs] = length === "short" ? SHORT_MS : LONG_MS;
      const { heal } = cut(world, replica, partition);
      const passes = pause(between(random, minMs, maxMs));
      const isLost = part.losesLease && length === "long";
      if (isLost) await world.untilHeldBy(other);
      await passes;
      if (isLost) {
        const silent = world.expectSilent(replica);
        heal();
        await silent;
      } else {
        heal();
        await world.untilHeldBy(replica);
      }
      // The replica that was partitioned must be fully functional again.
      if (oneOf(random, true, false)) {
        const [leader, next] = isLost ? [other, replica] : [replica, other];
        await leader.process.kill();
        await world.untilHeldBy(next);
      }
    },
  });
}

const rest = ALL.filter((one) => isSensible(one) && !IN_CI.some((ci) => isSame(ci, one)));

function isSame(a: Partition, b: Partition): boolean {
  return a.part === b.part && a.how === b.how && a.for === b.for;
}

const OPERATOR: readonly Partition[] = [
  { part: PARTS.work, how: "get no reply", for: "long", lease: "Operator" },
  { part: PARTS.all, how: "hang", for: "long", lease: "Operator" },
  { part: PARTS.writes, how: "are held", for: "long", lease: "Operator" },
];

export const PARTITIONS: readonly Scenario[] = [...IN_CI, ...rest, ...OPERATOR].map(partitionOf);
