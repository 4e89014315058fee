import { LABEL_ENVIRONMENT } from "../api/names.ts";
import { Backoff } from "../core/backoff.ts";
import { SECOND_MS } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { isForbidden } from "../kube/errors.ts";
import { EVENTS, type KubeEvent, type Pod } from "../kube/resource.ts";
import { type Problem, stateOf } from "../pods/pod-state.ts";
import type { SessionContext } from "../protocol/context.ts";
import { boundAtMs, type FreePod } from "./capacity.ts";
import { type CapacityProblem, unheard, wordsOfNode } from "./capacity-problem.ts";

/** A Pod that waits gathers a handful: kubelet counts what repeats itself up in one Event. */
const EVENTS_LIMIT = 100;
/** Nobody waits for it: the next reading is as good. */
const READ_TIMEOUT_MS = 10_000;
/** What a Pod is waited for before its node is asked, as a part of the time that it is given at all. */
const SHARE_OF_TIMEOUT = 0.5;

type FreePods = readonly { readonly free: FreePod; readonly pod: Pod }[];

/**
 * Why Pods stay unprepared whose status does not say: kubelet tells of sandboxes that cannot be made and volumes that
 * cannot be mounted in Events alone. One Pod that has waited for a while stands for all, and its Events are read now and
 * then while it waits; nothing is asked while Pods get ready in time.
 */
export class NodeEvents {
  readonly #context: SessionContext;
  readonly #onChange: () => void;
  readonly #backoff: Backoff;
  #signal: AbortSignal | undefined;
  #reading: Promise<void> | null = null;
  /** Next reading at the earliest (monotonic). */
  #nextAtMs = 0;
  /** UID of the Pod that was read last. */
  #uid = "";
  #hash = "";
  #complaint: Problem | null = null;
  /** The last answer to a reading. Other failures say nothing about the node. */
  #events: "unread" | "read" | "forbidden" = "unread";

  constructor(context: SessionContext, onChange: () => void) {
    this.#context = context;
    this.#onChange = onChange;
    const { askNodeAgainMs: baseMs, askNodeMaxMs: maxMs } = context.timing;
    this.#backoff = new Backoff({ baseMs, maxMs }, context.random);
  }

  /** Readings under way break off when the signal aborts. */
  start(signal: AbortSignal): void {
    this.#signal = signal;
  }

  /** What the node complained of, as long as it holds; null: of nothing, or it was not asked. */
  get problem(): CapacityProblem {
    return this.#complaint && wordsOfNode(this.#complaint);
  }

  /** The same of a Pod whose time is over. */
  whyLate({ metadata }: Pod): CapacityProblem {
    if (this.problem) return this.problem;
    const label = metadata.labels?.[LABEL_ENVIRONMENT] ?? this.#context.name;
    const command = `kubectl -n ${this.#context.namespace} describe pods -l ${LABEL_ENVIRONMENT}=${label}`;
    return unheard(this.#events === "forbidden" ? { command } : this.#events);
  }

  /**
   * Looks at the free Pods, and has Events read in the background where that is due. Never throws.
   * @returns when to look again, in milliseconds; null: when something changes.
   */
  look(pods: FreePods): number | null {
    const { template, clock } = this.#context;
    const { hash } = template();
    if (hash !== this.#hash) this.#forget();
    this.#hash = hash;
    const waiting = pods.filter(({ free, pod }) => free.hash === hash && waitsSilently(pod));
    if (
      waiting.length === 0 ||
      pods.some(({ free, pod }) => free.state === "parked" && pod.metadata.uid === this.#uid)
    ) {
      this.#forget();
    }
    if (waiting.length === 0) return null;
    const nowMs = this.#context.kube.now();
    const sorted = [...waiting].sort((a, b) => this.#dueAtMs(a.free, nowMs) - this.#dueAtMs(b.free, nowMs));
    const read = sorted.find(({ pod }) => pod.metadata.uid === this.#uid) ?? sorted[0];
    if (!read) return null;
    const waitMs = Math.max(this.#dueAtMs(read.free, nowMs) - nowMs, this.#nextAtMs - clock.monotonic());
    if (waitMs > 0) return waitMs;
    this.#reading ??= this.#read(read.pod).finally(() => {
      this.#reading = null;
    });
    return null;
  }

  /** Resolves when no reading is under way. */
  async ended(): Promise<void> {
    await this.#reading;
  }

  /** When a Pod has waited for so long that its node is asked, by the API server's clock. */
  #dueAtMs(free: FreePod, nowMs: number): number {
    const { environment, timing } = this.#context;
    const timeoutMs = (environment().spec.sessions?.prepareTimeoutSeconds ?? 0) * SECOND_MS;
    return boundAtMs(free, nowMs, timeoutMs) + Math.min(timing.askNodeAfterMs, timeoutMs * SHARE_OF_TIMEOUT);
  }

  async #read(pod: Pod): Promise<void> {
    const { kube, points, namespace, clock, logger } = this.#context;
    const { uid = "" } = pod.metadata;
    const hash = this.#hash;
    this.#nextAtMs = clock.monotonic() + this.#backoff.next();
    this.#uid = uid;
    const options = { timeoutMs: READ_TIMEOUT_MS, ...(this.#signal && { signal: this.#signal }) };
    try {
      const fieldSelector = `involvedObject.uid=${uid}`;
      const read = () => kube.list(EVENTS, { namespace, fieldSelector, limit: EVENTS_LIMIT }, options);
      const { items } = await points.run("prepare.read-events", { pod: pod.metadata.name ?? "" }, read);
      this.#events = "read";
      // It may have been parked, or outdated, meanwhile.
      if (this.#uid === uid && this.#hash === hash) this.#complaint = complaintOf(items, pod, this.#complaint);
    } catch (error) {
      if (this.#signal?.aborted) return;
      // Rights may be given later: it is tried on, at the pace of any other reading.
      if (isForbidden(error)) this.#events = "forbidden";
      logger.debug({ error: errorText(error) }, "the Events of a Pod that does not get ready could not be read");
    }
    this.#onChange();
  }

  /** The next Pod that waits is asked about soon, though no sooner than the pace allows. */
  #forget(): void {
    if (this.#uid === "") return;
    this.#uid = "";
    this.#complaint = null;
    this.#backoff.reset();
    this.#onChange();
  }
}

function waitsSilently(pod: Pod): boolean {
  const state = stateOf(pod);
  return state.is === "preparing" && state.problem === null;
}

/** Who speaks for a Pod's node. What policy engines and others warn of holds no Pod back that was admitted. */
const SPEAKERS = new Set(["kubelet", "attachdetach-controller"]);

/**
 * Warnings that hold no Pod back, or that its status tells better. kubelet warns of name servers and pull secrets at
 * each sync of a Pod that is well.
 */
const ASIDE = new Set([
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

/** What a node says once there is a sandbox: what it complained of before is over. */
const SANDBOX_IS_THERE = new Set(["Pulling", "Pulled", "Created", "Started"]);

/** kubelet repeats a volume's complaint no later than this (pkg/volume/util, 2 min 2 s at most); all of a round are one. */
const ROUND_MS = 130_000;

/** kubelet's summary of a wait for volumes, beside which it says what is wrong with one of them. */
const SUMMARY = /^Unable to attach or mount volumes: /;

/** A condition is read on a terminal: containerd passes on whole command outputs. */
const MAX_LENGTH = 500;

/** Anybody who may write Events may write a megabyte, and what varies is looked for again and again. */
const MAX_READ = 8 * MAX_LENGTH;

/** What differs between two Events of one fault, and what stands for it. */
const VARYING: readonly (readonly [RegExp, string])[] = [
  [/^\(combined from similar events\): /, ""],
  [/\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/g, "…"],
  // Ids of sandboxes and containers.
  [/\b(?=[a-f]*\d)[0-9a-f]{32,64}\b/g, "…"],
  [/\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| ?[+-]\d\d:?\d\d)?( [A-Z]{3,4})?( m=[+-][\d.]+)?/g, "…"],
  // The near end of a connection.
  [/:\d+->/g, "->"],
  [/\bkube-api-access-[a-z0-9]{5}\b/g, "kube-api-access-…"],
  [/, unattached volumes=\[[^\]]*\]/g, ""],
  [/, failed to process volumes=\[\]/g, ""],
  // How long something took, or is put off: never whole seconds alone, which are settings.
  [/\b(\d+h)?(\d+m)?\d+\.\d+(s|ms|µs)\b/g, "…"],
  [/\s+/g, " "],
];

/**
 * What keeps a Pod from getting ready in its node's words, read from its Events; null where they tell nothing that still
 * holds. The words of the same fault are the same at each reading, and for each Pod.
 * @param before what was read last: where the node complains of several things in turn, it stays with this one.
 */
export function complaintOf(events: readonly KubeEvent[], pod: Pod, before: Problem | null): Problem | null {
  const spoken = events.filter((event) => SPEAKERS.has(event.source?.component || event.reportingComponent || ""));
  const ready = latest(spoken.filter(({ reason }) => SANDBOX_IS_THERE.has(reason ?? "")));
  const attached = latest(spoken.filter(({ reason }) => reason === "SuccessfulAttachVolume"));
  const holds = spoken.filter((event) => {
    if (event.type !== "Warning" || ASIDE.has(event.reason ?? "") || seenAt(event) <= ready) return false;
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

/** A node's sentence without what is another one for each Pod and at each try. */
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

/** When an Event was seen last, in milliseconds since the epoch; those of events.k8s.io bear no `lastTimestamp`. */
function seenAt({ lastTimestamp, series, eventTime, firstTimestamp, metadata }: KubeEvent): number {
  const { lastObservedTime } = (series ?? {}) as { lastObservedTime?: string };
  const at = Date.parse(
    String(lastTimestamp ?? lastObservedTime ?? eventTime ?? firstTimestamp ?? metadata.creationTimestamp),
  );
  return Number.isNaN(at) ? 0 : at;
}
