import { isGood } from "../api/condition-types.ts";
import { findCondition, ownConditions } from "../api/conditions.ts";
import type { Environment } from "../api/environment.ts";
import { ANNOTATION_ASSIGNED_AT, ANNOTATION_SLEEPS_SINCE, ANNOTATION_SLEEPS_UNTIL } from "../api/names.ts";
import { asEndReason, type EventOnlyReason } from "../api/reasons.ts";
import { SECOND_MS } from "../core/clock.ts";
import type { ContainerStateTerminated, KubeEvent, Pod } from "../kube/resource.ts";
import { redact } from "../observe/logger.ts";
import { readFinished } from "../pods/finished.ts";
import type { Parking } from "../pods/parking.ts";
import { assignedAtMs, parkingOf } from "../pods/pod-gate.ts";
import { sessionContainerName } from "../pods/pod-state.ts";
import { endedTurn, hasTurns, isAsleep, keeperStatus, newestTurn, startsAhead, turnNumber } from "../pods/turns.ts";
import type { ClaimTrace, ItemTrace, Traces } from "./traces.ts";

/** The moments of a session, in the order of its life, which sorts entries of the same second. */
export const MOMENTS = [
  "pod-created",
  "pod-scheduled",
  "warm",
  "queued",
  "polled",
  "acknowledged",
  "assigned",
  "container-started",
  "delivered",
  "first-beat",
  "event",
  "last-beat",
  "stop-requested",
  "container-ended",
  "pod-deleted",
  "stopped",
  "end-event",
  "sleeping",
  "next-turn",
  "sleep-ended",
  "ended",
  "condition",
] as const;
export type Moment = (typeof MOMENTS)[number];

export type Source = "work-api" | "claim" | "pod" | "event" | "environment";

/** One entry of the timeline. */
export interface Entry {
  /** RFC 3339, in UTC. Times of Kubernetes have whole seconds. */
  readonly at: string;
  readonly what: Moment;
  readonly source: Source;
  readonly message: string;
}

/** All entries, sorted by time. */
export function timelineOf({ pods, claims, events, items, environments }: Traces): Entry[] {
  const entries = [
    ...pods.flatMap((pod) => ofPod(pod, events)),
    ...claims.flatMap((claim) => ofClaim(claim, items)),
    ...items.flatMap(ofItem),
    ...withoutDuplicates(events.filter(isNotable)).flatMap((event) => ofEvent(event, pods)),
    ...environments.flatMap(ofEnvironment),
  ];
  const known = entries
    .filter(({ at }) => !Number.isNaN(Date.parse(at)))
    .map((entry) => ({ ...entry, at: new Date(entry.at).toISOString(), message: redact(entry.message) }))
    .sort((one, other) => msOf(one) - msOf(other));
  return [...Map.groupBy(known, (entry) => Math.floor(msOf(entry) / SECOND_MS)).values()].flatMap(ofSecond);
}

/**
 * Sorts the entries of one second. Exact times stay in their order; a time that is truncated to the second comes before
 * the first of them that is later in a session's life.
 */
function ofSecond(entries: readonly Entry[]): Entry[] {
  const isExact = (entry: Entry) => msOf(entry) % SECOND_MS !== 0;
  const rank = ({ what }: Entry) => MOMENTS.indexOf(what);
  const truncated = entries.filter((entry) => !isExact(entry)).sort((one, other) => rank(one) - rank(other));
  const sorted: Entry[] = [];
  for (const exact of entries.filter(isExact)) {
    while (truncated[0] && rank(truncated[0]) < rank(exact)) sorted.push(...truncated.splice(0, 1));
    sorted.push(exact);
  }
  return [...sorted, ...truncated];
}

function msOf({ at }: Entry): number {
  return Date.parse(at);
}

/** Returns an entry if the time is known. */
function entry(at: string | null | undefined, what: Moment, source: Source, message: string): Entry[] {
  return at ? [{ at, what, source, message }] : [];
}

/** What the start of a session Pod's container means, and how its Event `SessionStarted` is shown. */
const STARTS: Record<Parking, { readonly what: Moment; readonly message: string; readonly started: Moment }> = {
  Shell: { what: "warm", message: "the container started and waits in a shell", started: "delivered" },
  Program: { what: "warm", message: "the container started, and its program waits", started: "delivered" },
  Key: { what: "container-started", message: "the container started", started: "event" },
};

function ofPod(pod: Pod, events: readonly KubeEvent[]): Entry[] {
  const { metadata, spec, status } = pod;
  const name = `Pod ${metadata.name}`;
  const scheduled = status?.conditions?.find(({ type, status: is }) => type === "PodScheduled" && is === "True");
  const finished = readFinished(pod);
  return [
    ...entry(metadata.creationTimestamp, "pod-created", "pod", `${name} was created`),
    ...entry(scheduled?.lastTransitionTime, "pod-scheduled", "pod", `${name} was scheduled to node ${spec.nodeName}`),
    ...(hasTurns(pod) ? ofTurns(pod, events) : ofContainer(pod)),
    // The timestamp is the end of the grace period; the deletion was requested that much earlier.
    ...entry(orderedAt(pod), "pod-deleted", "pod", `${name} was deleted or evicted`),
    ...(finished && finished.finishedAtMs > 0
      ? entry(
          new Date(finished.finishedAtMs).toISOString(),
          "ended",
          "pod",
          `settled as ${finished.reason}${finished.message ? `: ${finished.message}` : ""}`,
        )
      : []),
  ];
}

function ofContainer(pod: Pod): Entry[] {
  const container = pod.status?.containerStatuses?.find((each) => each.name === sessionContainerName(pod));
  const ended = container?.state?.terminated;
  const start = STARTS[parkingOf(pod)];
  const assignedMs = assignedAtMs(pod);
  const assignedAt = assignedMs === null ? null : new Date(assignedMs).toISOString();
  return [
    ...startEntry(container?.state?.running?.startedAt ?? ended?.startedAt, start.what, start.message),
    ...entry(assignedAt, "assigned", "pod", `Pod ${pod.metadata.name} was assigned to the session`),
    ...endEntry(ended, "the container ended"),
  ];
}

/** The work items of a Pod in which its session can sleep, and the sleep. */
function ofTurns(pod: Pod, events: readonly KubeEvent[]): Entry[] {
  const { name, annotations = {} } = pod.metadata;
  const asleep = isAsleep(pod);
  const turns = (pod.status?.ephemeralContainerStatuses ?? []).flatMap(({ name: container, state }) => {
    const turn = turnNumber(container);
    if (turn === 0) return [];
    const startedAt = state?.running?.startedAt ?? state?.terminated?.startedAt;
    const waited = turn > endedTurn(pod) && assignedAtMs(pod) === null;
    const waits = startsAhead(pod, turn) ? ", and its program waits" : " and waits in a shell";
    return [
      ...(turn === 1
        ? startEntry(startedAt, "warm", `turn 1 started${waits}`)
        : startEntry(startedAt, "next-turn", `turn ${turn} started and waits in a shell for the next work item`)),
      ...endEntry(state?.terminated, `turn ${turn} ended${waited ? " while it waited," : ""}`),
    ];
  });
  const assigned = `Pod ${name} was assigned to the session, for turn ${asleep ? endedTurn(pod) : newestTurn(pod)}`;
  const until = annotations[ANNOTATION_SLEEPS_UNTIL] ?? "";
  const isTold = events.some(({ reason, message }) => reason === SESSION_ASLEEP && message?.endsWith(` ${until}`));
  return [
    ...turns,
    ...entry(annotations[ANNOTATION_ASSIGNED_AT], "assigned", "pod", assigned),
    ...(asleep && !isTold
      ? entry(
          annotations[ANNOTATION_SLEEPS_SINCE],
          "sleeping",
          "pod",
          `the session sleeps in Pod ${name} until ${until}`,
        )
      : []),
    ...endEntry(keeperStatus(pod)?.state?.terminated, "the container that keeps the Pod ended"),
  ];
}

/** A container that never started has the epoch as its start time. */
function startEntry(startedAt: string | null | undefined, what: Moment, message: string): Entry[] {
  return Date.parse(startedAt ?? "") > 0 ? entry(startedAt, what, "pod", message) : [];
}

function endEntry(ended: ContainerStateTerminated | undefined, message: string): Entry[] {
  const said = ended?.message?.trim();
  const how = ended && `with exit code ${ended.exitCode}${ended.reason ? ` (${ended.reason})` : ""}`;
  return entry(ended?.finishedAt, "container-ended", "pod", `${message} ${how}${said ? `: ${said}` : ""}`);
}

function orderedAt({ metadata: { deletionTimestamp, deletionGracePeriodSeconds = 0 } }: Pod): string | undefined {
  if (deletionTimestamp === undefined) return undefined;
  return new Date(Date.parse(deletionTimestamp) - deletionGracePeriodSeconds * SECOND_MS).toISOString();
}

/** Omits what the Work API itself reports. */
function ofClaim({ journal }: ClaimTrace, items: readonly ItemTrace[]): Entry[] {
  const isTold = items.some(({ item }) => item.id === journal.workId);
  const { workId, queuedAt, polledFromMs, acknowledgedAt } = journal;
  const polledAt = Number.isNaN(polledFromMs) ? null : new Date(polledFromMs).toISOString();
  return [
    ...(isTold ? [] : entry(queuedAt, "queued", "claim", `work item ${workId} was queued`)),
    ...entry(polledAt, "polled", "claim", `the operator polled work item ${workId} and recorded the claim`),
    ...(isTold
      ? []
      : entry(acknowledgedAt, "acknowledged", "claim", "the operator acknowledged it and started its session")),
  ];
}

function ofItem({ item }: ItemTrace): Entry[] {
  return [
    ...entry(item.created_at, "queued", "work-api", `work item ${item.id} was queued for session ${item.data.id}`),
    ...entry(item.acknowledged_at, "acknowledged", "work-api", "it was acknowledged"),
    ...entry(item.started_at, "first-beat", "work-api", "it got its first heartbeat"),
    // The API may write the same instant in two ways.
    ...(Date.parse(item.latest_heartbeat_at ?? "") === Date.parse(item.started_at ?? "")
      ? []
      : entry(item.latest_heartbeat_at, "last-beat", "work-api", "it got its latest heartbeat")),
    ...entry(item.stop_requested_at, "stop-requested", "work-api", "a client requested its stop"),
    ...entry(item.stopped_at, "stopped", "work-api", "it was stopped"),
  ];
}

/** The Normal Events of the scheduler and the kubelet only repeat what the Pod says. */
function isNotable({ type, reportingComponent }: KubeEvent): boolean {
  return type !== "Normal" || reportingComponent === BERTH;
}

/** Drops the Environment's copy of a Warning that is also an Event of the Pod. */
function withoutDuplicates(events: readonly KubeEvent[]): KubeEvent[] {
  const key = ({ reason, message }: KubeEvent) => `${reason} ${message}`;
  const ofPods = new Set(events.filter(({ involvedObject }) => involvedObject.kind === "Pod").map(key));
  return events.filter((event) => event.involvedObject.kind === "Pod" || !ofPods.has(key(event)));
}

function ofEvent(event: KubeEvent, pods: readonly Pod[]): Entry[] {
  const { reason = "", message = "", count = 1, involvedObject } = event;
  const times = count > 1 ? ` (${count} times)` : "";
  const about = involvedObject.kind === "Pod" ? "" : `${involvedObject.kind} ${involvedObject.name}: `;
  const pod = pods.find(({ metadata }) => involvedObject.kind === "Pod" && metadata.name === involvedObject.name);
  const turn = pod && reason === SESSION_STARTED ? turnAt(pod, Date.parse(timeOf(event) ?? "")) : 0;
  const where = turn > 0 ? `, as turn ${turn}` : "";
  return entry(timeOf(event), momentOf(reason, pod), "event", `${reason}: ${about}${message}${where}${times}`);
}

function momentOf(reason: string, pod: Pod | undefined): Moment {
  if (asEndReason(reason) !== undefined) return "end-event";
  if (reason === SESSION_ASLEEP) return "sleeping";
  if (reason === SLEEP_ENDED) return "sleep-ended";
  return pod && reason === SESSION_STARTED ? STARTS[parkingOf(pod)].started : "event";
}

/** The turn that ran at this time: each one starts to wait before its work item comes. 0: none is known. */
function turnAt({ status }: Pod, ms: number): number {
  const started = (status?.ephemeralContainerStatuses ?? []).filter(({ state }) => {
    return Date.parse(state?.running?.startedAt ?? state?.terminated?.startedAt ?? "") <= ms;
  });
  return Math.max(0, ...started.map(({ name }) => turnNumber(name)));
}

/** The component of the operator's own Events. */
export const BERTH = "berth";

/** The operator writes this Event when the container has read its session's line, or runs. */
const SESSION_STARTED: EventOnlyReason = "SessionStarted";
const SESSION_ASLEEP: EventOnlyReason = "SessionAsleep";
export const SLEEP_ENDED: EventOnlyReason = "SleepEnded";

/** When an Event last occurred, from whichever field has it. */
export function timeOf({ lastTimestamp, firstTimestamp, metadata, ...rest }: KubeEvent): string | undefined {
  const { eventTime } = rest;
  return (
    lastTimestamp ??
    (typeof eventTime === "string" ? eventTime : undefined) ??
    firstTimestamp ??
    metadata.creationTimestamp
  );
}

/** `Ready`, and the conditions that report a problem. */
function ofEnvironment({ metadata, status }: Environment): Entry[] {
  const ready = findCondition(status?.conditions, "Ready");
  return ownConditions(status?.conditions)
    .filter((condition) => condition === ready || (!isGood(condition) && condition.status !== "Unknown"))
    .flatMap(({ type, status: is, reason, message, lastTransitionTime }) =>
      entry(
        lastTransitionTime,
        "condition",
        "environment",
        `Environment ${metadata.name} since then: ${type}=${is} ${reason}: ${message}`,
      ),
    );
}
