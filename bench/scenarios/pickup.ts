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
const WORK_MS = 1_000;
/** More than are ever taken before their successors are parked: what is measured is no waiting for Pods. */
const WARM = 20;
/**
 * Each session has the scheduler, the node and the API server make it another Pod: at five a second that alone takes most
 * of two cores, and what is measured is the queue for them. What they can take is the question of another scenario.
 */
const PER_SECOND = 1;
const SERVERS: readonly Server[] = ["bare loop", "Berth"];

export const pickup: Scenario = {
  name: "pickup",
  title: "Pick-up",
  about:
    "From an item's arrival in the queue to its Pod touched, one Environment. The limit is a bare loop: the same calls in the " +
    "same order over the same libraries, in a process of its own, with all Pods parked beforehand and nothing else to do. " +
    "Both serve the same arrivals on one API server, in turns. Each has served some items before they count.",
  run,
};

/** From its arrival, in milliseconds, item by item; and the steps on the way. */
class Waits {
  readonly opened: number[] = [];
  readonly beat: number[] = [];
  readonly phases = new Phases();
  cpuMs = 0;

  add({ items, touches, entries, cpuMs }: Round): void {
    this.cpuMs += cpuMs;
    for (const { id, createdAt, firstBeatAt } of items) {
      const touchedAt = touches.at.get(id);
      if (touchedAt === undefined || firstBeatAt === undefined) throw new Error(`${id} was not served`);
      this.opened.push(touchedAt - createdAt);
      this.beat.push(firstBeatAt - createdAt);
    }
    this.phases.add(items, touches, entries);
  }
}

async function run({ options, log }: Context): Promise<Findings> {
  await using stand = await Stand.start();
  await stand.node({ seed: options.seed, fates: () => ({ kind: "worker", workMs: WORK_MS }) });
  const rows: Cell[][] = [];
  const steps: Cell[][] = [];
  const cpu: Cell[][] = [];
  const gates: Gate[] = [];
  const plots = [];
  for (const load of loadsOf(options.seed, options.quick)) {
    const [bare, berth] = [new Waits(), new Waits()];
    for (let round = 1; round <= load.rounds; round += 1) {
      log(`${load.name}, round ${round} of ${load.rounds}: ${load.atSeconds.length} items`);
      bare.add(await serveRound(stand, load, "bare loop", round));
      berth.add(await serveRound(stand, load, "Berth", round));
    }
    for (const [at, waits] of [bare, berth].entries()) {
      const name = `${load.name}: ${SERVERS[at]}`;
      rows.push([`${name}, queued to opened`, ...distributionCells(waits.opened)]);
      rows.push([`${name}, queued to first beat`, ...distributionCells(waits.beat)]);
      steps.push(...waits.phases.rows(name));
      cpu.push([name, waits.cpuMs / waits.opened.length]);
    }
    const [limit, ours] = [quantiles(bare.opened), quantiles(berth.opened)];
    const name = (share: string) => `${load.name}: ${share} of queued to opened, over the bare loop's`;
    gates.push({ name: name("p50"), value: ours.p50 / limit.p50, atMost: P50_AT_MOST, unit: "x" });
    gates.push({ name: name("p99"), value: ours.p99 / limit.p99, atMost: P99_AT_MOST, unit: "x" });
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
    { title: "Each step, from the one before", columns, rows: steps },
    { title: "CPU of the process", columns: ["", "milliseconds an item"], rows: cpu },
  ];
  return { tables, gates, plots };
}

function loadsOf(seed: number, quick: boolean): Load[] {
  const seconds = quick ? 15 : 60;
  const burst = quick ? 20 : 100;
  const rounds = quick ? 1 : 3;
  return [
    { name: "poisson", warm: WARM, atSeconds: poisson(seed, PER_SECOND, seconds), rounds },
    { name: "burst", warm: burst, atSeconds: Array.from({ length: burst }, () => 0), rounds },
  ];
}

function poisson(seed: number, ratePerSecond: number, durationSeconds: number): number[] {
  return [...arrivalTimes({ kind: "poisson", seed, ratePerSecond, durationSeconds })].map((ms) => ms / MS_PER_SECOND);
}
