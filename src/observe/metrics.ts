import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { EnvironmentCounter, EnvironmentGauge } from "./other-labels.ts";

/** Buckets in seconds for the path from a queued item to a started container. A warm Pod starts in about 0.1 s. */
const START_BUCKETS = [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30, 60, 120, 300, 600];
const REQUEST_BUCKETS = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** Labels that identify one Environment. */
export const ENVIRONMENT = ["namespace", "environment"] as const;

/**
 * Every metric that Berth exports. Names are `berth_...` in base units. Label values come from closed sets, except the
 * two that identify an Environment. A test compares docs/metrics.md with this list.
 */
export function createMetrics(registry: Registry = new Registry()) {
  const registers = [registry];
  const counter = <L extends string>(name: string, help: string, labelNames: readonly L[] = []): Counter<L> =>
    isOfEnvironments(labelNames)
      ? new EnvironmentCounter<L>({ name, help, labelNames: [...labelNames], registers }, ENVIRONMENT)
      : new Counter<L>({ name, help, labelNames: [...labelNames], registers });
  const gauge = <L extends string>(name: string, help: string, labelNames: readonly L[] = []): Gauge<L> =>
    isOfEnvironments(labelNames)
      ? new EnvironmentGauge<L>({ name, help, labelNames: [...labelNames], registers }, ENVIRONMENT)
      : new Gauge<L>({ name, help, labelNames: [...labelNames], registers });
  const histogram = <L extends string>(name: string, help: string, buckets: number[], labelNames: readonly L[] = []) =>
    new Histogram<L>({ name, help, buckets, labelNames: [...labelNames], registers });

  return {
    registry,
    // The queue, from the Work API's statistics.
    queueDepth: gauge("berth_queue_depth", "Work items that wait in the queue.", ENVIRONMENT),
    queuePending: gauge("berth_queue_pending", "Work items that were polled but not acknowledged yet.", ENVIRONMENT),
    queueOldestTimestamp: gauge(
      "berth_queue_oldest_item_timestamp_seconds",
      "Unix time at which the oldest waiting item was queued; 0 if the queue is empty.",
      ENVIRONMENT,
    ),
    queueWorkersPolling: gauge(
      "berth_queue_workers_polling",
      "Pollers in the last 30 seconds, according to the platform.",
      ENVIRONMENT,
    ),
    // Sessions.
    sessions: gauge("berth_sessions", "Session Pods by phase.", [...ENVIRONMENT, "phase"]),
    sessionsMax: gauge("berth_sessions_max", "spec.sessions.maxConcurrent.", ENVIRONMENT),
    claims: counter("berth_claims_total", "Polled work items, by the result of the claim.", [...ENVIRONMENT, "result"]),
    journals: counter("berth_journals_total", "Claim Secrets written, by result.", [...ENVIRONMENT, "result"]),
    acks: counter("berth_acks_total", "Acknowledgements, by result.", [...ENVIRONMENT, "result"]),
    deliveries: counter("berth_deliveries_total", "Lines written to waiting Pods, by connection and result.", [
      ...ENVIRONMENT,
      "connection",
      "result",
    ]),
    attachStreams: gauge("berth_attach_streams", "Connections kept open to warm and sleeping Pods.", ENVIRONMENT),
    sessionsStarted: counter("berth_sessions_started_total", "Sessions whose program has started.", ENVIRONMENT),
    sessionsEnded: counter("berth_sessions_ended_total", "Sessions ended, by reason.", [...ENVIRONMENT, "reason"]),
    leasesLost: counter("berth_leases_lost_total", "Leases that another client holds.", ENVIRONMENT),
    leasesHeld: gauge("berth_leases_held", "Leases that the operator keeps with heartbeats.", ENVIRONMENT),
    heartbeats: counter("berth_heartbeats_total", "Heartbeats of leases that the operator holds, by result.", [
      ...ENVIRONMENT,
      "result",
    ]),
    heartbeatLateness: histogram(
      "berth_heartbeat_lateness_seconds",
      "From the time at which a heartbeat was due to its sending.",
      [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
      ENVIRONMENT,
    ),
    queuedToOpened: histogram(
      "berth_queued_to_opened_seconds",
      "From the item's creation to the assignment of its Pod.",
      START_BUCKETS,
      ENVIRONMENT,
    ),
    queuedToStarted: histogram(
      "berth_queued_to_started_seconds",
      "From the item's creation to its program running.",
      START_BUCKETS,
      ENVIRONMENT,
    ),
    openedToStarted: histogram(
      "berth_opened_to_started_seconds",
      "From the opening of the claim to its program running.",
      START_BUCKETS,
      ENVIRONMENT,
    ),
    startedToFirstBeat: histogram(
      "berth_started_to_first_beat_seconds",
      "From the session's start to its first heartbeat.",
      START_BUCKETS,
      ENVIRONMENT,
    ),
    sessionSeconds: histogram(
      "berth_session_duration_seconds",
      "From the session's start to the end of its container.",
      [1, 10, 60, 300, 900, 1800, 3600, 14_400, 43_200, 86_400],
      ENVIRONMENT,
    ),
    sessionsWoken: counter(
      "berth_sessions_woken_total",
      "Sessions that came back after a sleep, by where their next work item started.",
      [...ENVIRONMENT, "result"],
    ),
    sleepsEnded: counter("berth_sleeps_ended_total", "Sleeping Pods deleted, by reason.", [...ENVIRONMENT, "reason"]),
    wokenToStarted: histogram(
      "berth_woken_queued_to_started_seconds",
      "From the item's creation to its program running, for sessions that slept.",
      START_BUCKETS,
      ENVIRONMENT,
    ),
    // Workers.
    workersMax: gauge("berth_workers_max", "spec.workers.maxReplicas.", ENVIRONMENT),
    workersDesired: gauge("berth_workers_desired", "Workers wanted.", ENVIRONMENT),
    workersReplicas: gauge("berth_workers_replicas", "Worker Pods that exist.", ENVIRONMENT),
    workersReady: gauge("berth_workers_ready", "Worker Pods that are Ready.", ENVIRONMENT),
    workersBusy: gauge("berth_workers_busy", "Worker Pods that are busy, according to the busyProbe.", ENVIRONMENT),
    workersScaled: counter("berth_workers_scaled_total", "Changes of the number of workers, by direction.", [
      ...ENVIRONMENT,
      "direction",
    ]),
    workerProbes: counter("berth_worker_probes_total", "Busy probes, by answer.", [...ENVIRONMENT, "answer"]),
    workersEndedWhileBusy: counter(
      "berth_worker_ended_while_busy_total",
      "Workers that were busy when they ended, and did not finish their session.",
      ENVIRONMENT,
    ),
    // Capacity.
    podsCreated: counter("berth_pods_created_total", "Session Pods created.", ENVIRONMENT),
    podCreateFailures: counter("berth_pod_create_failures_total", "Session Pods refused, by reason.", [
      ...ENVIRONMENT,
      "reason",
    ]),
    prepareSeconds: histogram(
      "berth_prepare_seconds",
      "From a Pod's creation until it is ready for a session.",
      [0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600],
      ENVIRONMENT,
    ),
    prepareFailures: counter("berth_prepare_failures_total", "Pods that never got ready for a session, by reason.", [
      ...ENVIRONMENT,
      "reason",
    ]),
    workspacesCreated: counter("berth_workspaces_created_total", "Volumes of sessions created.", ENVIRONMENT),
    workspacesExpired: counter(
      "berth_workspaces_expired_total",
      "Volumes of sessions deleted after workspace.retainSeconds.",
      ENVIRONMENT,
    ),
    workspaces: gauge("berth_workspaces", "Volumes of sessions, in use or kept.", ENVIRONMENT),
    startFailures: counter("berth_start_failures_total", "Opened Pods whose container did not start.", ENVIRONMENT),
    failingSteps: gauge(
      "berth_failing_steps",
      "Claims, or loops that all claims share, whose step has failed for 45 seconds or more, by step.",
      [...ENVIRONMENT, "step"],
    ),
    startsFailing: gauge(
      "berth_starts_failing",
      "1 while claims are stopped because containers of the current template do not start.",
      ENVIRONMENT,
    ),
    environmentCondition: gauge("berth_environment_condition", "1 = True, 0 = False, -1 = Unknown.", [
      ...ENVIRONMENT,
      "type",
    ]),
    // The Work API.
    workRequests: counter("berth_work_api_requests_total", "Requests to the Work API.", ["call", "code"]),
    workRequestSeconds: histogram("berth_work_api_request_seconds", "Time of Work API requests.", REQUEST_BUCKETS, [
      "call",
    ]),
    workBudgetRate: gauge("berth_work_api_budget_rate", "Requests a second that a budget group may send now.", [
      "group",
    ]),
    workBudgetWaitSeconds: counter("berth_work_api_budget_wait_seconds_total", "Time requests waited for the budget.", [
      "group",
    ]),
    // Webhooks.
    webhookDeliveries: counter("berth_webhook_deliveries_total", "Webhook deliveries, by result.", ["result"]),
    webhookPassedOn: counter(
      "berth_webhook_passed_on_total",
      "Webhook deliveries that were forwarded to replicas, by result.",
      ["result"],
    ),
    hintedItems: counter("berth_hinted_items_total", "Items found, by whether a webhook reported them.", [
      ...ENVIRONMENT,
      "result",
    ]),
    // The Kubernetes API.
    kubeRequests: counter("berth_kube_api_requests_total", "Requests to the API server.", ["verb", "resource", "code"]),
    kubeRequestSeconds: histogram("berth_kube_api_request_seconds", "Time of API server requests.", REQUEST_BUCKETS, [
      "verb",
    ]),
    reflectorLists: counter("berth_reflector_lists_total", "Full lists of a reflector.", ["resource"]),
    reflectorRestarts: counter("berth_reflector_restarts_total", "Watches of a reflector that ended, by cause.", [
      "resource",
      "cause",
    ]),
    reflectorMisses: counter("berth_reflector_misses_total", "Objects that differed between a list and the watch.", [
      "resource",
    ]),
    workqueueDepth: gauge("berth_workqueue_depth", "Keys waiting in a work queue.", ["queue"]),
    workqueueRetries: counter("berth_workqueue_retries_total", "Keys added again after an error.", ["queue"]),
    reconcileSeconds: histogram("berth_reconcile_seconds", "Time of one reconcile.", REQUEST_BUCKETS, ["queue"]),
    reconcileErrors: counter("berth_reconcile_errors_total", "Reconciles that ended with an error.", ["queue"]),
    leader: gauge("berth_leader", "1 while this process holds the Lease.", ["lease"]),
    leaderTransitions: counter("berth_leader_transitions_total", "Leases acquired, lost and released.", [
      "lease",
      "change",
    ]),
    replicas: gauge("berth_replicas", "Replicas that share the Environments, including this one."),
    eventsWritten: counter("berth_events_written_total", "Events written, by outcome.", ["result"]),
    // The process.
    buildInfo: gauge("berth_build_info", "Always 1; the labels say what is running.", ["version", "node"]),
  };
}

export type Metrics = ReturnType<typeof createMetrics>;

function isOfEnvironments(labelNames: readonly string[]): boolean {
  return ENVIRONMENT.every((name) => labelNames.includes(name));
}
