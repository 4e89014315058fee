import { setTimeout as delay } from "node:timers/promises";
import { violationText } from "../simulator/violations.ts";
import { MAX_TIMER_MS, realClock, sleep } from "../src/core/clock.ts";
import { errorText } from "../src/core/errors.ts";
import type { Progress } from "../testbed/cluster/progress.ts";
import { announcement } from "./announcement.ts";
import { startArrivals } from "./arrivals.ts";
import { type DemoCluster, type RequestCounts, startOwnCluster } from "./cluster.ts";
import { Ending } from "./ending.ts";
import type { Phase } from "./frame.ts";
import { enterGivenCluster } from "./given-cluster.ts";
import { findLeftovers } from "./leftovers.ts";
import { keepLog } from "./operator.ts";
import type { DemoOptions } from "./options.ts";
import { sceneOf } from "./scene.ts";
import { NEVER, Stage, startSupervisor } from "./stage.ts";
import { type Outcome, problemsOf, summaryLines } from "./summary.ts";
import { LiveView, PlainView, type View, wantsColour, wantsLive } from "./view.ts";

/** Two cores need this long to build Pods for the first time; longer means an error. */
const READY_PATIENCE_MS = 90_000;
/** Arrived sessions are served within seconds; a backlog takes longer. */
const FINISH_PATIENCE_MS = 120_000;
/**
 * After Ctrl-C, the demo waits for running sessions and for a burst that always-on workers claim anyway, but not for a
 * long queue.
 */
const INTERRUPTED_PATIENCE_MS = 30_000;
/** The sample's scale-down window of 5 s, plus the delay of the queue's count. */
const SCALE_DOWN_PATIENCE_MS = 60_000;
/** The samples' deletionGraceSeconds, the minute after which the operator gives up a drain, and some slack. */
const CLEAR_PATIENCE_MS = 90_000;
const SETTLE_POLL_MS = 250;

/** The last session arrives at least this long before the requested end, so that it can be served. */
const TAIL_MS = 7_000;
/** In short runs the tail is half of the time, so that any session arrives at all. */
const TAIL_SHARE = 0.5;

export interface Io {
  readonly out: NodeJS.WriteStream;
  readonly env: NodeJS.ProcessEnv;
  readonly progress: Progress;
}

/** Runs the demo. Returns the exit code: 0 only if every session was served and nothing was left over. */
export async function runDemo(options: DemoOptions, io: Io): Promise<number> {
  using ending = new Ending();
  // End when the reader closes the output (`| head`).
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
      docs/demo.md                                              what was real, and what to watch`;

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

  /** Undefined: the demo ended before it showed anything. */
  async run(things: AsyncDisposableStack): Promise<Outcome | undefined> {
    const { progress } = this.#io;
    const supervisor = things.adopt(await startSupervisor(), (started) => started.end());
    const cluster = await this.#enter(supervisor.dir);
    things.defer(async () => {
      for (const text of await cluster.leave()) this.#leftovers.add(text);
    });
    this.#ending.onAbrupt = () => {
      if (cluster.stays.length === 0) return;
      this.#io.out.write(
        `\nTo remove the objects that remain in the cluster:\n${cluster.stays.map((it) => `  ${it}\n`).join("")}`,
      );
    };
    progress.update("starting the simulator, the node and the operator");
    const stage = await Stage.start(cluster, this.#options, this.#ending, supervisor, things);
    progress.update("waiting for the first Pods");
    const ready = await this.#untilReady(stage);
    progress.clear();
    if (!ready) return this.#ending.interrupted ? undefined : await this.#outcome(stage);
    this.#io.out.write(`${announcement(stage, this.#options).join("\n")}\n`);
    const view = this.#open(stage);
    try {
      await this.#serve(stage);
      await this.#finish(stage);
      await this.#clearUp(stage);
    } catch (error) {
      // The API server may be down; report what is known anyway.
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
      progress.update("creating the demo's objects in the cluster");
      return await enterGivenCluster(env["KUBECONFIG"] ?? "", dir, progress, (text) => progress.line(text));
    }
    // Until it runs, Ctrl-C ends this process and everything that it started.
    const cluster = await startOwnCluster(progress, (error) => this.#ending.fail(error));
    this.#ending.listen();
    return cluster;
  }

  async #untilReady(stage: Stage): Promise<boolean> {
    const { warm } = this.#options;
    const areWarm = () => stage.environments.every(({ sessions }) => !sessions || sessions.counts.warm >= warm);
    const waited = await stage.until(() => stage.isReady && areWarm(), READY_PATIENCE_MS);
    if (waited === "late") {
      const why = stage.obstacles.length > 0 ? stage.obstacles.join("; ") : "see its conditions";
      this.#failures.push(`not ready after ${READY_PATIENCE_MS / 1_000} s: ${why}`);
    }
    return waited === "done";
  }

  #open(stage: Stage): View {
    const { out, env } = this.#io;
    this.#startedAt = stage.simulator.clock.now();
    const { forMs } = this.#options;
    this.#endsAt = forMs === undefined ? undefined : this.#startedAt + forMs;
    const view = wantsLive(out, env)
      ? new LiveView(out, wantsColour(out, env), () => sceneOf(stage, this.#moment))
      : new PlainView(out, this.#startedAt);
    stage.board.subscribe((event) => view.event(event));
    stage.simulator.on("violation", (violation) => {
      if (!violation.excuse) stage.board.notice(`protocol violation: ${violationText(violation)}`);
    });
    return view;
  }

  /** Lets sessions arrive until the time is up or a person ends the demo. */
  async #serve(stage: Stage): Promise<void> {
    const { forMs } = this.#options;
    const arriveMs = forMs === undefined ? undefined : forMs - Math.min(TAIL_MS, forMs * TAIL_SHARE);
    const stop = startArrivals(stage, this.#options, arriveMs);
    await sleep(realClock, arriveMs ?? MAX_TIMER_MS, this.#ending.signal);
    stop();
  }

  /** Waits until every arrived session is served and settled. */
  async #finish(stage: Stage): Promise<void> {
    if (this.#phase !== "finishing") stage.board.announce("no more sessions arrive");
    this.#phase = "finishing";
    if (this.#failed) return;
    const { interrupted, signal } = this.#ending;
    const patience = interrupted ? INTERRUPTED_PATIENCE_MS : FINISH_PATIENCE_MS;
    const deadline = performance.now() + patience;
    // An interruption ends this wait and starts a shorter one.
    const waited = await stage.until(() => stage.board.live.length === 0, patience, interrupted ? NEVER : signal);
    if (waited === "ended") return await this.#finish(stage);
    // The operator deletes an item's claim Secret a moment after the item has ended.
    const left = await this.#leftBy(stage, deadline, false);
    this.#servedMs = stage.simulator.clock.now() - this.#startedAt;
    if (interrupted) return;
    for (const text of left) this.#leftovers.add(`${text}, ${patience / 1_000} s after the last session arrived`);
    await this.#scaleDown(stage);
  }

  /** Waits until the idle always-on workers have been removed. An interrupted demo does not wait. */
  async #scaleDown(stage: Stage): Promise<void> {
    for (const { name, workers } of stage.environments) {
      if (!workers || this.#failed) continue;
      if ((await stage.until(() => workers.isEmpty, SCALE_DOWN_PATIENCE_MS)) !== "late") continue;
      const { replicas, desired } = workers.counts;
      this.#failures.push(
        `${name} still has ${replicas} workers ${SCALE_DOWN_PATIENCE_MS / 1_000} s after its last session (desired: ${desired})`,
      );
    }
  }

  /** Deletes the Environments, which drain, stops the operator in order, and searches for leftovers. */
  async #clearUp(stage: Stage): Promise<void> {
    this.#phase = "cleaning up";
    this.#servedMs ||= stage.simulator.clock.now() - this.#startedAt;
    if (this.#failed) return;
    stage.board.announce("cleaning up: deleting the Environments, then stopping the operator");
    const deadline = performance.now() + CLEAR_PATIENCE_MS;
    await Promise.all(stage.environments.map((environment) => environment.delete(stage.cluster)));
    if ((await stage.until(() => stage.areEnvironmentsGone, CLEAR_PATIENCE_MS, NEVER)) === "late") {
      this.#failures.push(`an Environment still exists ${CLEAR_PATIENCE_MS / 1_000} s after its deletion`);
    }
    // The garbage collector deletes what an Environment owns some time after it.
    await this.#leftBy(stage, deadline, true);
    await this.#countRequests(stage);
    const fault = await stage.stopOperator();
    if (fault) this.#failures.push(fault);
    for (const text of await this.#lookForLeftovers(stage, true)) this.#leftovers.add(text);
    this.#looked = true;
  }

  /** The leftovers at the deadline, one per line; returns early once there are none. */
  async #leftBy(stage: Stage, deadline: number, afterwards: boolean): Promise<string[]> {
    for (;;) {
      const left = await this.#lookForLeftovers(stage, afterwards);
      if (left.length === 0 || performance.now() > deadline || this.#failed) return left;
      await delay(SETTLE_POLL_MS);
    }
  }

  async #lookForLeftovers(stage: Stage, afterwards: boolean): Promise<string[]> {
    const { simulator, environments, cluster } = stage;
    const { kube, namespace } = cluster;
    const interrupted = this.#leftByPerson;
    return await findLeftovers({ kube, namespace, simulator, environments, afterwards, interrupted });
  }

  async #countRequests(stage: Stage): Promise<void> {
    const counts = await stage.operatorCounts();
    const audited = await stage.cluster.operatorRequests().catch(() => undefined);
    this.#requests = { api: audited ?? counts?.kube, work: counts?.work };
  }

  async #outcome(stage: Stage): Promise<Outcome> {
    const { cause } = this.#ending;
    if (cause?.kind === "failed") this.#failures.push(cause.error.message);
    for (const { workers } of stage.environments) this.#failures.push(...(workers?.strangers() ?? []));
    if (!this.#requests) await this.#countRequests(stage);
    const outcome = {
      environments: stage.environments.map(({ name, mode, workers }) => ({
        name,
        mode,
        tracks: stage.board.tracksOf(name),
        mostWorkers: workers?.most,
      })),
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

  /** Without a requested end, Ctrl-C is the normal end: unclaimed items may stay in the queue. */
  get #leftByPerson(): boolean {
    return this.#ending.interrupted && this.#options.forMs === undefined;
  }

  get #failed(): boolean {
    return this.#ending.cause?.kind === "failed";
  }

  get #moment() {
    return { phase: this.#phase, startedAt: this.#startedAt, endsAt: this.#endsAt };
  }
}
