import { newPodName } from "../../src/pods/pod-render.ts";
import type { Context, Findings, Gate, Scenario, Table } from "../scenario.ts";
import type { Beats } from "../support/beat-record.ts";
import { HEAP_OF_CHART, type LiveStage, prepareLiveStage } from "../support/live-sessions.ts";
import { LiveWork } from "../support/live-work.ts";
import { readMetrics, sumOf } from "../support/metrics-text.ts";
import { measureLoad, type ProcessLoad } from "../support/process-load.ts";
import { peakBytes } from "../support/process-status.ts";
import { stateNeeded } from "../support/session-state.ts";
import { Stand } from "../support/stand.ts";

const MIB = 1_024 * 1_024;
const MEGABYTE = 1_000_000;
const SECOND_MS = 1_000;
/** The heartbeat interval from docs/leases.md: max(1 s, min(TTL / 2, 30 s)). */
const INTERVAL_MS = 30_000;

const ABOUT = `Live sessions with \`lease: Operator\`: each lease needs a heartbeat every 30 s, and none may be late. For each
session, the bench writes what a previous operator leaves behind: a running Pod, its Secret, and an item with heartbeats. The
sessions are spread over several Environments. The built operator then adopts them, in a separate process. Its CPU and memory
come from /proc, the times of heartbeats from the Work API. No containers run: the status of the Pods is written once.`;

interface Load {
  readonly environments: number;
  readonly sessions: number;
  readonly ttlSeconds: number;
  /**
   * The TTL of the leases that the operator adopts. A busy machine must not lose them before the measurement starts.
   */
  readonly firstTtlSeconds: number;
  /** How many times faster than real time the operator's times run. */
  readonly timeScale: number;
  /** How long to measure the operator without sessions, and with all sessions. */
  readonly idleMs: number;
  readonly measureMs: number;
}

const FULL: Load = {
  environments: 20,
  sessions: 10_000,
  ttlSeconds: 90,
  firstTtlSeconds: 180,
  timeScale: 1,
  idleMs: 10_000,
  measureMs: 120_000,
};
const QUICK: Load = {
  environments: 3,
  sessions: 300,
  ttlSeconds: 24,
  firstTtlSeconds: 24,
  timeScale: 5,
  idleMs: 2_000,
  measureMs: 10_000,
};

export const manySessions: Scenario = {
  name: "many-sessions",
  title: "Many sessions: heartbeats on time, memory and CPU of the operator",
  about: ABOUT,
  run: (context) => run(context, context.options.quick ? QUICK : FULL),
};

interface Measured {
  readonly idle: ProcessLoad;
  readonly load: ProcessLoad;
  readonly peakBytes: number;
  readonly beats: Beats;
  /** The share of heartbeats that were sent within a second of their due time, from the operator's own histogram. */
  readonly punctual: number;
  readonly sent: number;
  /** The requests that it sent to the Work API during the measurement, including heartbeats. */
  readonly active: number;
}

async function run({ log }: Context, load: Load): Promise<Findings> {
  await using things = new AsyncDisposableStack();
  const stand = things.use(await Stand.start());
  const { environments, sessions, ttlSeconds, firstTtlSeconds, timeScale } = load;
  const work = things.use(
    await LiveWork.start({
      ...{ environments, sessions, ttlSeconds },
      desiredTtlSeconds: firstTtlSeconds,
      beatMs: (25 * SECOND_MS) / timeScale,
    }),
  );
  const stage = await prepareLiveStage(stand, work, things);
  const measured = await measure(stand, stage, work, load, log);
  return findings(load, measured, work);
}

async function measure(
  stand: Stand,
  stage: LiveStage,
  work: LiveWork,
  { sessions, timeScale, idleMs, measureMs }: Load,
  log: (line: string) => void,
): Promise<Measured> {
  const start = () => stand.operator(work.url, ["--leader-elect=false", ...stage.flags], HEAP_OF_CHART, timeScale);
  const before = await start();
  const idle = await measureLoad(before.pid, pause(idleMs));
  await before.stop();
  const writingAt = performance.now();
  await stage.writeSessions();
  log(`${sessions} sessions written in ${((performance.now() - writingAt) / SECOND_MS).toFixed(0)} s`);

  await work.ask({ do: "hand-over", fresh: true });
  await work.ask({ do: "mark" });
  const operator = await start();
  await untilBeaten(work, sessions);
  log("the operator has sent a heartbeat for every lease");
  await work.ask({ do: "mark" });
  const from = await readMetrics(operator.addresses.metrics);
  const used = await measureLoad(operator.pid, pause(measureMs));
  const beats = await work.ask({ do: "beats", intervalMs: INTERVAL_MS / timeScale });
  const to = await readMetrics(operator.addresses.metrics);
  const { states } = await work.account();
  const grown = (name: string, label = "") => sumOf(to, name, label) - sumOf(from, name, label);
  const sent = grown("berth_heartbeat_lateness_seconds_count");
  const peak = await peakBytes(operator.pid);
  await operator.stop();
  return {
    ...{ idle, load: used, beats, sent, peakBytes: peak },
    punctual: grown("berth_heartbeat_lateness_seconds_bucket", 'le="1"') / sent,
    active: states["active"] ?? 0,
  };
}

/**
 * The operator waits until a heartbeat value hasn't changed for 50 s, and 2.5 s for pending requests of the previous
 * process.
 */
const TAKEN_WITHIN_MS = 180_000;
const LOOK_MS = 500;

async function untilBeaten(work: LiveWork, sessions: number): Promise<void> {
  const endsAt = performance.now() + TAKEN_WITHIN_MS;
  for (;;) {
    const { items } = await work.ask({ do: "beats", intervalMs: INTERVAL_MS });
    if (items === sessions) return;
    if (performance.now() > endsAt) throw new Error(`${items} of ${sessions} leases got a heartbeat`);
    await pause(LOOK_MS);
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function findings({ sessions, environments, timeScale }: Load, measured: Measured, work: LiveWork): Findings {
  const { idle, load, beats, punctual, sent, active } = measured;
  const [item] = work.environments[0]?.items ?? [];
  if (!item) throw new Error("no items");
  const needed = stateNeeded(newPodName("live-0"), item);
  const perSession = (load.rssBytes.mean - idle.rssBytes.mean) / sessions;
  const memory: Table = {
    title: "Memory of the operator's process (resident set)",
    columns: ["", "MiB"],
    rows: [
      [`${environments} Environments without a session`, idle.rssBytes.mean / MIB],
      [`with ${sessions} live sessions, mean`, load.rssBytes.mean / MIB],
      ["with them, maximum", load.rssBytes.max / MIB],
      ["maximum since its start, including recovery", measured.peakBytes / MIB],
      ["per session, bytes", perSession],
      ["state needed per session, bytes", needed.bytes],
      ["per session, divided by the state needed", perSession / needed.bytes],
    ],
  };
  const { p50, p90, p99, max } = beats.intervals;
  const times: Table = {
    title: "Heartbeats, as the Work API received them",
    columns: ["", "count", "p50 ms", "p90 ms", "p99 ms", "max ms"],
    rows: [["from one heartbeat of a session to the next", beats.count - beats.items, p50, p90, p99, max]],
  };
  const cpu: Table = {
    title: "CPU of the operator's process",
    columns: ["", "cores", "ms per heartbeat"],
    rows: [
      ["without a session", idle.cores, ""],
      ["with all sessions", load.cores, (load.cores * load.seconds * SECOND_MS) / beats.count],
    ],
  };
  const gates: Gate[] = [
    {
      name: `heartbeats later than ${INTERVAL_MS / timeScale} ms after the previous one`,
      value: beats.tooLong,
      atMost: 0,
      unit: "heartbeats",
    },
    { name: "heartbeats sent within a second of their due time (p99 < 1 s)", value: punctual, atLeast: 0.99, unit: "" },
    {
      name: "live sessions without a heartbeat, or lost",
      value: sessions - Math.min(active, beats.items),
      atMost: 0,
      unit: "sessions",
    },
    { name: "resident memory, maximum", value: load.rssBytes.max / MEGABYTE, atMost: 250, unit: "MB" },
    { name: "CPU", value: load.cores, atMost: 0.5, unit: "cores" },
  ];
  const notes = [
    `The operator sent ${sent} heartbeats in ${load.seconds.toFixed(0)} s, ${(sent / load.seconds).toFixed(0)} per second. The control plane and the Work API run on the same cores.`,
  ];
  return { tables: [memory, times, cpu, needed], gates, notes };
}
