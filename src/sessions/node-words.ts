import { LABEL_ENVIRONMENT } from "../api/names.ts";
import { Backoff } from "../core/backoff.ts";
import { SECOND_MS } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { isForbidden } from "../kube/errors.ts";
import { EVENTS, type Pod } from "../kube/resource.ts";
import { type Problem, stateOf } from "../pods/pod-state.ts";
import type { SessionContext } from "../protocol/context.ts";
import { boundAtMs, type FreePod } from "./capacity.ts";
import { type CapacityProblem, unheard, wordsOfNode } from "./capacity-problem.ts";
import { complaintOf } from "./node-events.ts";

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
export class NodeWords {
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
