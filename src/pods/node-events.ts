import { ofRuntimeClass } from "../api/isolation.ts";
import { Backoff, type Random } from "../core/backoff.ts";
import type { Clock } from "../core/clock.ts";
import { unended } from "../core/text.ts";
import type { Timing } from "../core/timing.ts";
import type { KubeClient } from "../kube/client.ts";
import { isForbidden } from "../kube/errors.ts";
import { EVENTS, type KubeEvent, type Pod } from "../kube/resource.ts";
import { type Problem, stateOf } from "./pod-state.ts";

/** A waiting Pod has few Events: the kubelet merges repeated ones. */
const EVENTS_LIMIT = 100;
const READ_TIMEOUT_MS = 10_000;

/** Lists a Pod's Events. @throws KubeApiError */
export async function listEvents(kube: KubeClient, { metadata: { namespace, uid } }: Pod, signal?: AbortSignal) {
  const query = { namespace, fieldSelector: `involvedObject.uid=${uid}`, limit: EVENTS_LIMIT };
  return (await kube.list(EVENTS, query, { timeoutMs: READ_TIMEOUT_MS, ...(signal && { signal }) })).items;
}

export interface NodeEventsOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly timing: Pick<Timing, "askNodeAgainMs" | "askNodeMaxMs">;
  readonly list: (pod: Pod, signal?: AbortSignal) => Promise<readonly KubeEvent[]>;
  readonly onChange: () => void;
  readonly onFailure: (error: unknown) => void;
}

/** The Pods of the current template. */
export interface WaitingPods {
  readonly hash: string;
  /** Its Pods that wait without a reason in their status, and the time until their Events are read. */
  readonly waiting: readonly { readonly pod: Pod; readonly inMs: number }[];
  readonly ready: readonly Pod[];
}

/**
 * Why Pods stay unprepared when their status does not say: the kubelet reports sandboxes that can't be created and
 * volumes that can't be mounted only in Events. One Pod that has waited for a while represents all, and its Events are
 * read occasionally while it waits. Nothing is read while Pods become ready in time.
 */
export class NodeEvents {
  readonly #options: NodeEventsOptions;
  readonly #backoff: Backoff;
  #signal: AbortSignal | undefined;
  #reading: Promise<void> | null = null;
  /** No reading before this (monotonic). */
  #nextAtMs = 0;
  /** UID of the Pod that was read last. */
  #uid = "";
  #hash = "";
  #complaint: Problem | null = null;
  #runtimeClass: string | undefined;
  #events: "unread" | "read" | "forbidden" = "unread";

  constructor(options: NodeEventsOptions) {
    this.#options = options;
    const { askNodeAgainMs: baseMs, askNodeMaxMs: maxMs } = options.timing;
    this.#backoff = new Backoff({ baseMs, maxMs }, options.random);
  }

  /** Readings in flight end when the signal aborts. */
  start(signal: AbortSignal): void {
    this.#signal = signal;
  }

  /** The node's complaint and its fix, while it applies; null: none, or Events were not read. */
  get problem(): string | null {
    return this.#complaint && complaintText(this.#complaint, this.#runtimeClass);
  }

  /** The outcome of the last reading. Failures other than "forbidden" say nothing about the node. */
  get events(): "unread" | "read" | "forbidden" {
    return this.#events;
  }

  /**
   * Checks the Pods, and reads Events in the background if that is due. Never throws.
   * @returns when to check again, in milliseconds; null: when something changes
   */
  look({ hash, waiting, ready }: WaitingPods): number | null {
    if (hash !== this.#hash) this.#forget();
    this.#hash = hash;
    if (waiting.length === 0 || ready.some(({ metadata }) => metadata.uid === this.#uid)) this.#forget();
    const [earliest] = [...waiting].sort((a, b) => a.inMs - b.inMs);
    const read = waiting.find(({ pod }) => pod.metadata.uid === this.#uid) ?? earliest;
    if (!read) return null;
    const waitMs = Math.max(read.inMs, this.#nextAtMs - this.#options.clock.monotonic());
    if (waitMs > 0) return waitMs;
    this.#reading ??= this.#read(read.pod).finally(() => {
      this.#reading = null;
    });
    return null;
  }

  /** Resolves when no reading is in flight. */
  async ended(): Promise<void> {
    await this.#reading;
  }

  async #read(pod: Pod): Promise<void> {
    const { clock, list, onChange, onFailure } = this.#options;
    const { uid = "" } = pod.metadata;
    const hash = this.#hash;
    this.#nextAtMs = clock.monotonic() + this.#backoff.next();
    this.#uid = uid;
    this.#runtimeClass = pod.spec.runtimeClassName;
    try {
      const items = await list(pod, this.#signal);
      this.#events = "read";
      // The Pod may be ready or outdated by now.
      if (this.#uid === uid && this.#hash === hash) this.#complaint = complaintOf(items, pod, this.#complaint);
    } catch (error) {
      if (this.#signal?.aborted) return;
      // The permission may be granted later, so reading continues at the usual pace.
      if (isForbidden(error)) this.#events = "forbidden";
      onFailure(error);
    }
    onChange();
  }

  /** Forgets the Pod that was read. The next waiting Pod is read soon, but no sooner than the pace allows. */
  #forget(): void {
    if (this.#uid === "") return;
    this.#uid = "";
    this.#complaint = null;
    this.#backoff.reset();
    this.#options.onChange();
  }
}

/** Whether the Pod is on a node and not ready, and its status does not say why. */
export function waitsSilently(pod: Pod): boolean {
  const state = stateOf(pod);
  return state.is === "preparing" && state.problem === null;
}

/** Components that speak for a Pod's node. Warnings of policy engines and others block no admitted Pod. */
const NODE_COMPONENTS = new Set(["kubelet", "attachdetach-controller"]);

/**
 * Warnings that block no Pod, or that the Pod's status reports better. The kubelet warns about name servers and pull
 * secrets at each sync of a healthy Pod.
 */
const IGNORED = new Set([
  "DNSConfigForming",
  "MissingClusterDNS",
  "FailedToRetrieveImagePullSecret",
  "FailedScheduling",
  "Failed",
  "BackOff",
  "Unhealthy",
  "InspectFailed",
  "ErrImageNeverPull",
]);

/** A node's reasons once the sandbox exists: earlier complaints no longer apply. */
const SANDBOX_IS_THERE = new Set(["Pulling", "Pulled", "Created", "Started"]);

/**
 * The kubelet repeats a volume's complaint within this time (pkg/volume/util, 2 min 2 s at most); Events of one round
 * count as one.
 */
const ROUND_MS = 130_000;

/** The kubelet's summary of a wait for volumes; a separate Event says what is wrong with a volume. */
const SUMMARY = /^Unable to attach or mount volumes: /;

/** Conditions are read on a terminal, and containerd passes on whole command outputs. */
const MAX_LENGTH = 500;

/** Anyone who may write Events may write a megabyte, and the patterns below search the text repeatedly. */
const MAX_READ = 8 * MAX_LENGTH;

/** Patterns for what differs between two Events of one fault, with their replacements. */
const VARYING: readonly (readonly [RegExp, string])[] = [
  [/^\(combined from similar events\): /, ""],
  [/\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/g, "…"],
  // Ids of sandboxes and containers.
  [/\b(?=[a-f]*\d)[0-9a-f]{32,64}\b/g, "…"],
  [/\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| ?[+-]\d\d:?\d\d)?( [A-Z]{3,4})?( m=[+-][\d.]+)?/g, "…"],
  // The local port of a connection.
  [/:\d+->/g, "->"],
  [/\bkube-api-access-[a-z0-9]{5}\b/g, "kube-api-access-…"],
  [/, unattached volumes=\[[^\]]*\]/g, ""],
  [/, failed to process volumes=\[\]/g, ""],
  // A measured duration or a delay. Whole seconds stay, since they are settings.
  [/\b(\d+h)?(\d+m)?\d+\.\d+(s|ms|µs)\b/g, "…"],
  [/\s+/g, " "],
];

/**
 * What blocks a Pod, in its node's words, read from its Events; null if no complaint still applies. The same fault
 * gives the same text at each reading and for each Pod.
 * @param before the last complaint: it stays while the node reports several in turn
 */
export function complaintOf(events: readonly KubeEvent[], pod: Pod, before: Problem | null): Problem | null {
  const ofNode = events.filter((event) =>
    NODE_COMPONENTS.has(event.source?.component || event.reportingComponent || ""),
  );
  const ready = latest(ofNode.filter(({ reason }) => SANDBOX_IS_THERE.has(reason ?? "")));
  const attached = latest(ofNode.filter(({ reason }) => reason === "SuccessfulAttachVolume"));
  const holds = ofNode.filter((event) => {
    if (event.type !== "Warning" || IGNORED.has(event.reason ?? "") || seenAt(event) <= ready) return false;
    return event.reason !== "FailedAttachVolume" || seenAt(event) > attached;
  });
  const round = holds.filter((event) => seenAt(event) >= latest(holds) - ROUND_MS);
  const precise = round.filter(({ message }) => !SUMMARY.test(message ?? ""));
  const complaints = (precise.length > 0 ? precise : round)
    .sort((a, b) => seenAt(b) - seenAt(a))
    .map((event) => ({ reason: event.reason ?? "", message: steadyWords(event.message ?? "", pod) }));
  const same = complaints.find(({ reason, message }) => reason === before?.reason && message === before.message);
  return same ?? complaints[0] ?? null;
}

/** A node's message without the parts that differ between Pods and tries. */
export function steadyWords(message: string, { metadata }: Pod): string {
  const { name = "", namespace = "", uid = "" } = metadata;
  let words = message.slice(0, MAX_READ);
  for (const own of [`${name}_${namespace}(${uid})`, `${namespace}/${name}`, uid, name]) {
    if (own !== "" && own !== "/") words = words.replaceAll(own, "it");
  }
  for (const [varying, stead] of VARYING) words = words.replace(varying, stead);
  words = words.trim();
  return words.length > MAX_LENGTH ? `${words.slice(0, MAX_LENGTH - 1)}…` : words;
}

function latest(events: readonly KubeEvent[]): number {
  return Math.max(Number.NEGATIVE_INFINITY, ...events.map(seenAt));
}

/** When an Event was last seen, in milliseconds since the epoch; those of events.k8s.io have no `lastTimestamp`. */
function seenAt({ lastTimestamp, series, eventTime, firstTimestamp, metadata }: KubeEvent): number {
  const { lastObservedTime } = (series ?? {}) as { lastObservedTime?: string };
  const at = Date.parse(
    String(lastTimestamp ?? lastObservedTime ?? eventTime ?? firstTimestamp ?? metadata.creationTimestamp),
  );
  return Number.isNaN(at) ? 0 : at;
}

/** Fixes for problems that nodes report only in Events. */
const FIXES: Readonly<Record<string, string>> = {
  FailedCreatePodSandBox: "fix the template's securityContext, or the node's container runtime and network",
  FailedMount: "create the object that the volume refers to, or correct the template's volumes",
  FailedMapVolume: "create the object that the volume refers to, or correct the template's volumes",
  FailedAttachVolume: "fix the volume, or its driver on the node",
  NetworkNotReady: "fix the node's network plug-in",
};

/** The texts of containerd and CRI-O for a runtime that they are not configured for. */
const NO_RUNTIME = /no runtime for "[^"]*" is configured|failed to find runtime handler/;

/**
 * A node's complaint with its fix.
 * @param runtimeClass the RuntimeClass of the Pods, if they have one
 */
export function complaintText({ reason, message }: Problem, runtimeClass?: string): string {
  const fix = NO_RUNTIME.test(message)
    ? `install the runtime${ofRuntimeClass(runtimeClass)} on the node, or set the class's scheduling.nodeSelector to nodes that have it`
    : (FIXES[reason] ?? "check the Pod's node and its kubelet");
  return `${reason}: ${unended(message)}; ${fix}`;
}
