import { type ConditionReason, REASONS } from "../api/condition-reasons.ts";
import { isGood } from "../api/condition-types.ts";
import { findCondition } from "../api/conditions.ts";
import type { Environment } from "../api/environment.ts";
import { ANNOTATION_SLEEPS_SINCE, ANNOTATION_SLEEPS_UNTIL, LABEL_PHASE } from "../api/names.ts";
import { asEndReason, END_REASONS, type EndReason, NOTHING } from "../api/reasons.ts";
import { IMAGE_PROBLEMS } from "../kube/objects.ts";
import type { KubeEvent, Pod } from "../kube/resource.ts";
import { redact } from "../observe/logger.ts";
import { readFinished } from "../pods/finished.ts";
import type { Parking } from "../pods/parking.ts";
import { parkingOf } from "../pods/pod-gate.ts";
import { type PodState, type Problem, readPodState } from "../pods/pod-state.ts";
import { hasTurns, isAsleep, openTurn, startsAhead } from "../pods/turns.ts";
import { SLEEP_ENDED, timeOf } from "./timeline.ts";
import type { ClaimTrace, ItemTrace, Looked, Traces } from "./traces.ts";

/** The state of a session. */
export type Standing =
  /** In the queue. */
  | "waiting"
  /** Claimed, but its container does not run yet. */
  | "starting"
  | "running"
  /** Its container has ended, but its item is not settled yet. */
  | "stopping"
  /** In its Pod, until its next work item. */
  | "sleeping"
  | "ended"
  /** Not sessions: a Pod that waits for one, or gets ready for it. */
  | "warm"
  | "preparing"
  | "unknown";

/** The outcome of a session in one sentence, and what to do. */
export interface Explanation {
  readonly standing: Standing;
  /** Why it ended, or why it waits; null if there is no reason. */
  readonly reason: EndReason | ConditionReason | null;
  readonly sentence: string;
  readonly fix: string;
}

const NEVER = Number.NEGATIVE_INFINITY;

/** How a warm Pod waits, after "it" or "its container". */
const WAITS: Record<Parking, string> = {
  Shell: "waits in a shell for a session",
  Program: "waits in its program for a session",
  Key: "waits for a key (CreateContainerConfigError), which is not a fault",
};

/**
 * Judges by the newest trace, because a session has several work items in its life, and an item may be served again.
 */
export function explanationOf(traces: Traces): Explanation {
  const explanation = decide(traces);
  return { ...explanation, sentence: redact(explanation.sentence) };
}

function decide(traces: Traces): Explanation {
  const pod = newest(traces.pods, ({ metadata }) => metadata.creationTimestamp);
  const end = newest(
    traces.events.filter(({ reason }) => asEndReason(reason) !== undefined),
    timeOf,
  );
  const item = newest(traces.items, (each) => each.item.created_at);
  const live = traces.claims.find(({ journal }) => journal.use === "session");
  if (live)
    return ofClaim(
      live,
      traces.pods.find(({ metadata }) => metadata.name === live.pod),
      traces,
    );
  // A queued item decides, whatever ended before: it will be served again.
  if (item?.item.state === "queued") return ofItem(item, traces);
  const endReason = asEndReason(end?.reason);
  const sleeper = sleeping(traces);
  if (sleeper) return asleep(sleeper, endReason, end?.message ?? "");
  const finished = pod ? readFinished(pod) : null;
  if (finished) return ended(finished.reason, finished.message, traces);
  if (endReason !== undefined) return ended(endReason, end?.message ?? "", traces);
  if (item) return ofItem(item, traces);
  if (pod) return ofPod(pod, traces);
  return unknown(traces);
}

function newest<T>(all: readonly T[], at: (each: T) => string | undefined): T | undefined {
  const ms = (each: T) => Date.parse(at(each) ?? "") || NEVER;
  return [...all].sort((a, b) => ms(b) - ms(a))[0];
}

function ended(reason: EndReason, message: string, traces: Traces): Explanation {
  const words = [`It ended as ${reason}: ${wordsOf(reason, message)}`, sleepEnd(traces), nextMessage(traces)];
  const { fix } = END_REASONS[reason];
  return { standing: "ended", reason, sentence: words.filter((each) => each !== null).join(" "), fix };
}

function wordsOf(reason: EndReason, message: string): string {
  const { description } = END_REASONS[reason];
  return message === "" ? description : `${description} ${sentence(message)}`;
}

/** The Pod in which the session sleeps now. */
function sleeping({ pods }: Traces): Pod | undefined {
  return pods.find((pod) => isAsleep(pod) && !pod.metadata.deletionTimestamp);
}

/** @param reason how its last work item ended; undefined: its Event is gone */
function asleep({ metadata, spec }: Pod, reason: EndReason | undefined, message: string): Explanation {
  const { [ANNOTATION_SLEEPS_SINCE]: since, [ANNOTATION_SLEEPS_UNTIL]: until } = metadata.annotations ?? {};
  const words = [
    `It sleeps in Pod ${metadata.name} on node ${spec.nodeName}, since ${since} and until ${until}.`,
    ...(reason === undefined ? [] : [`Its last work item ended as ${reason}: ${wordsOf(reason, message)}`]),
    "Its next message finds the same Pod and the same files.",
  ];
  const fix = reason === undefined ? NOTHING : END_REASONS[reason].fix;
  return { standing: "sleeping", reason: reason ?? null, sentence: words.join(" "), fix };
}

/** Why the session's last Pod was not kept any longer; null: a newer one ended, or the Event is gone. */
function sleepEnd({ events }: Traces): string | null {
  const last = newest(
    events.filter(({ reason }) => reason === SLEEP_ENDED),
    timeOf,
  );
  const at = last && timeOf(last);
  if (last === undefined || at === undefined) return null;
  const isLater = (event: KubeEvent) => Date.parse(timeOf(event) ?? "") > Date.parse(at);
  if (events.some((event) => asEndReason(event.reason) !== undefined && isLater(event))) return null;
  const [, why = last.message ?? ""] = /its Pod is deleted: (.+)$/.exec(last.message ?? "") ?? [];
  return sentence(`its Pod was kept until ${at}: ${why}`);
}

/** What the session's next message finds without its Pod; null: the Environment keeps nothing, or is not known. */
function nextMessage({ environments: [environment, ...others] }: Traces): string | null {
  const workspace = others.length === 0 ? environment?.spec.sessions?.workspace : undefined;
  if (workspace?.type === "PerSession") {
    return `Its next message finds a new Pod and the files of its volume, which is kept for ${workspace.retainSeconds} s after its last use.`;
  }
  return workspace?.type === "Pod" ? "Its next message finds a new Pod, without the files of the last one." : null;
}

function ofClaim({ pod: name, turn, journal }: ClaimTrace, pod: Pod | undefined, traces: Traces): Explanation {
  const blocked = blockedReason(traces.environments);
  const settling = blocked
    ? { reason: blocked.reason, fix: blocked.fix }
    : { reason: null, fix: "Wait until the operator settles it. If this stays, run berth doctor." };
  if (!pod) {
    return {
      standing: "stopping",
      ...settling,
      sentence: `It was claimed for Pod ${name}, which is deleted. Its work item ${journal.workId} is not settled yet.`,
    };
  }
  const ownTurn = hasTurns(pod) ? Math.max(1, turn) : undefined;
  const state = readPodState(pod, ownTurn);
  switch (state.is) {
    case "running": {
      const since = new Date(state.startedAtMs).toISOString();
      const as = ownTurn === undefined ? "" : `, as turn ${ownTurn}`;
      const sentenceText = `It runs in Pod ${name} on node ${pod.spec.nodeName}, since ${since}${as}.`;
      return { standing: "running", reason: null, sentence: sentenceText, fix: NOTHING };
    }
    case "ended":
      return {
        standing: "stopping",
        ...settling,
        sentence: `Its container has ended (${state.end.cause}${state.end.message ? `: ${state.end.message}` : ""}), and its work item is not settled yet.`,
      };
    case "parked":
    case "preparing":
    case "gated":
    case "unscheduled": {
      const step = journal.opened ? "opened" : "claimed, and not opened yet";
      const problem = problemOf(state, traces);
      const waits = WAITS[hasTurns(pod) && !startsAhead(pod, openTurn(pod)) ? "Shell" : parkingOf(pod)];
      const still = state.is === "parked" ? `still ${waits}` : "does not run";
      const words = `Pod ${name} was ${step}; its container ${still}`;
      if (problem === null) return { standing: "starting", ...settling, sentence: `${words}.` };
      const { reason, message, fix } = problem;
      return { standing: "starting", reason, sentence: sentence(`${words}: ${message}`), fix };
    }
  }
}

function ofItem({ item, environment }: ItemTrace, traces: Traces): Explanation {
  const { name, namespace } = environment.metadata;
  const sleeper = sleeping(traces);
  switch (item.state) {
    case "queued": {
      const blocked = blockedReason([environment]);
      if (blocked) {
        const words = `It waits in the queue, because Environment ${name} is not Ready: ${blocked.reason}: ${blocked.message}`;
        return { standing: "waiting", reason: blocked.reason, sentence: words, fix: blocked.fix };
      }
      return {
        standing: "waiting",
        reason: null,
        sentence: `It waits in the queue of Environment ${name}, which is Ready.${sleeper ? ` It sleeps in Pod ${sleeper.metadata.name}, which serves it next.` : ""}`,
        fix: `Wait. If this stays, check the Environment: kubectl -n ${namespace} describe benv ${name}`,
      };
    }
    case "starting":
    case "active":
    case "stopping": {
      const isWorkers = environment.spec.workers !== undefined;
      const who = isWorkers
        ? "a worker of the Environment, or another poller of its queue"
        : "another client of this queue, because there is no Pod and no claim for it";
      return {
        standing: item.state === "active" ? "running" : item.state === "starting" ? "starting" : "stopping",
        reason: null,
        sentence: `According to the Work API, work item ${item.id} is ${item.state}. It is served by ${who}.`,
        fix: isWorkers ? NOTHING : "Check that no other operator or worker serves the same environment.",
      };
    }
    case "stopped": {
      const kept = traces.environments.length > 0 ? "Pods are kept for retainEndedSeconds, Events for an hour" : "";
      return {
        standing: "ended",
        reason: null,
        sentence: `Work item ${item.id} was stopped at ${item.stopped_at ?? "an unknown time"}; its Pod and Events are deleted${kept ? ` (${kept})` : ""}.`,
        fix: "To keep more next time, raise retainEndedSeconds and retainFailedSeconds, and keep the operator's log.",
      };
    }
  }
}

/** A Pod without a claim: it waits for one, or it ended and was not marked. */
function ofPod(pod: Pod, traces: Traces): Explanation {
  const { name, labels } = pod.metadata;
  const state = readPodState(pod);
  if (isAsleep(pod)) {
    const words = [`It slept in Pod ${name}, which is being deleted.`, nextMessage(traces) ?? ""];
    return { standing: "ended", reason: null, sentence: words.join(" ").trimEnd(), fix: NOTHING };
  }
  const problem = problemOf(state, traces);
  if (problem !== null) {
    const { reason, message, fix } = problem;
    const words = `Pod ${name} serves no session, and is not ready for one: ${message}`;
    return { standing: "preparing", reason, sentence: sentence(words), fix };
  }
  if (labels?.[LABEL_PHASE] === "warm") {
    const isWarm = state.is === "parked";
    const does = isWarm ? WAITS[parkingOf(pod)] : "is getting ready for a session";
    const words = `Pod ${name} serves no session: it ${does}.`;
    return { standing: isWarm ? "warm" : "preparing", reason: null, sentence: words, fix: NOTHING };
  }
  if (state.is === "running") {
    const since = new Date(state.startedAtMs).toISOString();
    return { standing: "running", reason: null, sentence: `Pod ${name} runs since ${since}.`, fix: NOTHING };
  }
  const words = state.is === "ended" ? `its container has ended (${state.end.cause})` : "its container does not run";
  const fix = "Read its Events. --check-key shows whether the operator has settled it.";
  return { standing: "stopping", reason: null, sentence: `Pod ${name} has no claim, and ${words}.`, fix };
}

/** Why a Pod does not get ready, in the terms of the condition CapacityAvailable; null: nothing is known to be wrong. */
function problemOf(
  state: PodState,
  { events }: Traces,
): { readonly reason: ConditionReason; readonly message: string; readonly fix: string } | null {
  const of = (condition: ConditionReason, { reason, message }: Problem) => ({
    reason: condition,
    message: `${reason}: ${message}`,
    fix: REASONS[condition].fix,
  });
  if (state.is === "unscheduled") return state.reason === "" ? null : of("Unschedulable", state);
  if (state.is === "gated") {
    return { reason: "SchedulingGated", message: `it ${state.message}`, fix: REASONS.SchedulingGated.fix };
  }
  if (state.is !== "preparing") return null;
  if (state.problem) {
    return of(IMAGE_PROBLEMS.has(state.problem.reason) ? "ImagePullFailing" : "PreparationFailing", state.problem);
  }
  // Some problems of a node show only in its Events.
  const warnings = events.filter(({ type, involvedObject }) => type === "Warning" && involvedObject.kind === "Pod");
  const { reason, message } = newest(warnings, timeOf) ?? {};
  return reason && message ? of("PreparationFailing", { reason, message }) : null;
}

function unknown({ asked, looked }: Traces): Explanation {
  const words = (all: readonly Looked[]) => all.map(({ where }) => where).join(", ");
  const seen = looked.filter(({ found }) => found !== null);
  const notSearched = looked.filter(({ found }) => found === null);
  const parts = [
    `${asked} was not found.`,
    ...(seen.length > 0 ? [`Searched: ${words(seen)}.`] : []),
    ...(notSearched.length > 0 ? [`Not searched: ${words(notSearched)}.`] : []),
    "Pods of ended sessions are kept for retainEndedSeconds or retainFailedSeconds, and Events for an hour. It may also be in another namespace or cluster, or not be the id of a session.",
  ];
  return {
    standing: "unknown",
    reason: null,
    sentence: parts.join(" "),
    fix: "Compare the id with the console, query the Work API with --check-key, and search other namespaces and the operator's log for the id.",
  };
}

/** Why an Environment does not serve, according to its own conditions. */
function blockedReason(
  environments: readonly Environment[],
): { readonly reason: ConditionReason; readonly message: string; readonly fix: string } | null {
  for (const { status } of environments) {
    const ready = findCondition(status?.conditions, "Ready");
    if (!ready || isGood(ready) || !Object.hasOwn(REASONS, ready.reason)) continue;
    const reason = ready.reason as ConditionReason;
    return { reason, message: ready.message, fix: REASONS[reason].fix };
  }
  return null;
}

function sentence(text: string): string {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}
