import { eventType } from "../api/condition-reasons.ts";
import { findCondition } from "../api/conditions.ts";
import type { Environment } from "../api/environment.ts";
import { ANNOTATION_RELEASES, API_VERSION, KIND } from "../api/names.ts";
import { END_REASON_LIST } from "../api/reasons.ts";
import type { ClaimLists } from "../claims/claim-lists.ts";
import type { Points } from "../core/points.ts";
import type { EventSink, EventSubject } from "../kube/events.ts";
import { startEnvironmentMetrics } from "../observe/environment-metrics.ts";
import type { PodCache } from "../pods/pod-state.ts";
import type { Announce } from "../protocol/context.ts";
import type { SessionPoint } from "../protocol/points.ts";
import type { SessionView } from "../protocol/session-view.ts";
import type { HintedQueue } from "../queue/hints.ts";
import type { Precedence } from "../queue/precedence.ts";
import { type AbilityCheck, parkingCheck, sleepCheck } from "./ability-check.ts";
import type {
  CheckedTemplate,
  EnvironmentLook,
  EnvironmentObserver,
  EnvironmentRuntime,
  EnvironmentSource,
} from "./environment-runtime.ts";
import { ENVIRONMENTS, EnvironmentFinalizer } from "./finalizer.ts";
import { KeyKeeper } from "./key-keeper.ts";
import { KeyedClient } from "./keyed-client.ts";
import { type ModeContext, type Refused, runtimeOf, templateOf } from "./modes.ts";
import { PolicyKeeper } from "./policy-keeper.ts";
import type { ReconcilePoint, ReconcilerOptions } from "./reconciler-options.ts";
import { ReportPace } from "./report-pace.ts";
import { StatusWriter } from "./status-writer.ts";
import { TemplateChecker } from "./template-check.ts";

/** What the reconciler keeps of one Environment between reconciles: caches that it can fill again, and the loops. */
export interface EnvironmentState {
  readonly uid: string;
  /** The reason of `Ready` that this process found when it first saw the Environment. */
  readonly readyBefore: string | undefined;
  readonly pods: PodCache;
  readonly points: Points<ReconcilePoint | SessionPoint>;
  readonly hinted: HintedQueue | undefined;
  environment: Environment;
  template: CheckedTemplate;
  readonly work: KeyedClient;
  readonly runtime: EnvironmentRuntime;
  readonly finalizer: EnvironmentFinalizer;
  readonly status: StatusWriter;
  readonly policy: PolicyKeeper;
  readonly key: KeyKeeper;
  readonly templateChecker: TemplateChecker;
  readonly parkingCheck: AbilityCheck;
  readonly sleepCheck: AbilityCheck;
  /** How soon the reconciler handles a change that the loops report. */
  readonly pace: ReportPace;
  /** For an observer. */
  readonly source: EnvironmentSource;
}

/** What a state needs in addition to the reconciler's options. */
export interface StateParts {
  readonly claimLists: ClaimLists;
  readonly announce: Announce;
  /** For an observer. */
  readonly look: (state: EnvironmentState) => EnvironmentLook;
  readonly precedence: (state: EnvironmentState) => Precedence;
  /** The loops report a change. The Environment is reconciled as soon as its pace permits. */
  readonly onChange: (pace: ReportPace) => void;
}

/** The initial state of an Environment. Its loops are created but not started. */
export function newEnvironmentState(
  environment: Environment,
  options: ReconcilerOptions,
  { claimLists, announce, look, precedence, onChange }: StateParts,
): EnvironmentState {
  const { kube, clock, random, timing, metrics, guard, servingSinceMs, observer, podPolicy, nodeOutlook } = options;
  const { namespace, name, uid } = environment.metadata;
  const key = `${namespace}/${name}`;
  const labels = { namespace, environment: name };
  startEnvironmentMetrics(metrics, labels, END_REASON_LIST);
  const points = options.points(key);
  const hinted = options.hints?.join({
    labels,
    workspaceId: () => state.environment.spec.api.workspaceId,
    runs: (sessionId) => state.runtime.runs(sessionId),
    look: () => state.runtime.look(),
  });
  const context: ModeContext = {
    namespace,
    name,
    uid,
    environment: () => state.environment,
    kube,
    claimLists,
    recordReleases: (text) => {
      const patch = { metadata: { uid, annotations: { [ANNOTATION_RELEASES]: text } } };
      return points.run("session.count-release", {}, () =>
        kube.patch(ENVIRONMENTS, { namespace, name }, patch, { type: "merge" }),
      );
    },
    pods: options.pods({ namespace, name, uid }),
    nodeOutlook,
    podPolicy,
    workers: options.workers({ namespace, name }),
    work: () => state.work.client,
    environmentKey: () => state.work.key,
    isKeyRead: () => state.key.isRead,
    guard,
    servingSinceMs,
    announce,
    precedence: () => precedence(state),
    streamBudgets: options.streamBudgets,
    refused: () => refusedOf(state),
    shellFailed: (message, isForMoment = false) => {
      state.parkingCheck.failed(message, state.environment, isForMoment);
      onChange(pace);
    },
    sleepFailed: (message, isForMoment = false) => {
      state.sleepCheck.failed(message, state.environment, isForMoment);
      onChange(pace);
    },
    hinted,
    ...(observer && { onSessionEnded: (session: SessionView) => observer.sessionEnded(key, session) }),
    points,
    clock,
    random,
    timing,
    logger: options.logger.child({ namespace, environment: name }),
    metrics,
    labels,
  };
  const ref = { namespace, name, uid };
  const pace = new ReportPace(clock);
  const finalizer = new EnvironmentFinalizer(context);
  const state: EnvironmentState = {
    uid,
    readyBefore: findCondition(environment.status?.conditions, "Ready")?.reason,
    pods: context.pods,
    points,
    hinted,
    environment,
    template: templateOf(environment, { shell: null, sleep: null }),
    work: new KeyedClient({
      ...options,
      found: environment,
      environment: () => state.environment,
      keyInUse: () => state.key.inUse,
    }),
    runtime: runtimeOf(environment, context, finalizer, () => onChange(pace)),
    finalizer,
    status: new StatusWriter({
      ...options,
      ...{ ref, points, logger: context.logger, announce, found: environment.status },
    }),
    policy: new PolicyKeeper({ ...options, points, logger: context.logger, facts: options.network }),
    key: new KeyKeeper({ ...options, points, loops: () => state.runtime }),
    parkingCheck: parkingCheck({ ...options, points, found: environment.status }),
    sleepCheck: sleepCheck({ ...options, points, found: environment.status }),
    templateChecker: new TemplateChecker({ ...options, points, name }),
    pace,
    source: { look: () => look(state), sessions: () => state.runtime.sessions() },
  };
  return state;
}

/** What can't be had in this cluster, or with this image. */
export function refusedOf({ parkingCheck, sleepCheck }: EnvironmentState): Refused {
  return { shell: parkingCheck.refused, sleep: sleepCheck.refused };
}

/** Turns announcements about an Environment or its Pods into Events, and passes warnings to the observer. */
export function announcer(
  about: Pick<EventSubject, "metadata">,
  { events, observer }: { readonly events: EventSink; readonly observer?: EnvironmentObserver },
): Announce {
  const key = `${about.metadata.namespace}/${about.metadata.name}`;
  const subject = { apiVersion: API_VERSION, kind: KIND, metadata: about.metadata };
  return (reason, message, pod) => {
    const type = eventType(reason);
    if (type === "Warning") observer?.warned(key, reason, message);
    // Normal starts and ends of sessions get an Event on the Pod only. On the Environment too, they would be most of
    // the process's writes and hide what is wrong with it.
    if (!pod || type === "Warning") events.event(subject, type, reason, message);
    if (pod) events.event({ apiVersion: "v1", kind: "Pod", metadata: pod.metadata }, type, reason, message);
  };
}
