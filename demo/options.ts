import { Command, InvalidArgumentError } from "commander";
import { duration as atLeast, positive, type Request, readArguments, seed, whole } from "../tools/command-line.ts";

export interface DemoOptions {
  /** The demo ends after this time; undefined: it runs until interrupted. */
  readonly forMs: number | undefined;
  /** The average number of sessions that arrive per second. */
  readonly rate: number;
  /** `spec.sessions.warm` and `spec.sessions.maxConcurrent` of the Environment with a Pod per session. */
  readonly warm: number;
  readonly max: number;
  /** `spec.workers.maxReplicas` of the Environment with always-on workers; 0: without that Environment. */
  readonly workers: number;
  /** The seed of the arrivals and the sessions' scripts. */
  readonly seed: number;
  /** The simulated node plays the workers instead of running processes. */
  readonly scripted: boolean;
  /** Use the cluster of KUBECONFIG instead of starting one. */
  readonly useCluster: boolean;
}

export const USAGE =
  "usage: npm run demo -- [--for TIME] [--rate N] [--warm N] [--max N] [--workers N] [--seed N] [--scripted] " +
  "[--use-cluster]";

/** A stock worker takes half a second of CPU to start: two cores serve one every two seconds and stay responsive. */
const DEFAULT_RATE = 0.5;
/** A scripted worker costs a few requests. */
const DEFAULT_SCRIPTED_RATE = 2;
const DEFAULT_WARM = 2;
const DEFAULT_MAX = 10;
/** Two cores start this many within a second or two. */
const DEFAULT_WORKERS = 3;
/** Simulated workers cost little. The default of `behavior` starts more than four in steps. */
const DEFAULT_SCRIPTED_WORKERS = 8;

/** More than one machine can serve, so it is probably a typo. */
const MAX_RATE = 100;
/** The number of Pods that the node allows. */
const MAX_PODS = 1_000;

const SECOND_MS = 1_000;
/** The first session alone takes some seconds. */
const SHORTEST_FOR_MS = 5 * SECOND_MS;
const LONGEST_FOR_MS = 24 * 3_600 * SECOND_MS;

const EXAMPLES = `
The control plane is real: etcd, API server, controller-manager, scheduler. The node is simulated: its containers are
processes on this machine. The first run downloads the control plane, or builds it with Go 1.26 in a few minutes.

  npm run demo                                     until Ctrl-C
  npm run demo -- --for 60s                        for a minute; the exit code is 0 only if every session was served
                                                   and nothing was left over
  npm run demo -- --scripted --rate 5 --warm 10 --max 50
                                                   more sessions than this machine could run processes for
  KUBECONFIG=... npm run demo -- --use-cluster     in your own cluster, in a new namespace

The demo has two Environments. research has a Pod for each session, in which the session sleeps between messages.
batch has always-on workers that serve one session after another. Berth scales them with the queue. With --scripted,
the simulated node plays the workers of both: they hold leases and execute nothing. See docs/demo.md.
`;

interface Flags {
  readonly for?: number;
  readonly rate?: number;
  readonly warm?: number;
  readonly max?: number;
  readonly workers?: number;
  readonly seed: number;
  readonly scripted: boolean;
  readonly useCluster: boolean;
}

/** Reads the arguments after `npm run demo --`. */
export function parseArguments(argv: readonly string[]): Request<DemoOptions> {
  const read = readArguments<Flags>(program(), argv);
  if (read.kind !== "run") return read;
  const options = optionsOf(read.flags);
  if (options.warm > options.max) {
    const message = `--warm ${options.warm} is more than --max ${options.max}: lower --warm or raise --max`;
    return { kind: "mistake", message };
  }
  return { kind: "run", options };
}

function optionsOf(flags: Flags): DemoOptions {
  const { scripted, useCluster, seed } = flags;
  // An explicit flag wins; the default of the other adapts to it.
  const max = flags.max ?? Math.max(DEFAULT_MAX, flags.warm ?? 0);
  return {
    forMs: flags.for,
    rate: flags.rate ?? (scripted ? DEFAULT_SCRIPTED_RATE : DEFAULT_RATE),
    warm: flags.warm ?? Math.min(DEFAULT_WARM, max),
    max,
    workers: flags.workers ?? (scripted ? DEFAULT_SCRIPTED_WORKERS : DEFAULT_WORKERS),
    seed,
    scripted,
    useCluster,
  };
}

function program(): Command {
  return new Command("npm run demo --")
    .usage("[flags]")
    .description("Run Berth end to end on this machine: sessions arrive, Pods serve them, and you watch.")
    .option("--for <time>", "end after this time, such as 30s or 2m (default: run until Ctrl-C)", duration)
    .option(
      "--rate <number>",
      `average number of sessions per second (default: ${DEFAULT_RATE}, with --scripted ${DEFAULT_SCRIPTED_RATE})`,
      positive(MAX_RATE),
    )
    .option("--warm <number>", `research: number of warm Pods (default: ${DEFAULT_WARM})`, whole(0, MAX_PODS))
    .option("--max <number>", `research: maximum number of Pods (default: ${DEFAULT_MAX})`, whole(1, MAX_PODS))
    .option(
      "--workers <number>",
      `batch: maximum number of workers; 0 omits batch (default: ${DEFAULT_WORKERS}, with --scripted ${DEFAULT_SCRIPTED_WORKERS})`,
      whole(0, MAX_PODS),
    )
    .option("--seed <number>", "seed of the arrivals and scripts", seed, 1)
    .option("--scripted", "let the simulated node play the workers instead of running processes", false)
    .option("--use-cluster", "use the cluster of KUBECONFIG instead of starting one", false)
    .helpOption("--help", "show this help")
    .addHelpText("after", EXAMPLES)
    .allowExcessArguments(false);
}

function duration(text: string): number {
  const ms = atLeast(text, SHORTEST_FOR_MS);
  if (ms > LONGEST_FOR_MS) throw new InvalidArgumentError("Use at most 24h, or omit --for to run until Ctrl-C.");
  return ms;
}
