import type { Rules } from "../../../model/rules.ts";
import type { Fault, HiddenStep } from "../../../model/steps.ts";
import type { PointObserver } from "../../../src/core/points.ts";
import { DEFAULT_TIMING, scaleTiming } from "../../../src/core/timing.ts";
import { LeadershipLostError } from "../../../src/kube/errors.ts";
import type { TestCluster } from "../../support/cluster.ts";
import { allowVolumes, perSession, provideVolumes } from "../../support/session-volumes.ts";
import {
  type InProcessOperator,
  startWorld,
  TEST_TIME_SCALE,
  type World,
  type WorldOptions,
} from "../../support/world.ts";
import { checkTrace, type Tally } from "./check-trace.ts";
import { TraceRecorder } from "./trace.ts";

/** Limit of a wait for all sessions of a scenario on a busy machine. */
const PATIENCE_MS = 300_000;

/** A way to serve sessions, and what goes wrong. */
export interface Scenario {
  readonly name: string;
  readonly world: WorldOptions;
  /** The number of volumes that exist for sessions; none: sessions have none. */
  readonly volumes?: number;
  /** Two clusters serve one queue. */
  readonly isDoubled?: boolean;
  readonly rules?: Partial<Rules>;
  /** Faults and hidden steps that may happen from the start. */
  readonly allows?: readonly (Fault | HiddenStep)[];
  readonly act: (run: TraceRun) => Promise<void>;
}

/** A running scenario: its worlds, their operators, and their trace. */
export class TraceRun implements AsyncDisposable {
  readonly recorder = new TraceRecorder();
  readonly worlds: readonly [World, ...World[]];
  readonly #operators: InProcessOperator[] = [];
  /** By work item. */
  readonly #sessions = new Map<string, string>();
  #kept: { readonly point: string; readonly answer: () => Promise<void>; readonly end: () => void } | undefined;

  constructor(worlds: readonly [World, ...World[]]) {
    this.worlds = worlds;
  }

  startOperator(index: number): void {
    const world = this.#world(index);
    this.recorder.began(environmentOf(world));
    const points: PointObserver = (event) => {
      void this.recorder.observer(event);
      if (event.phase === "after" && event.point === this.#kept?.point) return this.#kept.answer();
    };
    this.#operators[index] = world.startOperator({ seams: { points } });
  }

  /**
   * Keeps the answers to these requests from the operator until it ends.
   * @returns the number of kept answers
   */
  keepAnswers(point: string): () => number {
    const ended = Promise.withResolvers<void>();
    let count = 0;
    this.#kept = {
      point,
      answer: () => {
        count += 1;
        return ended.promise;
      },
      end: () => ended.reject(new LeadershipLostError("the operator has ended")),
    };
    ended.promise.catch(() => {});
    return () => count;
  }

  async stopOperator(index: number): Promise<void> {
    const stopped = this.#operators[index]?.stop();
    this.#kept?.end();
    this.#kept = undefined;
    await stopped;
    this.recorder.ended(environmentOf(this.#world(index)));
  }

  #world(index: number): World {
    return this.worlds[index] ?? this.worlds[0];
  }

  /** Enqueues items, and returns their ids. */
  enqueue(count: number): string[] {
    return Array.from({ length: count }, () => this.#enqueue());
  }

  /** Enqueues the next item of each of these items' sessions. */
  enqueueNext(workIds: readonly string[]): string[] {
    return workIds.map((workId) => this.#enqueue({ sessionId: this.sessionOf(workId) }));
  }

  #enqueue(input: { readonly sessionId?: string } = {}): string {
    const { simulator, environmentId } = this.worlds[0];
    const { id, sessionId } = simulator.enqueue(environmentId, input);
    this.#sessions.set(id, sessionId ?? id);
    return id;
  }

  sessionOf(workId: string): string {
    return this.#sessions.get(workId) ?? workId;
  }

  until(what: string, predicate: () => boolean): Promise<true> {
    return this.worlds[0].until(what, predicate, PATIENCE_MS);
  }

  async serve(count: number): Promise<void> {
    this.enqueue(count);
    await this.untilSettled(count);
  }

  untilSettled(count: number): Promise<true> {
    const { simulator, environmentId } = this.worlds[0];
    return this.until(`${count} items are stopped, and no claim is left`, () => {
      const items = simulator.items(environmentId);
      const isStopped = items.length >= count && items.every(({ state }) => state === "stopped");
      return isStopped && this.worlds.every(({ claims }) => claims.length === 0);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The other worlds use the first one's simulator.
    for (const world of this.worlds.toReversed()) await world[Symbol.asyncDispose]();
  }
}

function environmentOf({ namespace, name }: World): string {
  return `${namespace}/${name}`;
}

/** How long a session's volume is kept: the shortest time that a spec may ask for. */
const RETAIN_SECONDS = 60;

/** Runs a scenario to its end. */
export async function play(cluster: TestCluster, scenario: Scenario): Promise<TraceRun> {
  const first = await startWorld(cluster, scenario.world);
  const others = scenario.isDoubled ? [await startWorld(cluster, { ...scenario.world, beside: first })] : [];
  await using run = new TraceRun([first, ...others]);
  if (scenario.allows) run.recorder.allow(...scenario.allows);
  for (const [index, world] of run.worlds.entries()) {
    if (scenario.volumes === undefined) await world.createEnvironment();
    else await createWithVolumes(world, scenario.volumes);
    run.startOperator(index);
  }
  await Promise.all(run.worlds.map((world) => world.untilParked(1)));
  await scenario.act(run);
  first.simulator.assertNoViolations();
  return run;
}

async function createWithVolumes(world: World, volumes: number): Promise<void> {
  await allowVolumes(world);
  await provideVolumes(world, volumes);
  const sessions = world.spec()["sessions"] as Record<string, unknown>;
  const { workspace } = perSession(world, { retainSeconds: RETAIN_SECONDS });
  await world.createEnvironment({ sessions: { ...sessions, workspace } });
}

/** Checks the trace of every session. @throws {TraceError} if the model does not allow one of them */
export function checkScenario(run: TraceRun, { rules = {}, world }: Scenario): Tally {
  const timing = scaleTiming(DEFAULT_TIMING, world.timeScale ?? TEST_TIME_SCALE);
  const circumstances = { rules, timing, retainMs: RETAIN_SECONDS * 1_000 };
  return checkTrace(run.recorder, circumstances, (workId) => run.sessionOf(workId));
}
