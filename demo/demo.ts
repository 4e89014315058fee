import { availableParallelism } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import type { ArrivalsHandle } from "../simulator/arrivals.ts";
import { seededRandom } from "../simulator/ids.ts";
import { violationText } from "../simulator/violations.ts";
import { MAX_TIMER_MS, realClock, sleep } from "../src/core/clock.ts";
import { errorText } from "../src/core/errors.ts";
import type { Progress } from "../testbed/cluster/progress.ts";
import { type DemoCluster, type RequestCounts, startOwnCluster } from "./cluster.ts";
import { Ending } from "./ending.ts";
import type { Phase, Scene } from "./frame.ts";
import { enterGivenCluster } from "./given-cluster.ts";
import { findLeftovers } from "./leftovers.ts";
import { keepLog } from "./operator.ts";
import type { DemoOptions } from "./options.ts";
import { SAMPLE_FILE } from "./sample.ts";
import { SCRIPTED_SESSION, sessionScript } from "./sessions.ts";
import { Stage, startSupervisor } from "./stage.ts";
import { type Outcome, problemsOf, summaryLines } from "./summary.ts";
import { isServed } from "./track.ts";
import { LiveView, PlainView, type View, wantsColour, wantsLive } from "./view.ts";

/** Two cores that build Pods for the first time are slow; more is a fault. */
const READY_PATIENCE_MS = 90_000;
/** Sessions that have arrived are served within seconds, a backlog takes longer. */
const FINISH_PATIENCE_MS = 120_000;
/** Who pressed Ctrl-C waits for what runs, not for a queue. */
const INTERRUPTED_PATIENCE_MS = 15_000;
/** The sample's deletionGraceSeconds, the minute after which the operator gives up on a drain, and some air. */
const CLEAR_PATIENCE_MS = 90_000;
const SETTLE_POLL_MS = 250;

/** The last session arrives at least so long before the end that was asked for: time to serve it. */
const TAIL_MS = 7_000;
/** In short runs the half, so that something arrives at all. */
const TAIL_SHARE = 0.5;

export interface Io {
  readonly out: NodeJS.WriteStream;
  readonly env: NodeJS.ProcessEnv;
  readonly progress: Progress;
}

/** Runs the demo. Returns the exit code: 0 only if every session was served and nothing was left. */
export async function runDemo(options: DemoOptions, io: Io): Promise<number> {
  using ending = new Ending();
  // Somebody who reads no further (`| head`) wants no more of it.
  io.out.on("error", () => ending.fail(new Error("the output was closed")));
  const play = new Play(options, io, ending);
  let outcome: Outcome | undefined;
  {
    await using things = new AsyncDisposableStack();
    outcome = await play.run(things);
  }
  if (!outcome) {
    io.out.write("Ended before the first session.\n");
    return ending.interrupted && options.forMs === undefined ? 0 : 1;
  }
  io.out.write(`\n${summaryLines(outcome).join("\n")}\n`);
  const problems = problemsOf(outcome);
  if (problems.length === 0) io.out.write(`\n${NEXT}\n`);
  return problems.length === 0 ? 0 : 1;
}

const NEXT = `Next: npm run demo -- --scripted --rate 5 --warm 10 --max 50    many sessions, played by the node
      npm run demo -- --help                                    all flags
      docs/demo.md                                              what was real, and what to look at`;

class Play {
  readonly #options: DemoOptions;
  readonly #io: Io;
  readonly #ending: Ending;
  readonly #failures: string[] = [];
  readonly #leftovers = new Set<string>();
  #phase: Phase = "serving";
  #startedAt = 0;
  /** From the first session to the end of the last. */
  #servedMs = 0;
  #looked = false;
  #requests: { api: RequestCounts | undefined; work: RequestCounts | undefined } | undefined;
  #endsAt: number | undefined;

  constructor(options: DemoOptions, io: Io, ending: Ending) {
    this.#options = options;
    this.#io = io;
    this.#ending = ending;
  }

  /** Undefined: ended before anything could be seen. */
  async run(things: AsyncDisposableStack): Promise<Outcome | undefined> {
    const { progress } = this.#io;
    const supervisor = things.adopt(await startSupervisor(), (started) => started.end());
    const cluster = await this.#enter(supervisor.dir);
    things.defer(async () => {
      for (const text of await cluster.leave()) this.#leftovers.add(text);
    });
    this.#ending.onAbrupt = () => {
      if (cluster.stays.length === 0) return;
      this.#io.out.write(`\nTo remove what stays in the cluster:\n${cluster.stays.map((it) => `  ${it}\n`).join("")}`);
    };
    progress.update("starting the simulator, the node and the operator");
    const stage = await Stage.start(cluster, this.#options, this.#ending, supervisor, things);
    progress.update("waiting for the first Pods");
    const ready = await this.#untilReady(stage);
    progress.clear();
    if (!ready) return this.#ending.interrupted ? undefined : await this.#outcome(stage);
    this.#announce(stage);
    const view = this.#open(stage);
    try {
      await this.#serve(stage);
      await this.#finish(stage);
      await this.#clearUp(stage);
    } catch (error) {
      // The API server may be gone: what is known is told all the same.
      this.#failures.push(errorText(error));
    } finally {
      this.#phase = "ended";
      view.close();
    }
    return await this.#outcome(stage);
  }

  async #enter(dir: string): Promise<DemoCluster> {
    const { progress, env } = this.#io;
    if (this.#options.useCluster) {
      this.#ending.listen();
      progress.update("entering the cluster");
      return await enterGivenCluster(env["KUBECONFIG"] ?? "", dir, progress, (text) => progress.line(text));
    }
    // Until it runs, Ctrl-C just ends this process, and everything with it.
    const cluster = await startOwnCluster(progress, (error) => this.#ending.fail(error));
    this.#ending.listen();
    return cluster;
  }

  async #untilReady(stage: Stage): Promise<boolean> {
    const { warm } = this.#options;
    const waited = await stage.until(() => stage.isReady && stage.board.pods.warm >= warm, READY_PATIENCE_MS);
    if (waited === "late") {
      this.#failures.push(
        `not ready after ${READY_PATIENCE_MS / 1_000} s: ${stage.obstacle ?? "the Environment has no conditions"}`,
      );
    }
    return waited === "done";
  }

  #announce(stage: Stage): void {
    const { cluster, metricsUrl } = stage;
    const { kubectl, namespace } = cluster;
    const workers = this.#options.scripted
      ? "workers that the simulated node plays"
      : "stock workers, each a process of this machine";
    const lines = [
      `${cluster.about}, and ${workers}. The Environment: ${relative(SAMPLE_FILE)}`,
      "Look in from another terminal:",
      "",
      `  ${kubectl} get benv,pods -n ${namespace}`,
      `  ${kubectl} describe benv -n ${namespace} demo`,
      `  ${kubectl} get events -n ${namespace} --watch`,
      `  curl ${metricsUrl}`,
      ...(cluster.foreign ? [] : [`  export KUBECONFIG=${cluster.kubeconfig}`]),
      "",
    ];
    this.#io.out.write(`${lines.join("\n")}\n`);
  }

  #open(stage: Stage): View {
    const { out, env } = this.#io;
    this.#startedAt = stage.simulator.clock.now();
    const { forMs } = this.#options;
    this.#endsAt = forMs === undefined ? undefined : this.#startedAt + forMs;
    const view = wantsLive(out, env)
      ? new LiveView(out, wantsColour(out, env), () => this.#scene(stage))
      : new PlainView(out, this.#startedAt);
    stage.board.subscribe((event) => view.event(event));
    stage.simulator.on("violation", (violation) => {
      if (!violation.excuse) stage.board.notice(`protocol violation: ${violationText(violation)}`);
    });
    return view;
  }

  /** Sessions arrive until the time is over, or somebody ends it. */
  async #serve(stage: Stage): Promise<void> {
    const { forMs } = this.#options;
    const arriveMs = forMs === undefined ? undefined : forMs - Math.min(TAIL_MS, forMs * TAIL_SHARE);
    const arrivals = this.#arrive(stage, arriveMs);
    await sleep(realClock, arriveMs ?? MAX_TIMER_MS, this.#ending.signal);
    arrivals.stop();
  }

  #arrive(stage: Stage, arriveMs: number | undefined): ArrivalsHandle {
    const { rate, seed, scripted } = this.#options;
    const random = seededRandom(seed + 1);
    const item = () => {
      const script = scripted ? SCRIPTED_SESSION : sessionScript(random);
      stage.board.expect(script);
      return { script };
    };
    // The first one comes at once: nobody likes to look at nothing.
    stage.simulator.enqueue(stage.environmentId, item());
    const duration = arriveMs === undefined ? {} : { durationSeconds: arriveMs / 1_000 };
    return stage.simulator.arrivals(
      stage.environmentId,
      { kind: "poisson", ratePerSecond: rate, seed, ...duration },
      item,
    );
  }

  /** Waits until everything that arrived is served and settled. */
  async #finish(stage: Stage): Promise<void> {
    if (this.#phase !== "finishing") stage.board.announce("no more sessions arrive");
    this.#phase = "finishing";
    if (this.#failed) return;
    const { interrupted, signal } = this.#ending;
    const patience = interrupted ? INTERRUPTED_PATIENCE_MS : FINISH_PATIENCE_MS;
    const deadline = performance.now() + patience;
    // An interruption while it waits ends this wait, and begins the shorter one.
    const waited = await stage.until(() => stage.board.live.length === 0, patience, interrupted ? NEVER : signal);
    if (waited === "ended") return await this.#finish(stage);
    // The operator settles after the item has ended: its Secret goes a moment later.
    let left = await this.#lookForLeftovers(stage, false);
    while (left.length > 0 && performance.now() < deadline && !this.#failed) {
      await delay(SETTLE_POLL_MS);
      left = await this.#lookForLeftovers(stage, false);
    }
    if (interrupted) return;
    for (const text of left) this.#leftovers.add(`${text}, ${patience / 1_000} s after the last session arrived`);
  }

  /** Deletes the Environment, which drains, ends the operator in order, and looks for what is left. */
  async #clearUp(stage: Stage): Promise<void> {
    this.#phase = "clearing up";
    this.#servedMs = stage.simulator.clock.now() - this.#startedAt;
    if (this.#failed) return;
    stage.board.announce("clearing up: the Environment is deleted, then the operator ends");
    await stage.deleteEnvironment();
    const gone = () => stage.isEnvironmentGone && stage.podCount === 0;
    if ((await stage.until(gone, CLEAR_PATIENCE_MS, NEVER)) === "late") {
      this.#failures.push(`the Environment is not gone ${CLEAR_PATIENCE_MS / 1_000} s after its deletion`);
    }
    await this.#countRequests(stage);
    const fault = await stage.stopOperator();
    if (fault) this.#failures.push(fault);
    for (const text of await this.#lookForLeftovers(stage, true)) this.#leftovers.add(text);
    this.#looked = true;
  }

  async #lookForLeftovers(stage: Stage, afterwards: boolean): Promise<string[]> {
    const { simulator, environmentId, cluster } = stage;
    const { kube, namespace } = cluster;
    const interrupted = this.#leftByPerson;
    return await findLeftovers({ kube, namespace, simulator, environmentId, afterwards, interrupted });
  }

  async #countRequests(stage: Stage): Promise<void> {
    const counts = await stage.operatorCounts();
    const audited = await stage.cluster.operatorRequests().catch(() => undefined);
    this.#requests = { api: audited ?? counts?.kube, work: counts?.work };
  }

  async #outcome(stage: Stage): Promise<Outcome> {
    const { cause } = this.#ending;
    if (cause?.kind === "failed") this.#failures.push(cause.error.message);
    if (!this.#requests) await this.#countRequests(stage);
    const outcome = {
      tracks: stage.board.tracks,
      elapsedMs: this.#servedMs,
      violations: stage.simulator.violations.map(violationText),
      failures: this.#failures,
      leftovers: this.#leftovers,
      looked: this.#looked,
      apiRequests: this.#requests?.api,
      workRequests: this.#requests?.work,
      interrupted: this.#leftByPerson,
      log: undefined,
    };
    return problemsOf(outcome).length === 0 ? outcome : { ...outcome, log: await keepLog(stage.operatorLog) };
  }

  /** Without an end that was asked for, Ctrl-C is the end: what nobody claimed may stay in the queue. */
  get #leftByPerson(): boolean {
    return this.#ending.interrupted && this.#options.forMs === undefined;
  }

  get #failed(): boolean {
    return this.#ending.cause?.kind === "failed";
  }

  #scene(stage: Stage): Scene {
    const { board, simulator, cluster, environmentId } = stage;
    const now = simulator.clock.now();
    const { depth, pending } = simulator.stats(environmentId) as { depth: number; pending: number };
    return {
      phase: this.#phase,
      elapsedMs: now - this.#startedAt,
      leftMs: this.#endsAt === undefined ? undefined : this.#endsAt - now,
      about: `${cluster.about}, ${availableParallelism()} cores`,
      queue: { depth, pending },
      pods: board.pods,
      served: board.tracks.filter(isServed).length,
      violations: simulator.violations.length,
      tracks: board.tracks,
      notices: board.notices,
      obstacle: this.#phase === "serving" ? stage.obstacle : undefined,
      hint: `${cluster.kubectl} get benv,pods -n ${cluster.namespace}`,
    };
  }
}

const NEVER = new AbortController().signal;

/** A path as a person in this folder would write it. */
function relative(file: URL): string {
  const path = decodeURIComponent(file.pathname);
  const here = `${process.cwd()}/`;
  return path.startsWith(here) ? path.slice(here.length) : path;
}
