import { arrivalTimes } from "../../simulator/arrivals.ts";
import { DISTRIBUTION_COLUMNS, distributionCells, quantiles } from "../report/distribution.ts";
import { linePlot, shares } from "../report/plot.ts";
import type { Cell, Context, Findings, Gate, Scenario } from "../scenario.ts";
import { Phases } from "../support/phases.ts";
import { type Load, type Round, type Server, serveRound } from "../support/round.ts";
import { Stand } from "../support/stand.ts";

const P50_AT_MOST = 1.25;
const P99_AT_MOST = 1.5;
const MS_PER_SECOND = 1_000;
/**
 * Long enough that no session of a burst ends before its last item is picked up. The cost of ending sessions is part of
 * the throughput scenario.
 */
const WORK_MS = 5_000;
/**
 * More Pods than are taken before their successors are parked, so that the scenario doesn't measure the wait for Pods.
 */
const WARM = 20;
/**
 * Each session makes the scheduler, the node, and the API server create another Pod. At five sessions per second, this
 * alone takes most of two cores, and the scenario would measure their queue. Another scenario measures what they can
 * take.
 */
const PER_SECOND = 1;
const SERVERS: readonly Server[] = ["bare loop", "Berth"];

export const pickup: Scenario = {
  name: "pickup",
  title: "Pick-up",
  about:
    "The time from an item's arrival in the queue until its Pod is touched, in one Environment. The limit is a bare " +
    "loop: the same calls in the same order over the same libraries, in a separate process. All its Pods are parked " +
    "beforehand, and it does nothing else. Both serve the same arrivals on one API server, in turns. Each serves " +
    "some items before the measurement. A gate applies to the median of the rounds' ratios, because the speed of a " +
    "shared machine may change between the two halves of a round.",
  run,
};

/** The wait of each item from its arrival, in milliseconds, and the steps in between. */
class Waits {
  readonly opened: number[] = [];
  readonly beat: number[] = [];
  readonly phases = new Phases();
  cpuMs = 0;

  /** Adds a round. @returns the times from queued to opened, of this round only */
  add({ items, touches, entries, cpuMs }: Round): number[] {
    const opened: number[] = [];
    this.cpuMs += cpuMs;
    for (const { id, createdAt, firstBeatAt } of items) {
      const touchedAt = touches.at.get(id);
      if (touchedAt === undefined || firstBeatAt === undefined) throw new Error(`${id} was not served`);
      opened.push(touchedAt - createdAt);
      this.beat.push(firstBeatAt - createdAt);
    }
    this.opened.push(...opened);
    this.phases.add(items, touches, entries);
    return opened;
  }
}

async function run({ options, log }: Context): Promise<Findings> {
  await using stand = await Stand.start();
  await stand.node({ seed: options.seed, fates: () => ({ kind: "worker", workMs: WORK_MS }) });
  const rows: Cell[][] = [];
  const steps: Cell[][] = [];
  const cpu: Cell[][] = [];
  const ratioRows: Cell[][] = [];
  const gates: Gate[] = [];
  const plots = [];
  for (const load of loadsOf(options.seed, options.quick)) {
    const [bare, berth] = [new Waits(), new Waits()];
    const ratios: { readonly p50: number; readonly p99: number }[] = [];
    for (let round = 1; round <= load.rounds; round += 1) {
      log(`${load.name}, round ${round} of ${load.rounds}: ${load.atSeconds.length} items`);
      const limit = quantiles(bare.add(await serveRound(stand, load, "bare loop", round)));
      const ours = quantiles(berth.add(await serveRound(stand, load, "Berth", round)));
      const ratio = { p50: ours.p50 / limit.p50, p99: ours.p99 / limit.p99 };
      ratios.push(ratio);
      ratioRows.push([`${load.name}, round ${round}`, ratio.p50, ratio.p99]);
    }
    for (const [at, waits] of [bare, berth].entries()) {
      const name = `${load.name}: ${SERVERS[at]}`;
      rows.push([`${name}, queued to opened`, ...distributionCells(waits.opened)]);
      rows.push([`${name}, queued to first heartbeat`, ...distributionCells(waits.beat)]);
      steps.push(...waits.phases.rows(name));
      cpu.push([name, waits.cpuMs / waits.opened.length]);
    }
    const name = (share: string) => `${load.name}: ${share} of queued to opened, divided by the bare loop's`;
    gates.push({
      name: name("p50"),
      value: quantiles(ratios.map(({ p50 }) => p50)).p50,
      atMost: P50_AT_MOST,
      unit: "x",
    });
    gates.push({
      name: name("p99"),
      value: quantiles(ratios.map(({ p99 }) => p99)).p50,
      atMost: P99_AT_MOST,
      unit: "x",
    });
    const axes = {
      x: { title: "milliseconds from queued to opened", isLog: true },
      y: { title: "share of the items" },
    };
    const series = [shares("bare loop", bare.opened), shares("Berth", berth.opened)];
    plots.push(await linePlot({ name: load.name, title: `Queued to opened: ${load.name}`, ...axes }, series));
  }
  const columns = ["milliseconds", ...DISTRIBUTION_COLUMNS];
  const tables = [
    { title: "Pick-up", columns, rows },
    { title: "Berth divided by the bare loop, queued to opened", columns: ["", "p50", "p99"], rows: ratioRows },
    { title: "Each step since the previous one", columns, rows: steps },
    { title: "CPU of the process", columns: ["", "milliseconds per item"], rows: cpu },
  ];
  return { tables, gates, plots };
}

function loadsOf(seed: number, quick: boolean): Load[] {
  const seconds = quick ? 15 : 30;
  const burst = quick ? 20 : 100;
  // Odd numbers, for medians. Many short rounds cover more states of the machine. Single bursts vary the most.
  const [rounds, bursts] = quick ? [1, 1] : [7, 11];
  return [
    { name: "poisson", warm: WARM, atSeconds: poisson(seed, PER_SECOND, seconds), rounds },
    { name: "burst", warm: burst, atSeconds: Array.from({ length: burst }, () => 0), rounds: bursts },
  ];
}

function poisson(seed: number, ratePerSecond: number, durationSeconds: number): number[] {
  return [...arrivalTimes({ kind: "poisson", seed, ratePerSecond, durationSeconds })].map((ms) => ms / MS_PER_SECOND);
}
