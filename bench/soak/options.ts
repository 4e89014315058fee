import { Command } from "commander";
import { duration as atLeast, namesOf, positive, type Request, readArguments, seed } from "../../tools/command-line.ts";
import { KINDS } from "./kinds.ts";

export interface SoakOptions {
  /** How long sessions arrive. The soak then serves what is still in progress. */
  readonly forMs: number;
  /** The average number of sessions per second, over all Environments. */
  readonly rate: number;
  /** Seeds the arrivals, the trouble, and the way sessions end. */
  readonly seed: number;
  /** The file for all samples and the verdict, as JSON. */
  readonly json: string | undefined;
  /** The kinds of Environments. Empty means all. */
  readonly kinds: readonly string[];
  /** Kills operators in every round. What a process holds is then not judged. */
  readonly kills: boolean;
}

export const USAGE =
  "usage: npm run soak -- [--for TIME] [--rate N] [--seed N] [--kinds NAMES] [--kills] [--json FILE]";

const DEFAULT_FOR = "5m";
/** Two cores that also run the control plane and the node can serve this rate and stay responsive. */
const DEFAULT_RATE = 2;
/** A slope needs at least three rounds, and a shorter round serves too few sessions. */
export const SHORTEST_FOR_MS = 30_000;
const MAX_RATE = 100;

interface Flags {
  readonly for: number;
  readonly rate: number;
  readonly seed: number;
  readonly json?: string;
  readonly kinds: readonly string[];
  readonly kills: boolean;
}

/** Parses the arguments after `npm run soak --`. */
export function parseArguments(argv: readonly string[]): Request<SoakOptions> {
  const read = readArguments<Flags>(program(), argv);
  if (read.kind !== "run") return read;
  const { for: forMs, rate, seed, json, kinds, kills } = read.flags;
  return { kind: "run", options: { forMs, rate, seed, json, kinds, kills } };
}

function program(): Command {
  return new Command("npm run soak --")
    .usage("[flags]")
    .description("Serve sessions in rounds, with faults of every kind, and check whether the operator grows.")
    .option("--for <time>", "how long sessions arrive, such as 90s, 15m or 8h", duration, duration(DEFAULT_FOR))
    .option("--rate <number>", "average number of sessions per second", positive(MAX_RATE), DEFAULT_RATE)
    .option("--seed <number>", "seed of everything that is random", seed, 1)
    .option("--kinds <names>", "kinds of Environments, separated by commas; all by default", namesOf(KINDS), [])
    .option("--kills", "kill the operator in every round, and judge only sessions", false)
    .option("--json <file>", "write every sample and the verdict to this file")
    .helpOption("--help", "show this help")
    .allowExcessArguments(false);
}

function duration(text: string): number {
  return atLeast(text, SHORTEST_FOR_MS);
}
