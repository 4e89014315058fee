import type { ConditionUpdate } from "../api/conditions.ts";
import { type Environment, parseEnvironment, parseForRunning } from "../api/environment.ts";
import { MAX_API_ADDRESSES } from "../api/status.ts";
import { ClaimLists } from "../claims/claim-lists.ts";
import { SECOND_MS } from "../core/clock.ts";
import type { KubeObject, NetworkPolicy } from "../kube/resource.ts";
import { forgetEnvironmentMetrics } from "../observe/environment-metrics.ts";
import { deleteClaimsOf, deleteOrphanedClaims, drain } from "./drain.ts";
import { environmentConditions, invalidSpecMessage } from "./environment-conditions.ts";
import type { EnvironmentLook, RuntimeReport } from "./environment-runtime.ts";
import { announcer, type EnvironmentState, newEnvironmentState } from "./environment-state.ts";
import { modeOf, templateOf } from "./modes.ts";
import { addressesTold } from "./network-policy.ts";
import type { ReconcilerOptions } from "./reconciler-options.ts";
import { gaugeEnvironment, UnservedEnvironments } from "./unserved.ts";

/**
 * One Environment from its spec to its status, in small steps: key, origin, template, network policy, loops, deletion, status. Level-based
 * and idempotent: it runs whenever something may have changed and finds out what is to be done.
 */
export class EnvironmentReconciler {
  readonly #options: ReconcilerOptions;
  readonly #states = new Map<string, EnvironmentState>();
  readonly #unserved: UnservedEnvironments;
  readonly #claimLists: ClaimLists;
  /** By the object as the cache has it, which is never changed there. */
  readonly #parsed = new WeakMap<KubeObject, ReturnType<typeof parseEnvironment>>();
  /** By key, Environments that are gone or given up and whose claim Secrets could not be deleted yet. */
  readonly #orphaned = new Map<string, EnvironmentState>();
  /** By key, the uid of an Environment whose drain was given up: others may hold it for long, and nothing is begun for it. */
  readonly #givenUp = new Map<string, string>();
  /** When loops last ended within this term, monotonic. */
  #lastEndMs = Number.NEGATIVE_INFINITY;
  #stopped = false;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
    this.#claimLists = new ClaimLists(options.kube);
    this.#unserved = new UnservedEnvironments({ ...options, announcer: (about) => announcer(about, options) });
  }

  /** A Pod of this Environment changed in the cache. */
  podChanged(key: string, podName: string): void {
    this.#states.get(key)?.runtime.podChanged(podName);
  }

  /** The NetworkPolicy of this Environment changed in the cache; undefined: it is gone. */
  policyChanged(key: string, policy: NetworkPolicy | undefined): void {
    if (this.#states.get(key)?.policy.seen(policy)) this.#options.again(key, 0);
  }

  /** Environments that have loops. */
  get size(): number {
    return this.#states.size;
  }

  /** Stops all loops, and waits for requests under way. No loop begins any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    const states = [...this.#states.entries()];
    this.#states.clear();
    await Promise.all(states.map(([key, state]) => this.#end(key, state)));
  }

  /** Reconciles one Environment. Throws what is to be retried with backoff. */
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
    if (!parsed.ok) return this.#cannotRead(key, raw, parsed.problems);
    const { environment } = parsed;
    this.#unserved.forget(key, false);
    this.#options.observer?.cannotServe(key, null);
    await this.#serve(key, environment);
  }

  /** Most reconciles are about what the loops report, of an object that has not changed. */
  #parse(raw: KubeObject): ReturnType<typeof parseEnvironment> {
    const known = this.#parsed.get(raw);
    if (known) return known;
    const parsed = parseEnvironment(raw);
    this.#parsed.set(raw, parsed);
    return parsed;
  }

  /** Secrets with credentials must not outlive their Environment: what could not be deleted is tried until it is. */
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
    state.template = templateOf(environment);
    // Before anything can be sent there: an origin that is not allowed gets no key, whatever is under way, nor does one whose
    // own key was not read yet. Nor is anything claimed from an address that the status does not have: were the spec to name
    // another one next, no key would follow.
    const mayAsk = state.work.key !== "";
    if ((!mayAsk && state.key.inUse.key !== "") || !state.work.isAllowed || !isRecorded(state))
      state.runtime.update({ mayAsk, mayPrepare: false, mayClaim: false });
    if (state.work.renew()) {
      state.key.lookAgain();
      state.runtime.keyChanged();
    }
    await state.key.read(environment);
    await state.templateChecker.check(state.template);
    await state.policy.keep(environment, addressesTold(state.pods.list()));

    const { isAllowed } = state.work;
    // No Pod is made, and none is given a session, that the NetworkPolicy does not hold.
    const accepted = state.templateChecker.verdict?.accepted === true && state.policy.isKept;
    const deleting = environment.metadata.deletionTimestamp !== undefined;
    state.runtime.update({
      mayAsk: state.work.key !== "",
      mayPrepare: accepted && isAllowed,
      mayClaim: accepted && !environment.spec.paused && !deleting && isRecorded(state),
    });
    if (deleting && (await this.#drain(key, state))) return;

    const report = state.runtime.report();
    const conditions = this.#conditions(state, report);
    gaugeEnvironment(this.#options.metrics, environment, report, conditions);
    const { namespace, name } = environment.metadata;
    const step = { namespace, environment: name, step: "watch" };
    this.#options.metrics.failingSteps.set(step, this.#lagOf(state) === null ? 0 : 1);
    const recorded = isRecorded(state);
    const restMs = await state.status.write({
      generation: environment.metadata.generation,
      ...modeOf(environment),
      conditions,
      queue: report.queue,
      sessions: report.sessions,
      ...(report.claimedFrom === undefined ? {} : { apiAddresses: addressesToRecord(state, report.claimedFrom) }),
      ...(report.workers ? { workers: report.workers } : {}),
      ...(report.workspaces ? { workspaces: report.workspaces } : {}),
    });
    if (restMs !== null) again(key, restMs);
    // What claims waited for.
    if (!recorded && isRecorded(state)) again(key, 0);
    again(key, this.#nextLookMs(state, clock.monotonic()));
  }

  // --- Steps ------------------------------------------------------------------------------------------------------

  #stateOf(key: string, environment: Environment): EnvironmentState {
    const known = this.#states.get(key);
    if (known) return known;
    if (this.#stopped) throw new Error("no loop begins any more: the process ends, or leads no longer");
    const { again, observer, servingSinceMs } = this.#options;
    // Loops of this very term may have served it before.
    const options = { ...this.#options, servingSinceMs: Math.max(servingSinceMs, this.#lastEndMs) };
    const state = newEnvironmentState(environment, options, {
      claimLists: this.#claimLists,
      announce: announcer(environment, this.#options),
      look: (looked) => this.#lookAt(looked),
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

  /** Whether the drain's time is over, and what was left is given up. */
  async #drain(key: string, state: EnvironmentState): Promise<boolean> {
    const again = (afterMs: number) => this.#options.again(key, afterMs);
    if (await drain(state, { ...this.#options, again })) return false;
    await this.#giveUp(key, state);
    return true;
  }

  /** The Environment goes with what is left of it: nothing is begun for it any more. */
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
    logger.warn({ key, leftovers }, "the drain's time is over: what is left is given up");
    announcer(state.environment, this.#options)(
      "DrainGivenUp",
      `${leftovers} within deletionGraceSeconds and ${timing.drainBoundMs / SECOND_MS} s: they are given up, their leases end by themselves`,
    );
    forgetEnvironmentMetrics(metrics, { namespace, environment: name });
  }

  #lagOf({ environment }: EnvironmentState): string | null {
    return this.#options.lag(environment.metadata.namespace);
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
      sharers: this.#options.sharers(environment),
    });
  }

  #nextLookMs({ key, templateChecker, policy }: EnvironmentState, nowMs: number): number {
    const looks = [key.nextLookMs(nowMs), templateChecker.nextLookMs(nowMs), policy.nextLookMs(nowMs)];
    return Math.max(MIN_LOOK_MS, Math.min(...looks));
  }

  // --- Environments without loops ---------------------------------------------------------------------------------

  async #cannotRead(key: string, raw: KubeObject, problems: readonly string[]): Promise<void> {
    const known = this.#states.get(key) ?? this.#stateForRunning(key, raw);
    if (known) await this.#leaveRunning(key, known);
    await this.#unserved.report(raw, "InvalidSpec", invalidSpecMessage(problems), known?.status);
    const { deletionTimestamp } = raw.metadata;
    if (!known || !deletionTimestamp) return;
    // What runs drains by the last spec that made sense: nothing may hold a deletion up for ever.
    known.environment = { ...known.environment, metadata: { ...known.environment.metadata, deletionTimestamp } };
    await this.#drain(key, known);
  }

  /** Sessions of an earlier process, whose rules took this spec. */
  #stateForRunning(key: string, raw: KubeObject): EnvironmentState | undefined {
    const environment = parseForRunning(raw);
    return environment ? this.#stateOf(key, environment) : undefined;
  }

  /** Running sessions are left alone; nothing new is claimed by a spec that nobody understands. */
  async #leaveRunning(key: string, state: EnvironmentState): Promise<void> {
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

/** Reconciles of one Environment by the clock follow one another no closer than this. */
const MIN_LOOK_MS = 1_000;

/** What the spec names, and what the status has. */
type Addresses = Pick<EnvironmentState, "environment" | "status">;

/** Whether a claim of the spec's address would find its way back there after the spec names another. */
export function isRecorded({ environment, status }: Addresses): boolean {
  return environment.spec.workers !== undefined || status.apiAddresses.includes(environment.spec.api.baseUrl);
}

/** That of the spec, and those before it that claims name, the latest first. `claimedFrom` null: any may be named. */
export function addressesToRecord(
  { environment, status }: Addresses,
  claimedFrom: ReadonlySet<string> | null,
): string[] {
  const { baseUrl } = environment.spec.api;
  const earlier = status.apiAddresses.filter(
    (address) => address !== baseUrl && (claimedFrom === null || claimedFrom.has(address)),
  );
  return [baseUrl, ...earlier].slice(0, MAX_API_ADDRESSES);
}
