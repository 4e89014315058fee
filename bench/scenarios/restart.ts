import type { OperatorProcess } from "../../test/support/operator-process.ts";
import { linePlot } from "../report/plot.ts";
import type { Context, Findings, Gate, Scenario } from "../scenario.ts";
import type { Beats } from "../support/beat-record.ts";
import { HEAP_OF_CHART, prepareLiveStage } from "../support/live-sessions.ts";
import { LiveWork } from "../support/live-work.ts";
import { OPERATOR_NAMESPACE, Stand } from "../support/stand.ts";

const SECOND_MS = 1_000;
/**
 * From docs/leases.md: how long requests of the previous process may still arrive, and how long a value must not
 * change.
 */
const LANDED_MS = 2_500;
const STILL_MS = 50_000;
const TTL_MS = 90_000;
const REPLICAS = 3;
/**
 * Each look costs the process that runs the Work API about ten milliseconds. That process also records when the last
 * heartbeat came.
 */
const LOOK_MS = 1_000;

const ABOUT = `An operator starts and finds live sessions with \`lease: Operator\`. A previous operator sent their heartbeats until
it was killed. The protocol makes the new operator wait: requests of the previous one can take effect for 2.5 s, and then each
heartbeat value must not change for 50 s. Only that shows that no other client took the item ([leases](../docs/leases.md)).
The operator adds its own time: start, lists, one walk through the items, and one heartbeat per session, all due at the same
time. Then three replicas share the Environments as three shards, and one of them is killed.`;

interface Load {
  readonly environments: number;
  readonly sessions: number;
  /** How many times faster than real time the operator's times run. */
  readonly timeScale: number;
  /** The time between the end of one operator and the start of the next. */
  readonly awayMs: number;
  /**
   * The time from the first heartbeats of all leases by three replicas to the death of one replica. Shards may move
   * until then. Null: no replica dies.
   */
  readonly settledMs: number | null;
}

const FULL: Load = { environments: 24, sessions: 10_000, timeScale: 1, awayMs: 0, settledMs: 60_000 };
// The time scale doesn't speed up elections, and a value must not change for longer than a heartbeat interval.
const QUICK: Load = { environments: 3, sessions: 300, timeScale: 5, awayMs: 6_000, settledMs: null };

export const restart: Scenario = {
  name: "restart",
  title: "Restart: until the last lease gets a heartbeat again",
  about: ABOUT,
  run: (context) => run(context, context.options.quick ? QUICK : FULL),
};

/** The result of one takeover. Times are milliseconds since it began. */
interface TakeOver {
  readonly sessions: number;
  readonly firstMs: number;
  readonly lastMs: number;
  readonly lost: number;
  /** When each lease got its first heartbeat. */
  readonly beatenMs: readonly number[];
}

async function run({ log }: Context, load: Load): Promise<Findings> {
  await using things = new AsyncDisposableStack();
  const stand = things.use(await Stand.start());
  const { environments, sessions, timeScale, awayMs } = load;
  const work = things.use(
    await LiveWork.start({
      ...{ environments, sessions },
      desiredTtlSeconds: 180 / timeScale,
      beatMs: (25 * SECOND_MS) / timeScale,
    }),
  );
  const stage = await prepareLiveStage(stand, work, things);
  await stage.writeSessions();
  log(`${sessions} sessions written`);
  const start = (flags: readonly string[]) =>
    stand.operator(work.url, [...flags, ...stage.flags], HEAP_OF_CHART, timeScale);

  await work.ask({ do: "hand-over", fresh: false });
  await pause(awayMs);
  const startedAt = await mark(work);
  const first = await start(["--leader-elect=false"]);
  const alone = await takeOver(work, startedAt, sessions);
  log(`adopted within ${seconds(alone.lastMs)} s`);
  await first.kill();
  const replica = load.settledMs === null ? null : await replicaDies(work, start, load.settledMs, log);
  await work.account();
  return findings(load, alone, replica);
}

async function replicaDies(
  work: LiveWork,
  start: (flags: readonly string[]) => Promise<OperatorProcess>,
  settledMs: number,
  log: (line: string) => void,
): Promise<TakeOver> {
  await mark(work);
  const flags = ["--shards", String(REPLICAS), "--leader-elect-namespace", OPERATOR_NAMESPACE];
  const replicas = await Promise.all(Array.from({ length: REPLICAS }, () => start(flags)));
  const { items } = await untilBeaten(work, work.count);
  if (items < work.count) throw new Error(`${REPLICAS} replicas sent heartbeats for ${items} of ${work.count} leases`);
  await pause(settledMs);
  log(`${REPLICAS} replicas have sent a heartbeat for every lease`);
  const killedAt = await mark(work);
  await replicas[0]?.kill();
  // The leases of the other replicas get a heartbeat within an interval. Those that moved to another holder belonged to
  // the dead replica.
  const beats = await untilBeaten(work, work.count);
  return takenOver(beats.moved, killedAt, beats.moved.length, work);
}

async function mark(work: LiveWork): Promise<number> {
  await work.ask({ do: "mark" });
  return Date.now();
}

async function takeOver(work: LiveWork, startedAt: number, sessions: number): Promise<TakeOver> {
  const { firsts } = await untilBeaten(work, sessions);
  return takenOver(firsts, startedAt, sessions, work);
}

async function takenOver(firsts: readonly number[], from: number, sessions: number, work: LiveWork): Promise<TakeOver> {
  const { states } = await work.account();
  const beatenMs = firsts.map((at) => at - from);
  return {
    ...{ sessions, beatenMs },
    firstMs: beatenMs[0] ?? Number.NaN,
    lastMs: beatenMs.at(-1) ?? Number.NaN,
    lost: work.count - (states["active"] ?? 0),
  };
}

/** No lease is 180 s old by then. */
const PATIENCE_MS = 170_000;

/** Resolves when `sessions` leases got a heartbeat, or when no more will get one, with the heartbeats so far. */
async function untilBeaten(work: LiveWork, sessions: number): Promise<Beats> {
  const endsAt = performance.now() + PATIENCE_MS;
  for (;;) {
    const beats = await work.ask({ do: "beats", intervalMs: TTL_MS });
    if (beats.items >= sessions || performance.now() > endsAt) return beats;
    await pause(LOOK_MS);
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function findings({ timeScale }: Load, alone: TakeOver, replica: TakeOver | null): Promise<Findings> {
  const waitMs = LANDED_MS + STILL_MS / timeScale;
  const row = (name: string, { sessions, firstMs, lastMs, lost }: TakeOver) => [
    name,
    sessions,
    firstMs / SECOND_MS,
    lastMs / SECOND_MS,
    lost,
  ];
  const plot = await linePlot(
    {
      name: "heartbeats",
      title: "Leases that got a heartbeat again",
      x: { title: "seconds" },
      y: { title: "share of the sessions" },
      isStepped: true,
    },
    [
      { name: "after the start of a process", points: sharesOf(alone) },
      ...(replica ? [{ name: "after a replica was killed", points: sharesOf(replica) }] : []),
    ],
  );
  return {
    tables: [
      {
        title: "Until leases get a heartbeat again",
        columns: ["", "sessions", "first s", "last s", "lost"],
        rows: [
          row("from the start of the process", alone),
          ...(replica ? [row("from the death of one of three replicas", replica)] : []),
          ["of that, the protocol's wait", "", waitMs / SECOND_MS, waitMs / SECOND_MS, ""],
        ],
      },
    ],
    gates: [
      {
        name: `from the start of the process to the last heartbeat, beyond the protocol's ${waitMs / SECOND_MS} s`,
        value: (alone.beatenMs.length < alone.sessions ? Number.NaN : alone.lastMs - waitMs) / SECOND_MS,
        atMost: 10,
        unit: "s",
      },
      { name: "sessions lost by a restart", value: alone.lost, atMost: 0, unit: "sessions" },
      ...(replica ? replicaGates(replica) : []),
    ],
    plots: [plot],
    notes: [
      "This API does not allow a restart within 10 s. It binds no lease to its holder, so only an unchanged value shows that no other client took the lease. The server grants the 180 s that the operator requests.",
    ],
  };
}

function replicaGates({ lastMs, lost }: TakeOver): Gate[] {
  return [
    {
      name: "a replica dies: until the last of its sessions gets a heartbeat (one TTL)",
      value: lastMs / SECOND_MS,
      atMost: TTL_MS / SECOND_MS,
      unit: "s",
    },
    { name: "sessions lost by the death of a replica", value: lost, atMost: 0, unit: "sessions" },
  ];
}

function sharesOf({ beatenMs, sessions }: TakeOver) {
  const every = Math.max(1, Math.floor(beatenMs.length / MOST_POINTS));
  return beatenMs.flatMap((ms, at) =>
    at % every === 0 || at === beatenMs.length - 1 ? [{ x: ms / SECOND_MS, y: (at + 1) / sessions }] : [],
  );
}

const MOST_POINTS = 500;

const seconds = (ms: number) => (ms / SECOND_MS).toFixed(1);
