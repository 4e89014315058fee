import type { ConditionUpdate } from "../api/conditions.ts";
import { type Environment, parseEnvironment, parseForRunning } from "../api/environment.ts";
import { FINALIZER } from "../api/names.ts";
import { problemList } from "../api/problems.ts";
import type { RuntimeReport } from "../api/runtime.ts";
import { ClaimLists } from "../claims/claim-lists.ts";
import { SECOND_MS } from "../core/clock.ts";
import type { KubeObject, NetworkPolicy } from "../kube/resource.ts";
import { forgetEnvironmentMetrics } from "../observe/environment-metrics.ts";
import { type Precedence, precedenceOf } from "../queue/precedence.ts";
import { keyOf } from "../watch/cache.ts";
import type { AbilityCheck } from "./ability-check.ts";
import { deleteClaimsOf, deleteOrphanedClaims, drain } from "./drain.ts";
import { environmentConditions } from "./environment-conditions.ts";
import type { EnvironmentLook } from "./environment-runtime.ts";
import { announcer, type EnvironmentState, newEnvironmentState, refusedOf } from "./environment-state.ts";
import { modeOf, templateOf } from "./modes.ts";
import type { ReconcilerOptions } from "./reconciler-options.ts";
import type { StatusParts } from "./status-writer.ts";
import { gaugeEnvironment, UnservedEnvironments } from "./unserved.ts";

/**
 * Takes one Environment from its spec to its status, in small steps: key, origin, template, NetworkPolicy, loops,
 * deletion, status. It is level-based and idempotent: it runs whenever something may have changed, and decides from the
 * current state.
 */
export class EnvironmentReconciler {
  readonly #options: ReconcilerOptions;
  readonly #states = new Map<string, EnvironmentState>();
  readonly #unserved: UnservedEnvironments;
  readonly #claimLists: ClaimLists;
  /** Keyed by the cached object, which the cache replaces and never modifies. */
  readonly #parsed = new WeakMap<KubeObject, ReturnType<typeof parseEnvironment>>();
  /** By key, deleted or given-up Environments whose claim Secrets could not be deleted yet. */
  readonly #orphaned = new Map<string, EnvironmentState>();
  /**
   * By key, the uid of an Environment whose drain was given up. Other finalizers may keep it for long; the operator
   * starts nothing for it.
   */
  readonly #givenUp = new Map<string, string>();
  /** When loops last ended within this term (monotonic). */
  #lastEndMs = Number.NEGATIVE_INFINITY;
  #stopped = false;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
    this.#claimLists = new ClaimLists(options.kube);
    this.#unserved = new UnservedEnvironments({ ...options, announcer: (about) => announcer(about, options) });
  }

  /** Reports that a Pod of this Environment changed in the cache. */
  podChanged(key: string, podName: string): void {
    this.#states.get(key)?.runtime.podChanged(podName);
  }

  /** Reports that the NetworkPolicy of this Environment changed in the cache; undefined: it was deleted. */
  policyChanged(key: string, policy: NetworkPolicy | undefined): void {
    if (this.#states.get(key)?.policy.seen(policy)) this.#options.again(key, 0);
  }

  /** The number of Environments with loops. */
  get size(): number {
    return this.#states.size;
  }

  /** Stops all loops and waits for their pending requests. No loop starts after this. */
  async stop(): Promise<void> {
    this.#stopped = true;
    const states = [...this.#states.entries()];
    this.#states.clear();
    await Promise.all(states.map(([key, state]) => this.#end(key, state)));
  }

  /**
   * Reconciles one Environment.
   * @throws any error that needs a retry with backoff
   */
  async reconcile(key: string): Promise<void> {
    const [namespace = "", name = ""] = key.split("/");
    const raw = this.#options.find(namespace, name);
    const known = this.#states.get(key);
    if (known && known.uid !== raw?.metadata.uid) {
      this.#states.delete(key);
      await this.#end(key, known);
      if (!raw && !(await deleteOrphanedClaims(known, this.#options))) this.#orphaned.set(key, known);
    }
    await this.#cleanUp(key);
    if (this.#isGivenUp(key, raw)) return;
    if (!raw) return this.#unserved.forget(key, true);
    const parsed = this.#parse(raw);
    if (!parsed.ok) return this.#reportInvalid(key, raw, parsed.problems);
    const { environment } = parsed;
    this.#unserved.forget(key, false);
    this.#options.observer?.cannotServe(key, null);
    await this.#serve(key, environment);
  }

  /** Most reconciles see an unchanged object, so parsing is cached. */
  #parse(raw: KubeObject): ReturnType<typeof parseEnvironment> {
    const known = this.#parsed.get(raw);
    if (known) return known;
    const parsed = parseEnvironment(raw, this.#options.runtimeClasses);
    this.#parsed.set(raw, parsed);
    return parsed;
  }

  /** Retries failed deletions: Secrets with credentials must not outlive their Environment. */
  async #cleanUp(key: string): Promise<void> {
    const orphaned = this.#orphaned.get(key);
    if (!orphaned) return;
    const remove = this.#givenUp.get(key) === orphaned.uid ? deleteClaimsOf : deleteOrphanedClaims;
    if (await remove(orphaned, this.#options)) this.#orphaned.delete(key);
    else this.#options.again(key, this.#options.timing.retryMaxMs);
  }

  #isGivenUp(key: string, raw: KubeObject | undefined): boolean {
    const uid = this.#givenUp.get(key);
    if (uid === undefined) return false;
    if (uid === raw?.metadata.uid) return true;
    this.#givenUp.delete(key);
    return false;
  }

  async #serve(key: string, environment: Environment): Promise<void> {
    const { clock, again } = this.#options;
    const state = this.#stateOf(key, environment);
    state.pace.looked();
    state.environment = environment;
    if (state.work.renew()) {
      state.key.lookAgain();
      state.runtime.keyChanged();
    }
    await state.key.read(environment);
    await state.parkingCheck.check(environment);
    await state.sleepCheck.check(environment);
    state.template = templateOf(environment, refusedOf(state));
    await state.templateChecker.check(state.template);
    await state.policy.keep(environment);

    const { isAllowed } = state.work;
    // No Pod may be created or get a session before the NetworkPolicy is in place.
    const accepted = state.templateChecker.verdict?.accepted === true && state.policy.isKept;
    const deleting = environment.metadata.deletionTimestamp !== undefined;
    state.runtime.update({
      mayAsk: state.work.key !== "",
      mayPrepare: accepted && isAllowed && this.#precedenceOf(state).isServed,
      mayClaim: accepted && !environment.spec.paused && !deleting,
    });
    if (deleting && (await this.#drain(key, state))) return;

    const report = state.runtime.report();
    const conditions = this.#conditions(state, report);
    gaugeEnvironment(this.#options.metrics, environment, report, conditions);
    const { namespace, name } = environment.metadata;
    const step = { namespace, environment: name, step: "watch" };
    this.#options.metrics.failingSteps.set(step, this.#lagOf(state) === null ? 0 : 1);
    const restMs = await state.status.write({
      generation: environment.metadata.generation,
      ...modeOf(environment),
      conditions,
      unfinished: report.firstPod,
      queue: report.queue,
      sessions: report.sessions,
      ...choicesOf(state),
      ...(report.workers ? { workers: report.workers } : {}),
      ...(report.workspaces ? { workspaces: report.workspaces } : {}),
    });
    if (restMs !== null) again(key, restMs);
    // No event reports that the loops of another Environment have nothing left to wait for.
    if (this.#precedenceOf(state).verdict?.reason === "AwaitingSessions") again(key, this.#options.timing.settleLookMs);
    again(key, this.#nextLookMs(state, clock.monotonic()));
  }

  // --- Steps ------------------------------------------------------------------------------------------------------

  #stateOf(key: string, environment: Environment): EnvironmentState {
    const known = this.#states.get(key);
    if (known) return known;
    if (this.#stopped) throw new Error("no loop starts, because the process is stopping or no longer leads");
    const { again, observer, servingSinceMs } = this.#options;
    // Loops of this same term may have served the Environment before.
    const options = { ...this.#options, servingSinceMs: Math.max(servingSinceMs, this.#lastEndMs) };
    const state = newEnvironmentState(environment, options, {
      claimLists: this.#claimLists,
      announce: announcer(environment, this.#options),
      look: (looked) => this.#lookAt(looked),
      precedence: (of) => this.#precedenceOf(of),
      onChange: (pace) => again(key, pace.delayMs),
    });
    this.#states.set(key, state);
    observer?.serves(key, state.source);
    state.runtime.start();
    return state;
  }

  #lookAt(state: EnvironmentState): EnvironmentLook {
    const report = state.runtime.report();
    const conditions = this.#conditions(state, report);
    return { ...modeOf(state.environment), report, conditions };
  }

  /** Returns whether the drain timed out and the rest was given up. */
  async #drain(key: string, state: EnvironmentState): Promise<boolean> {
    const again = (afterMs: number) => this.#options.again(key, afterMs);
    if (await drain(state, { ...this.#options, again })) return false;
    await this.#giveUp(key, state);
    return true;
  }

  /** Releases the Environment with whatever is left. The operator starts nothing more for it. */
  async #giveUp(key: string, state: EnvironmentState): Promise<void> {
    const { timing, logger, metrics, observer } = this.#options;
    const { namespace, name } = state.environment.metadata;
    const { leftovers } = state.runtime;
    state.hinted?.leave();
    if (!(await state.runtime.abandon())) this.#orphaned.set(key, state);
    this.#states.delete(key);
    observer?.gone(key, state.source);
    this.#givenUp.set(key, state.uid);
    await this.#cleanUp(key);
    logger.warn({ key, leftovers }, "the drain timed out, so its unsettled work items are abandoned");
    announcer(state.environment, this.#options)(
      "DrainGivenUp",
      `${leftovers} within deletionGraceSeconds and ${timing.drainBoundMs / SECOND_MS} s, so Berth abandons them and their leases expire`,
    );
    forgetEnvironmentMetrics(metrics, { namespace, environment: name });
  }

  #lagOf({ environment }: EnvironmentState): string | null {
    return this.#options.lag(environment.metadata.namespace);
  }

  #precedenceOf({ uid, environment, readyBefore }: EnvironmentState): Precedence {
    const mayHaveSessions = (other: KubeObject) => this.#mayHaveSessions(other);
    return precedenceOf(uid, this.#options.ofQueue(environment), mayHaveSessions, readyBefore);
  }

  /** The cache may not show a finalizer yet that this process has set. */
  #mayHaveSessions(other: KubeObject): boolean {
    const { uid, finalizers = [] } = other.metadata;
    const isMarked = finalizers.includes(FINALIZER);
    const known = this.#states.get(keyOf(other));
    if (!known || known.uid !== uid) return isMarked;
    return (isMarked || known.finalizer.isHeld) && !known.runtime.isStranded;
  }

  #conditions(state: EnvironmentState, report: RuntimeReport): ConditionUpdate[] {
    const { environment, key, work, templateChecker, policy } = state;
    return environmentConditions({
      environment,
      report,
      lag: this.#lagOf(state),
      keyProblem: key.problem,
      originAllowed: work.isAllowed,
      template: templateChecker.verdict,
      policy: policy.verdict,
      precedence: this.#precedenceOf(state).verdict,
    });
  }

  #nextLookMs({ key, templateChecker, parkingCheck, sleepCheck, policy }: EnvironmentState, nowMs: number): number {
    const looks = [key, templateChecker, parkingCheck, sleepCheck, policy].map((each) => each.nextLookMs(nowMs));
    return Math.max(MIN_LOOK_MS, Math.min(...looks));
  }

  // --- Environments without loops ---------------------------------------------------------------------------------

  async #reportInvalid(key: string, raw: KubeObject, problems: readonly string[]): Promise<void> {
    const known = this.#states.get(key) ?? this.#stateForRunning(key, raw);
    if (known) await this.#keepRunning(key, known);
    const restMs = await this.#unserved.report(raw, "InvalidSpec", problemList(problems), known?.status);
    if (restMs !== null) this.#options.again(key, restMs);
    const { deletionTimestamp } = raw.metadata;
    if (!known || !deletionTimestamp) return;
    // Drain by the last valid spec: an invalid spec must not block a deletion forever.
    known.environment = { ...known.environment, metadata: { ...known.environment.metadata, deletionTimestamp } };
    await this.#drain(key, known);
  }

  /** Sessions of an earlier process, whose validation accepted this spec, may still run. */
  #stateForRunning(key: string, raw: KubeObject): EnvironmentState | undefined {
    const environment = parseForRunning(raw, this.#options.runtimeClasses);
    return environment ? this.#stateOf(key, environment) : undefined;
  }

  /** Leaves running sessions alone, but claims nothing with an invalid spec. */
  async #keepRunning(key: string, state: EnvironmentState): Promise<void> {
    const { clock, again } = this.#options;
    await state.key.read(state.environment);
    const mayAsk = state.work.key !== "";
    state.runtime.update({ mayAsk, mayPrepare: false, mayClaim: false });
    again(key, Math.max(MIN_LOOK_MS, state.key.nextLookMs(clock.monotonic())));
  }

  async #end(key: string, state: EnvironmentState): Promise<void> {
    state.hinted?.leave();
    await state.runtime.stop();
    this.#lastEndMs = this.#options.clock.monotonic();
    this.#options.observer?.gone(key, state.source);
    const [namespace = "", environment = ""] = key.split("/");
    forgetEnvironmentMetrics(this.#options.metrics, { namespace, environment });
  }
}

/** The minimum time between two scheduled reconciles of one Environment. */
const MIN_LOOK_MS = 1_000;

/** How warm Pods wait, and whether their sessions sleep; none in workers mode. */
function choicesOf({ template, parkingCheck, sleepCheck }: EnvironmentState): Pick<StatusParts, "parking" | "sleep"> {
  const failureOf = ({ failure }: AbilityCheck) => (failure === null ? {} : { failure });
  const { parking, sleep } = template;
  return {
    ...(parking ? { parking: { ...parking, ...failureOf(parkingCheck) } } : {}),
    ...(sleep ? { sleep: { ...sleep, ...failureOf(sleepCheck) } } : {}),
  };
}
