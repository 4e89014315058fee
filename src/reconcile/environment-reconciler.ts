import type { ConditionReason } from "../api/condition-reasons.ts";
import { type ConditionUpdate, conditionFor } from "../api/conditions.ts";
import { type Environment, parseEnvironment, parseForRunning } from "../api/environment.ts";
import { eventType } from "../api/event-type.ts";
import { API_VERSION, KIND } from "../api/names.ts";
import type { PodPolicy } from "../api/pod-policy.ts";
import { END_REASON_LIST } from "../api/reasons.ts";
import { MAX_API_ADDRESSES } from "../api/status.ts";
import { backoffCeiling } from "../core/backoff.ts";
import type { Clock } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import type { Points } from "../core/points.ts";
import type { Random } from "../core/random.ts";
import type { KubeClient } from "../kube/client.ts";
import { isNotFound } from "../kube/errors.ts";
import type { EventSink, EventSubject } from "../kube/events.ts";
import type { KubeObject, NetworkPolicy } from "../kube/resource.ts";
import { forgetEnvironmentMetrics, startEnvironmentMetrics } from "../observe/environment-metrics.ts";
import type { Logger } from "../observe/logger.ts";
import type { Metrics } from "../observe/metrics.ts";
import { ClaimLists } from "../sessions/claim-lists.ts";
import { deleteClaimSecrets } from "../sessions/claim-secrets.ts";
import type { Announce, PodCache, SessionContext } from "../sessions/context.ts";
import { ENVIRONMENTS } from "../sessions/environment-hold.ts";
import type { Hints } from "../sessions/hints.ts";
import type { Journal } from "../sessions/journal.ts";
import type { SessionView } from "../sessions/session-view.ts";
import type { Timing } from "../sessions/timing.ts";
import type { WorkApiClient } from "../work/client.ts";
import { type KeyReading, readEnvironmentKey } from "./environment-key.ts";
import type { RuntimeReport } from "./environment-runtime.ts";
import type { EnvironmentState } from "./environment-state.ts";
import { gaugeEnvironment } from "./gauges.ts";
import { type ModeContext, runtimeOf, templateOf } from "./modes.ts";
import { addressesTold, type NetworkFacts } from "./network-policy.ts";
import type { EnvironmentLook, Onlooker } from "./onlooker.ts";
import { PolicyKeeper } from "./policy-keeper.ts";
import { type ReadyReason, readyCondition } from "./ready.ts";
import { invalidSpecMessage, originNotAllowedMessage } from "./refusals.ts";
import { StatusWriter } from "./status-writer.ts";
import { checkTemplate } from "./template-check.ts";
import { UnservedEnvironments } from "./unserved.ts";
import type { WorkersCaches } from "./worker-caches.ts";

const SECOND_MS = 1_000;

/** Loops report many small changes: a reconcile so much later sees them all at once, and cannot become a hot loop. */
const REPORT_DELAY_MS = 250;

/** What reconciling needs from around it. */
export interface ReconcilerOptions {
  readonly kube: KubeClient;
  readonly clock: Clock;
  readonly random: Random;
  readonly timing: Timing;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly events: EventSink;
  /** Throws when this process may not act any more. */
  readonly guard: () => void;
  readonly originAllowed: (baseUrl: string) => boolean;
  /** What Pod templates may have. */
  readonly podPolicy: PodPolicy;
  readonly network: NetworkFacts;
  /** The points of one Environment, by `namespace/name`. */
  readonly points: (environment: string) => Points;
  /** Told what is served here, where somebody looks on. */
  readonly onlooker?: Onlooker;
  readonly workClient: (environment: Environment, key: () => string) => WorkApiClient;
  /** The Environment as the cache has it; undefined: it is gone. */
  readonly find: (namespace: string, name: string) => KubeObject | undefined;
  /** The Pods of one Environment, and of no other that had its name. */
  readonly pods: (of: { readonly namespace: string; readonly name: string; readonly uid: string }) => PodCache;
  /** What becomes of a Pod's node, as far as the operator may know. */
  readonly nodeOutlook: SessionContext["nodeOutlook"];
  /** The workers of one Environment. */
  readonly workers: (of: { readonly namespace: string; readonly name: string }) => WorkersCaches;
  /** Names of other Environments with the same environmentId, as `namespace/name`. */
  readonly sharers: (environment: Environment) => readonly string[];
  /** What webhooks say; undefined: none are received. */
  readonly hints?: Hints | undefined;
  /** Reconcile this key again after some milliseconds. */
  readonly again: (key: string, afterMs: number) => void;
}

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
  /** By key, the uid of an Environment whose drain was given up: others may hold it for long, and nothing is begun for it. */
  readonly #givenUp = new Map<string, string>();
  #stopped = false;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
    this.#claimLists = new ClaimLists(options.kube);
    this.#unserved = new UnservedEnvironments({ ...options, announcer: (about) => this.#announcer(about) });
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
      if (!raw) await this.#clearClaims(known);
    }
    if (this.#isGivenUp(key, raw)) return;
    if (!raw) return this.#unserved.forget(key, true);
    const parsed = this.#parse(raw);
    if (!parsed.ok) return this.#cannotRead(key, raw, parsed.problems);
    const { environment } = parsed;
    this.#unserved.forget(key, false);
    this.#options.onlooker?.cannotServe(key, null);
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
    state.environment = environment;
    state.template = templateOf(environment);
    // Before anything can be sent there: an origin that is not allowed gets no key, whatever is under way. Nor is anything
    // claimed from an address that the status does not have: were the spec to name another one next, no key would follow.
    if (!this.#isAllowed(state)) state.runtime.update({ mayAsk: false, mayPrepare: false, mayClaim: false });
    else if (!this.#isRecorded(state))
      state.runtime.update({ mayAsk: state.keyInUse !== "", mayPrepare: false, mayClaim: false });
    this.#renewWorkClient(state);
    await this.#readKey(state);
    await this.#checkTemplate(state);
    await state.policy.keep(environment, addressesTold(state.pods.list()));

    const allowed = this.#isAllowed(state);
    // No Pod is made, and none is given a session, that the NetworkPolicy does not hold.
    const accepted = state.templateVerdict?.accepted === true && state.policy.isKept;
    const deleting = environment.metadata.deletionTimestamp !== undefined;
    state.runtime.update({
      mayAsk: allowed && state.keyInUse !== "",
      mayPrepare: accepted && allowed,
      mayClaim: accepted && !environment.spec.paused && !deleting && this.#isRecorded(state),
    });
    if (deleting && (await this.#drain(key, state))) return;

    const report = state.runtime.report();
    const conditions = this.#conditions(state, report, allowed);
    gaugeEnvironment(this.#options.metrics, environment, report, conditions);
    const recorded = this.#isRecorded(state);
    const restMs = await state.status.write({
      generation: environment.metadata.generation,
      ...modeOf(environment),
      conditions,
      queue: report.queue,
      sessions: report.sessions,
      ...(report.claimedFrom === undefined ? {} : { apiAddresses: apiAddresses(state, report.claimedFrom) }),
      ...(report.workers ? { workers: report.workers } : {}),
      ...(report.workspaces ? { workspaces: report.workspaces } : {}),
    });
    if (restMs !== null) again(key, restMs);
    // What claims waited for.
    if (!recorded && this.#isRecorded(state)) again(key, 0);
    again(key, this.#nextLookMs(state, clock.monotonic()));
  }

  // --- Steps ------------------------------------------------------------------------------------------------------

  #stateOf(key: string, environment: Environment): EnvironmentState {
    const known = this.#states.get(key);
    if (known) return known;
    if (this.#stopped) throw new Error("no loop begins any more: the process ends, or leads no longer");
    const { clock, random, timing, metrics, guard, again } = this.#options;
    const { namespace, name, uid } = environment.metadata;
    const labels = { namespace, environment: name };
    startEnvironmentMetrics(metrics, labels, END_REASON_LIST);
    const announce = this.#announcer(environment);
    const points = this.#options.points(key);
    const hinted = this.#options.hints?.join({
      labels,
      workspaceId: () => state.environment.spec.api.workspaceId,
      runs: (sessionId) => state.runtime.runs(sessionId),
      look: () => state.runtime.look(),
    });
    const { onlooker } = this.#options;
    const context: ModeContext = {
      namespace,
      name,
      uid,
      environment: () => state.environment,
      kube: this.#options.kube,
      claimLists: this.#claimLists,
      pods: this.#options.pods({ namespace, name, uid }),
      nodeOutlook: this.#options.nodeOutlook,
      podPolicy: this.#options.podPolicy,
      workers: this.#options.workers({ namespace, name }),
      work: (claimedFrom) => this.#workAt(state, claimedFrom),
      environmentKey: () => this.#keyFor(state),
      guard,
      announce,
      hinted,
      ...(onlooker && { onSessionEnded: (session: SessionView) => onlooker.sessionEnded(key, session) }),
      points,
      clock,
      random,
      timing,
      logger: this.#options.logger.child({ namespace, environment: name }),
      metrics,
      labels,
    };
    const ref = { namespace, name, uid };
    const state: EnvironmentState = {
      uid,
      pods: context.pods,
      points,
      hinted,
      environment,
      template: templateOf(environment),
      work: this.#options.workClient(environment, () => this.#keyFor(state)),
      workFor: apiText(environment),
      workElsewhere: new Map(),
      runtime: runtimeOf(environment, context, () => again(key, REPORT_DELAY_MS)),
      status: new StatusWriter({ kube: this.#options.kube, ref, points, clock, announce, found: environment.status }),
      policy: new PolicyKeeper({ ...this.#options, points, logger: context.logger, facts: this.#options.network }),
      key: null,
      keyInDoubt: false,
      keyReadMs: Number.NEGATIVE_INFINITY,
      keyInUse: "",
      templateVerdict: null,
      source: { look: () => this.#lookAt(state), sessions: () => state.runtime.sessions() },
    };
    this.#states.set(key, state);
    onlooker?.serves(key, state.source);
    state.runtime.start();
    return state;
  }

  #lookAt(state: EnvironmentState): EnvironmentLook {
    const report = state.runtime.report();
    const conditions = this.#conditions(state, report, this.#isAllowed(state));
    return { ...modeOf(state.environment), report, conditions };
  }

  #renewWorkClient(state: EnvironmentState): void {
    const text = apiText(state.environment);
    if (text === state.workFor) return;
    state.work = this.#options.workClient(state.environment, () => this.#keyFor(state));
    state.workFor = text;
    state.workElsewhere.clear();
    state.keyReadMs = Number.NEGATIVE_INFINITY;
    state.runtime.keyChanged();
  }

  /** Whether a claim of the spec's address would find its way back there after the spec names another. */
  #isRecorded({ environment, status }: EnvironmentState): boolean {
    return environment.spec.workers !== undefined || status.apiAddresses.includes(environment.spec.api.baseUrl);
  }

  /**
   * The Work API at an address that the spec named before, with the key as it is now, if the address is still allowed and
   * the status has it: whoever may create Secrets can make up a claim that names any address.
   */
  #workAt(state: EnvironmentState, baseUrl = ""): WorkApiClient {
    const { environment, work, workElsewhere } = state;
    if (baseUrl === "" || baseUrl === work.baseUrl) return work;
    const known = workElsewhere.get(baseUrl);
    if (known) return known;
    const { spec } = environment;
    const then = { ...environment, spec: { ...spec, api: { ...spec.api, baseUrl } } };
    const { originAllowed, workClient } = this.#options;
    const isKnown = () => state.status.apiAddresses.includes(baseUrl) && originAllowed(baseUrl);
    const made = workClient(then, () => (isKnown() ? state.keyInUse : ""));
    workElsewhere.set(baseUrl, made);
    return made;
  }

  #isAllowed({ environment }: EnvironmentState): boolean {
    return this.#options.originAllowed(environment.spec.api.baseUrl);
  }

  #keyFor(state: EnvironmentState): string {
    return this.#isAllowed(state) ? state.keyInUse : "";
  }

  async #readKey(state: EnvironmentState): Promise<void> {
    const { kube, clock } = this.#options;
    const nowMs = clock.monotonic();
    if (nowMs < state.keyReadMs + this.#keyPaceMs(state)) return;
    const { namespace } = state.environment.metadata;
    const ref = state.environment.spec.api.keySecretRef;
    const usable = ({ ok }: KeyReading) => ({ usable: ok });
    const reading = await state.points.run(
      "reconcile.read-key",
      {},
      () => readEnvironmentKey(kube, namespace, ref),
      usable,
    );
    state.keyReadMs = nowMs;
    if (!reading.ok && !reading.lasting && state.key?.ok && !state.keyInDoubt) {
      state.keyInDoubt = true;
      return;
    }
    state.keyInDoubt = false;
    const before = state.key;
    state.key = reading;
    const next = this.#keyToUse(state, reading);
    // Whoever touches the Secret of a rejected key wants to see it tried again, also with the same key.
    const touched = reading.ok && before?.ok && reading.version !== before.version && state.runtime.keyRejected;
    if (next === state.keyInUse && !touched) return state.runtime.retryKey();
    state.keyInUse = next;
    if (next !== "") state.runtime.keyChanged();
  }

  /**
   * A Secret that could not be read says nothing: the key in use stays. One that went with its Environment (`kubectl
   * delete -f`) is not needed for anything but the end of what still runs.
   */
  #keyToUse(state: EnvironmentState, reading: KeyReading): string {
    if (reading.ok) return reading.key;
    const deleting = state.environment.metadata.deletionTimestamp !== undefined;
    return reading.lasting && !deleting ? "" : state.keyInUse;
  }

  #keyPaceMs(state: EnvironmentState): number {
    const { keyRefreshMs, keyRetryMs } = this.#options.timing;
    return state.key?.ok && !state.keyInDoubt && !state.runtime.keyRejected ? keyRefreshMs : keyRetryMs;
  }

  async #checkTemplate(state: EnvironmentState): Promise<void> {
    const { kube, clock, podPolicy } = this.#options;
    const { template, templateVerdict: last } = state;
    const sameHash = last?.hash === template.hash;
    if (sameHash && last && (last.final || clock.monotonic() < last.checkedMs + this.#templatePauseMs(last.attempts)))
      return;
    const { name } = state.environment.metadata;
    const check = () => checkTemplate(kube, name, template, podPolicy);
    const verdict = await state.points.run("reconcile.check-template", {}, check, ({ accepted }) => ({ accepted }));
    const attempts = sameHash && last ? last.attempts + 1 : 1;
    state.templateVerdict = { ...verdict, hash: template.hash, checkedMs: clock.monotonic(), attempts };
  }

  #templatePauseMs(attempts: number): number {
    const { templateRetryBaseMs: baseMs, templateRetryMaxMs: maxMs } = this.#options.timing;
    return backoffCeiling({ baseMs, maxMs }, attempts - 1);
  }

  /** Deletion: drain, and let the Environment go when nothing of it is left, or when its time is over. */
  async #drain(key: string, state: EnvironmentState): Promise<boolean> {
    const { kube, clock, timing, again, logger } = this.#options;
    const { metadata, spec } = state.environment;
    const deletedMs = Date.parse(metadata.deletionTimestamp ?? "");
    const overMs = deletedMs + spec.deletionGraceSeconds * SECOND_MS - kube.now();
    state.runtime.drain(clock.monotonic() + overMs);
    if (state.runtime.isDrained) {
      await state.runtime.releaseHold();
      return false;
    }
    if (overMs + timing.drainBoundMs > 0) {
      again(key, Math.max(SECOND_MS, Math.min(overMs, 0) + timing.drainBoundMs));
      return false;
    }
    const { leftovers } = state.runtime;
    state.hinted?.leave();
    await state.runtime.abandon();
    this.#states.delete(key);
    this.#options.onlooker?.gone(key, state.source);
    this.#givenUp.set(key, state.uid);
    logger.warn({ key, leftovers }, "the drain's time is over: what is left is given up");
    this.#announcer(state.environment)(
      "DrainGivenUp",
      `${leftovers} within deletionGraceSeconds and ${timing.drainBoundMs / SECOND_MS} s: they are given up, their leases end by themselves`,
    );
    forgetEnvironmentMetrics(this.#options.metrics, {
      namespace: metadata.namespace,
      environment: metadata.name,
    });
    return true;
  }

  #conditions(state: EnvironmentState, report: RuntimeReport, allowed: boolean): ConditionUpdate[] {
    const { environment } = state;
    const { generation } = environment.metadata;
    const say = (reason: ConditionReason, message: string) => conditionFor(reason, message, generation);
    const updates = new Map<string, ConditionUpdate>();
    const put = (update: ConditionUpdate) => updates.set(update.type, update);
    const { keySecretRef } = environment.spec.api;
    for (const { reason, message } of report.verdicts) put(say(reason, namingSecret(message, keySecretRef)));
    if (state.key && !state.key.ok) put(say(state.key.verdict.reason, state.key.verdict.message));
    if (!allowed) put(say("OriginNotAllowed", originNotAllowedMessage(environment.spec.api.baseUrl)));
    const { templateVerdict } = state;
    put(
      templateVerdict
        ? say(templateVerdict.reason, templateVerdict.message)
        : say("TemplateUnchecked", "the dry run got no answer yet"),
    );
    put(say(state.policy.verdict.reason, state.policy.verdict.message));
    const sharers = [...this.#options.sharers(environment)].sort();
    put(
      sharers.length > 0
        ? say(
            "EnvironmentIdShared",
            `${sharers.join(", ")} ${sharers.length > 1 ? "have" : "has"} the same environmentId: all take from one queue; keep only one, unless it is meant so`,
          )
        : say("EnvironmentIdUnique", "no other Environment of this cluster has this environmentId"),
    );
    const all = [...updates.values()];
    const ready = readyCondition({
      decided: decided(environment),
      hindrance: report.hindrance,
      conditions: all,
      generation,
    });
    return [ready, ...all];
  }

  #nextLookMs(state: EnvironmentState, nowMs: number): number {
    const keyMs = state.keyReadMs + this.#keyPaceMs(state) - nowMs;
    const verdict = state.templateVerdict;
    const templateMs =
      verdict && !verdict.final ? verdict.checkedMs + this.#templatePauseMs(verdict.attempts) - nowMs : keyMs;
    return Math.max(MIN_LOOK_MS, Math.min(keyMs, templateMs, state.policy.nextLookMs(nowMs)));
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
    await this.#readKey(state);
    const mayAsk = this.#isAllowed(state) && state.keyInUse !== "";
    state.runtime.update({ mayAsk, mayPrepare: false, mayClaim: false });
    again(key, Math.max(MIN_LOOK_MS, state.keyReadMs + this.#keyPaceMs(state) - clock.monotonic()));
  }

  /** Somebody took the finalizer away by hand: what was claimed is nobody's now. Best effort; never throws. */
  async #clearClaims({ uid, environment, points }: EnvironmentState): Promise<void> {
    const { kube, logger } = this.#options;
    const { namespace, name } = environment.metadata;
    try {
      await points.run("cleanup.read-environment", {}, () => kube.get(ENVIRONMENTS, { namespace, name }));
    } catch (error) {
      if (!isNotFound(error)) return;
      const isIts = (journal: Journal | null) => journal?.environmentUid === uid;
      await deleteClaimSecrets(kube, { namespace, name }, points, isIts).catch((failure: unknown) =>
        logger.warn({ namespace, name, error: errorText(failure) }, "claims of an Environment that is gone are left"),
      );
    }
  }

  async #end(key: string, state: EnvironmentState): Promise<void> {
    state.hinted?.leave();
    await state.runtime.stop();
    this.#options.onlooker?.gone(key, state.source);
    const [namespace = "", environment = ""] = key.split("/");
    forgetEnvironmentMetrics(this.#options.metrics, { namespace, environment });
  }

  #announcer(about: Pick<EventSubject, "metadata">): Announce {
    const { events, onlooker } = this.#options;
    const key = `${about.metadata.namespace}/${about.metadata.name}`;
    const subject = { apiVersion: API_VERSION, kind: KIND, metadata: about.metadata };
    return (reason, message, pod) => {
      const type = eventType(reason);
      if (type === "Warning") onlooker?.warned(key, reason, message);
      // Sessions that come and go as they should are told of their Pods alone: told twice, they would be most of what this
      // process writes, and drown what is wrong with the Environment.
      if (!pod || type === "Warning") events.event(subject, type, reason, message);
      if (pod) events.event({ apiVersion: "v1", kind: "Pod", metadata: pod.metadata }, type, reason, message);
    };
  }
}

/** Reconciles of one Environment by the clock follow one another no closer than this. */
const MIN_LOOK_MS = 1_000;

function modeOf({ spec }: Environment): { readonly mode: "Sessions" | "Workers"; readonly max: number } {
  return spec.workers
    ? { mode: "Workers", max: spec.workers.maxReplicas }
    : { mode: "Sessions", max: spec.sessions?.maxConcurrent ?? 0 };
}

/** What the operator decided by itself, before anything else may be said of readiness. */
function decided(environment: Environment): ReadyReason | null {
  // Workers claim by themselves for as long as they are there.
  const begun = environment.spec.workers ? "idle workers go" : "nothing new is claimed";
  if (environment.metadata.deletionTimestamp) {
    return {
      reason: "Deleting",
      message: `${begun}; running sessions may go on for ${environment.spec.deletionGraceSeconds} s (deletionGraceSeconds), then they are stopped`,
    };
  }
  if (environment.spec.paused) {
    return {
      reason: "Paused",
      message: `spec.paused is true: ${begun}, running sessions go on; set it to false to serve again`,
    };
  }
  return null;
}

/** The client knows the field that names the Secret; a person on call wants the Secret's name. */
function namingSecret(message: string, ref: { readonly name: string; readonly key: string }): string {
  return message.replace("the Secret that spec.api.keySecretRef names", `Secret ${ref.name} (key ${ref.key})`);
}

/** That of the spec, and those before it that claims name, the latest first. `claimedFrom` null: any may be named. */
function apiAddresses({ environment, status }: EnvironmentState, claimedFrom: ReadonlySet<string> | null): string[] {
  const { baseUrl } = environment.spec.api;
  const earlier = status.apiAddresses.filter(
    (address) => address !== baseUrl && (claimedFrom === null || claimedFrom.has(address)),
  );
  return [baseUrl, ...earlier].slice(0, MAX_API_ADDRESSES);
}

/** Everything of the spec that a Work API client is made from. */
function apiText(environment: Environment): string {
  const { keySecretRef, ...api } = environment.spec.api;
  return JSON.stringify([api, environment.spec.environmentId, keySecretRef]);
}
