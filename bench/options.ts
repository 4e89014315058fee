import { Command } from "commander";
import { namesOf, type Request, readArguments, seed, whole } from "../tools/command-line.ts";
import { KINDS } from "./node/kinds.ts";
import { WAKES_PARTS } from "./node/wakes.ts";

export interface BenchOptions {
  /** The scenarios to run, in the order in which they are listed. Empty means all. */
  readonly names: readonly string[];
  /** Exit with code 1 if a value misses its gate. */
  readonly check: boolean;
  /** Run with about a tenth of the load and the time. This shows that the bench works, but not how fast Berth is. */
  readonly quick: boolean;
  /** Seeds everything that is random. */
  readonly seed: number;
  /** The number of starts of each kind that the scenario `starts` measures. */
  readonly starts: number;
  /** These two scenarios end after this time, with the starts that they have. */
  readonly minutes: number;
  /** The kinds of starts that it measures. Empty means all that need no other runtime. */
  readonly kinds: readonly string[];
  /** The wakes of each kind after each gap that the scenario `wakes` measures. */
  readonly wakes: number;
  /** The gaps between a session's items there, in seconds. */
  readonly gaps: readonly number[];
  /** The parts of that scenario to run. Empty means all. */
  readonly parts: readonly string[];
  /** The folder for the report. The bench creates it if it doesn't exist. */
  readonly out: string;
}

export const USAGE =
  "usage: npm run bench -- [--check] [--quick] [--seed N] [--starts N] [--minutes N] [--kinds NAMES] [--wakes N] [--gaps SECONDS] [--parts NAMES] [--out DIR] [SCENARIO...]";

const DEFAULT_OUT = "bench-report";
const DEFAULT_STARTS = 200;
const MAX_STARTS = 10_000;
const DEFAULT_WAKES = 50;
const DEFAULT_GAPS = [10, 300, 1_500];
const MAX_GAP = 86_400;
const MAX_MINUTES = 1_440;

type Flags = Omit<BenchOptions, "names">;

/** Parses the arguments after `npm run bench --`. @param known the names of all scenarios */
export function parseArguments(argv: readonly string[], known: readonly string[]): Request<BenchOptions> {
  const read = readArguments<Flags>(program(known), argv);
  if (read.kind !== "run") return read;
  const wrong = read.names.find((name) => !known.includes(name));
  if (wrong !== undefined) {
    return { kind: "mistake", message: `unknown scenario '${wrong}'; use one or more of ${known.join(", ")}` };
  }
  return { kind: "run", options: { ...read.flags, names: read.names } };
}

const kindNames = namesOf(KINDS);
const partNames = namesOf(WAKES_PARTS.map((name) => ({ name })));

function gapSeconds(text: string): number[] {
  return text.split(",").map(whole(0, MAX_GAP));
}

function program(known: readonly string[]): Command {
  return new Command("npm run bench --")
    .usage("[flags] [scenario...]")
    .description("Measure Berth against what the machine can do at best, on a real API server, and write a report.")
    .argument("[scenario...]", `scenarios to run: ${known.join(", ")}; by default all that need no real node`)
    .option("--check", "fail if a gate is missed", false)
    .option("--quick", "run a small load for a short time: shows that it works, and judges nothing", false)
    .option("--seed <number>", "seed of everything that is random", seed, 1)
    .option("--starts <number>", "starts: number of starts of each kind", whole(1, MAX_STARTS), DEFAULT_STARTS)
    .option(
      "--minutes <number>",
      "starts and wakes: end after this time, and report what was measured",
      whole(1, MAX_MINUTES),
      MAX_MINUTES,
    )
    .option("--kinds <names>", "starts: kinds, separated by commas; by default all without gVisor", kindNames, [])
    .option(
      "--wakes <number>",
      "wakes: number of wakes of each kind after each gap",
      whole(1, MAX_STARTS),
      DEFAULT_WAKES,
    )
    .option(
      "--gaps <seconds>",
      "wakes: gaps between two items of a session, separated by commas",
      gapSeconds,
      DEFAULT_GAPS,
    )
    .option("--parts <names>", "wakes: parts, separated by commas; by default all", partNames, [])
    .option("--out <folder>", "folder for report.json, report.md and the plots", DEFAULT_OUT)
    .helpOption("--help", "show this help");
}
