import { type ConditionReason, type ConditionUpdate, conditionFor, eventType } from "../api/conditions.ts";
import { type Environment, parseEnvironment } from "../api/environment.ts";
import { API_VERSION, FINALIZER, KIND } from "../api/names.ts";
import { END_REASON_LIST } from "../api/reasons.ts";
import { unsupportedFields } from "../api/unsupported.ts";
import { backoffCeiling } from "../core/backoff.ts";
import type { Clock } from "../core/clock.ts";
import type { Random } from "../core/random.ts";
import type { KubeClient } from "../kube/client.ts";
import type { EventRecorder, EventSubject } from "../kube/events.ts";
import type { KubeObject } from "../kube/resource.ts";
import { forgetEnvironmentMetrics, startEnvironmentMetrics } from "../observe/environment-metrics.ts";
import type { Logger } from "../observe/logger.ts";
import type { Metrics } from "../observe/metrics.ts";
import type { Announce, PodCache, SessionContext } from "../sessions/context.ts";
import { EnvironmentHold } from "../sessions/environment-hold.ts";
import { sessionTemplate } from "../sessions/pod-render.ts";
import { type RuntimeReport, SessionsRuntime } from "../sessions/runtime.ts";
import type { Timing } from "../sessions/timing.ts";
import type { WorkApiClient } from "../work/client.ts";
import { readEnvironmentKey } from "./environment-key.ts";
import type { EnvironmentState } from "./environment-state.ts";
import { gaugeEnvironment } from "./gauges.ts";
import { readyCondition } from "./ready.ts";
import { StatusWriter } from "./status-writer.ts";
import { checkTemplate } from "./template-check.ts";

const SECOND_MS = 1_000;

/** Loops report many small changes: a reconcile so much later sees them all at once, and cannot become a hot loop. */
const REPORT_DELAY_MS = 100;

/** What reconciling needs from around it. */
export interface ReconcilerOptions {
  readonly kube: KubeClient;
  readonly clock: Clock;
  readonly random: Random;
  readonly timing: Timing;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly events: EventRecorder;
  /** Throws when this process may not act any more. */
  readonly guard: () => void;
  readonly originAllowed: (baseUrl: string) => boolean;
  readonly workClient: (environment: Environment, key: () => string) => WorkApiClient;
  /** The Environment as the cache has it; undefined: it is gone. */
  readonly find: (namespace: string, name: string) => KubeObject | undefined;
  readonly pods: (namespace: string, name: string) => PodCache;
  /** Names of other Environments with the same environmentId, as `namespace/name`. */
  readonly sharers: (environment: Environment) => readonly string[];
  /** Reconcile this key again after some milliseconds. */
  readonly again: (key: string, afterMs: number) => void;
}

/**
 * One Environment from its spec to its status, in small steps: key, origin, template, loops, deletion, status. Level-based
 * and idempotent: it runs whenever something may have changed and finds out what is to be done.
 */
export class EnvironmentReconciler {
  readonly #options: ReconcilerOptions;
  readonly #states = new Map<string, EnvironmentState>();
  /** Specs that cannot be read: their status is written, nothing else. */
  readonly #unreadable = new Map<string, StatusWriter>();

  constructor(options: ReconcilerOptions) {
    this.#options = options;
  }

  /** A Pod of this Environment changed in the cache. */
  podChanged(key: string, podName: string): void {
    this.#states.get(key)?.runtime.podChanged(podName);
  }

  /** Environments that have loops. */
  get size(): number {
    return this.#states.size;
  }

  /** Stops all loops, and waits for requests under way. */
  async stop(): Promise<void> {
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
    }
    if (!raw) {
      this.#unreadable.delete(key);
      return;
    }
    const parsed = parseEnvironment(raw);
    if (!parsed.ok) return this.#cannotRead(key, raw, parsed.problems);
    this.#unreadable.delete(key);
    const { environment } = parsed;
    if (!environment.spec.sessions) return this.#notServed(key, raw, environment);
    await this.#serve(key, environment);
  }

  async #serve(key: string, environment: Environment): Promise<void> {
    const { clock, again } = this.#options;
    const state = this.#stateOf(key, environment);
    state.environment = environment;
    state.template = sessionTemplate(environment);
    this.#renewWorkClient(state);
    await this.#readKey(state);
    await this.#checkTemplate(state);

    const unsupported = unsupportedFields(environment.spec);
    const allowed = this.#options.originAllowed(environment.spec.api.baseUrl);
    const accepted = state.templateVerdict?.accepted === true && unsupported.length === 0;
    const deleting = environment.metadata.deletionTimestamp !== undefined;
    state.runtime.update({
      mayAsk: allowed && state.keyInUse !== "",
      mayPrepare: accepted && allowed,
      mayClaim: accepted && !environment.spec.paused && !deleting,
    });
    if (deleting && (await this.#drain(key, state))) return;

    const report = state.runtime.report();
    const conditions = this.#conditions(state, report, allowed, unsupported[0]?.message);
    gaugeEnvironment(this.#options.metrics, environment, report, conditions);
    const restMs = await state.status.write({
      generation: environment.metadata.generation,
      mode: "Sessions",
      max: environment.spec.sessions?.maxConcurrent ?? 0,
      conditions,
      queue: report.queue,
      sessions: report.sessions,
    });
    if (restMs !== null) again(key, restMs);
    again(key, this.#nextLookMs(state, clock.monotonic()));
  }

  // --- Steps ------------------------------------------------------------------------------------------------------

  #stateOf(key: string, environment: Environment): EnvironmentState {
    const known = this.#states.get(key);
    if (known) return known;
    const { clock, random, timing, metrics, guard, again } = this.#options;
    const { namespace, name, uid } = environment.metadata;
    const labels = { namespace, environment: name };
    startEnvironmentMetrics(metrics, labels, END_REASON_LIST);
    const announce = this.#announcer(environment);
    const context: SessionContext = {
      namespace,
      name,
      uid,
      environment: () => state.environment,
      template: () => state.template,
      kube: this.#options.kube,
      pods: this.#options.pods(namespace, name),
      work: () => state.work,
      guard,
      announce,
      clock,
      random,
      timing,
      logger: this.#options.logger.child({ namespace, environment: name }),
      metrics,
      labels,
    };
    const ref = { namespace, name };
    const state: EnvironmentState = {
      uid,
      environment,
      template: sessionTemplate(environment),
      work: this.#options.workClient(environment, () => state.keyInUse),
      workFor: apiText(environment),
      runtime: new SessionsRuntime(context, () => again(key, REPORT_DELAY_MS)),
      status: new StatusWriter({ kube: this.#options.kube, ref, clock, announce, found: environment.status }),
      key: null,
      keyReadMs: Number.NEGATIVE_INFINITY,
      keyInUse: "",
      templateVerdict: null,
    };
    this.#states.set(key, state);
    state.runtime.start();
    return state;
  }

  #renewWorkClient(state: EnvironmentState): void {
    const text = apiText(state.environment);
    if (text === state.workFor) return;
    state.work = this.#options.workClient(state.environment, () => state.keyInUse);
    state.workFor = text;
    state.keyReadMs = Number.NEGATIVE_INFINITY;
    state.runtime.keyChanged();
  }

  async #readKey(state: EnvironmentState): Promise<void> {
    const { kube, clock } = this.#options;
    const nowMs = clock.monotonic();
    if (nowMs < state.keyReadMs + this.#keyPaceMs(state)) return;
    const { namespace } = state.environment.metadata;
    const reading = await readEnvironmentKey(kube, namespace, state.environment.spec.api.keySecretRef);
    state.keyReadMs = nowMs;
    state.key = reading;
    // A Secret that could not be read says nothing: the key in use stays.
    const next = reading.ok ? reading.key : reading.lasting ? "" : state.keyInUse;
    if (next === state.keyInUse) return;
    state.keyInUse = next;
    if (next !== "") state.runtime.keyChanged();
  }

  #keyPaceMs(state: EnvironmentState): number {
    const { keyRefreshMs, keyRetryMs } = this.#options.timing;
    return state.key?.ok && !state.runtime.keyRejected ? keyRefreshMs : keyRetryMs;
  }

  async #checkTemplate(state: EnvironmentState): Promise<void> {
    const { kube, clock } = this.#options;
    const { template, templateVerdict: last } = state;
    const sameHash = last?.hash === template.hash;
    if (sameHash && last && (last.final || clock.monotonic() < last.checkedMs + this.#templatePauseMs(last.attempts)))
      return;
    const verdict = await checkTemplate(kube, state.environment.metadata.name, template);
    const attempts = sameHash && last ? last.attempts + 1 : 1;
    state.templateVerdict = { ...verdict, hash: template.hash, checkedMs: clock.monotonic(), attempts };
  }

  #templatePauseMs(attempts: number): number {
    const { templateRetryBaseMs: baseMs, templateRetryMaxMs: maxMs } = this.#options.timing;
    return backoffCeiling({ baseMs, maxMs }, attempts - 1);
  }

  /** Deletion: drain, and let the Environment go when nothing of it is left, or when its time is over. */
  async #drain(key: string, state: EnvironmentState): Promise<boolean> {
    const { clock, timing, again, logger } = this.#options;
    const { metadata, spec } = state.environment;
    const deletedMs = Date.parse(metadata.deletionTimestamp ?? "");
    const overMs = deletedMs + spec.deletionGraceSeconds * SECOND_MS - clock.now();
    state.runtime.drain(clock.monotonic() + overMs);
    if (state.runtime.isDrained) {
      await state.runtime.releaseHold();
      return false;
    }
    if (overMs + timing.drainBoundMs > 0) {
      again(key, Math.max(SECOND_MS, Math.min(overMs, 0) + timing.drainBoundMs));
      return false;
    }
    logger.warn({ key, claims: state.runtime.claims }, "the drain's time is over: what is left is given up");
    this.#states.delete(key);
    await state.runtime.abandon();
    await forgetEnvironmentMetrics(this.#options.metrics, {
      namespace: metadata.namespace,
      environment: metadata.name,
    });
    return true;
  }

  #conditions(
    state: EnvironmentState,
    report: RuntimeReport,
    allowed: boolean,
    unsupported: string | undefined,
  ): ConditionUpdate[] {
    const { environment } = state;
    const { generation } = environment.metadata;
    const say = (reason: ConditionReason, message: string) => conditionFor(reason, message, generation);
    const updates = new Map<string, ConditionUpdate>();
    const put = (update: ConditionUpdate) => updates.set(update.type, update);
    for (const { reason, message } of report.verdicts) put(say(reason, message));
    if (state.key && !state.key.ok) put(say(state.key.verdict.reason, state.key.verdict.message));
    if (!allowed) {
      const { baseUrl } = environment.spec.api;
      put(
        say(
          "OriginNotAllowed",
          `the operator may not send keys to ${baseUrl}: mend api.baseUrl, or add it to --allowed-api-origins`,
        ),
      );
    }
    const { templateVerdict } = state;
    put(
      templateVerdict
        ? say(templateVerdict.reason, templateVerdict.message)
        : say("TemplateUnchecked", "the dry run got no answer yet"),
    );
    const sharers = this.#options.sharers(environment);
    put(
      sharers.length > 0
        ? say(
            "EnvironmentIdShared",
            `${sharers.join(", ")} has the same environmentId: both take from one queue; delete one of them, unless it is meant so`,
          )
        : say("EnvironmentIdUnique", "no other Environment of this cluster has this environmentId"),
    );
    const all = [...updates.values()];
    return [readyCondition(decided(environment, unsupported), all, generation), ...all];
  }

  #nextLookMs(state: EnvironmentState, nowMs: number): number {
    const keyMs = state.keyReadMs + this.#keyPaceMs(state) - nowMs;
    const verdict = state.templateVerdict;
    const templateMs =
      verdict && !verdict.final ? verdict.checkedMs + this.#templatePauseMs(verdict.attempts) - nowMs : keyMs;
    return Math.max(MIN_LOOK_MS, Math.min(keyMs, templateMs));
  }

  // --- Environments without loops ---------------------------------------------------------------------------------

  async #cannotRead(key: string, raw: KubeObject, problems: readonly string[]): Promise<void> {
    await this.#report(key, raw, "InvalidSpec", problems.join("; "));
    // Running sessions are left alone; nothing new is claimed by a spec that nobody understands.
    this.#states.get(key)?.runtime.update({ mayAsk: true, mayPrepare: false, mayClaim: false });
    await this.#letGo(raw);
  }

  async #notServed(key: string, raw: KubeObject, environment: Environment): Promise<void> {
    const [field] = unsupportedFields(environment.spec);
    await this.#report(
      key,
      raw,
      "UnsupportedField",
      field?.message ?? "this mode is not supported by this version of Berth",
    );
    await this.#letGo(raw);
  }

  async #report(key: string, raw: KubeObject, reason: ConditionReason, message: string): Promise<void> {
    const { namespace = "", name = "", generation = 0 } = raw.metadata;
    const announce = this.#announcer(raw);
    let writer = this.#unreadable.get(key) ?? this.#states.get(key)?.status;
    if (!writer) {
      const parsed = parseEnvironment({ ...raw, spec: undefined });
      const found = parsed.ok ? parsed.environment.status : undefined;
      writer = new StatusWriter({
        kube: this.#options.kube,
        ref: { namespace, name },
        clock: this.#options.clock,
        announce,
        found,
      });
      this.#unreadable.set(key, writer);
    }
    const mode = "workers" in ((raw as { spec?: object }).spec ?? {}) ? "Workers" : "Sessions";
    await writer.write({
      generation,
      mode,
      max: 0,
      conditions: [conditionFor(reason, message, generation)],
      queue: null,
      sessions: null,
    });
  }

  /** An Environment without loops holds nothing: its finalizer, left by an earlier process, must not hold it either. */
  async #letGo(raw: KubeObject): Promise<void> {
    const { namespace = "", name = "", uid = "", finalizers, deletionTimestamp } = raw.metadata;
    if (!deletionTimestamp || !finalizers?.includes(FINALIZER) || this.#states.has(`${namespace}/${name}`)) return;
    await new EnvironmentHold({ kube: this.#options.kube, namespace, name, uid }).release(() => true);
  }

  async #end(key: string, state: EnvironmentState): Promise<void> {
    await state.runtime.stop();
    const [namespace = "", environment = ""] = key.split("/");
    await forgetEnvironmentMetrics(this.#options.metrics, { namespace, environment });
  }

  #announcer(about: Pick<EventSubject, "metadata">): Announce {
    const { events } = this.#options;
    const subject = { apiVersion: API_VERSION, kind: KIND, metadata: about.metadata };
    return (reason, message, pod) => {
      const type = eventType(reason);
      events.event(subject, type, reason, message);
      if (pod) events.event({ apiVersion: "v1", kind: "Pod", metadata: pod.metadata }, type, reason, message);
    };
  }
}

/** Reconciles of one Environment by the clock follow one another no closer than this. */
const MIN_LOOK_MS = 1_000;

/** What the operator decided by itself, before anything else may be said of readiness. */
function decided(
  environment: Environment,
  unsupported: string | undefined,
): { reason: ConditionReason; message: string } | null {
  if (environment.metadata.deletionTimestamp) {
    return {
      reason: "Deleting",
      message: "nothing new is claimed; running sessions end by themselves or after deletionGraceSeconds",
    };
  }
  if (unsupported) return { reason: "UnsupportedField", message: unsupported };
  if (environment.spec.paused) return { reason: "Paused", message: "spec.paused is true: nothing new is claimed" };
  return null;
}

/** Everything of the spec that a Work API client is made from. */
function apiText(environment: Environment): string {
  const { keySecretRef, ...api } = environment.spec.api;
  return JSON.stringify([api, environment.spec.environmentId, keySecretRef]);
}
