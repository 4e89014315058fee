import type { Clock } from "./clock.ts";
import { OperatorError } from "./errors.ts";

/**
 * Named points: every request that the loops send, and every decision that they take without one, has a name. A run of the
 * operator can be traced at them, and a test can end, pause or fail it at each. Without an observer a point is a plain call.
 *
 * The closed lists of names are src/protocol/points.ts, src/workers/context.ts and src/reconcile/reconciler-options.ts.
 */
export interface Points<Name extends string = string> {
  /**
   * Sends one request. `told` picks what matters of its answer; an `outcome` among that stands for the answer's own, where
   * an answer says no in a way of its own.
   */
  run<T>(
    name: Name,
    subject: PointSubject,
    request: () => Promise<T>,
    told?: (answer: T) => PointDetails & { readonly outcome?: PointOutcome },
  ): Promise<T>;
  /** A decision that is carried out in memory alone. */
  note(name: Name, subject: PointSubject, details?: PointDetails): void;
}

/** What a point is about, as far as it is about one. */
export interface PointSubject {
  /** The work item. */
  readonly workId?: string;
  /** The session Pod, and so the claim's Secret, which has its name. In `workers` mode the worker. */
  readonly pod?: string;
  /** What the request asks for: `expected` of a beat, `force` of a stop. */
  readonly asks?: PointDetails;
}

/** Plain values only: an event can be written as JSON as it is. Never a secret. */
export type PointDetails = Readonly<Record<string, string | number | boolean | null>>;

/** How a request came out. */
export type PointOutcome =
  /** It took effect, or the read was answered. */
  | "ok"
  /** The other side said no: it took no effect. */
  | "refused"
  /** No usable answer: it may have taken effect, or may still do. */
  | "unanswered"
  /** It was not sent, or an answer says that it took no effect, and nothing of what it was about. */
  | "failed";

/** One entry of a trace. Entries of one operator are in the order in which things happened there. */
export interface PointEvent {
  readonly point: string;
  /** `before` and `after` a request, with one `call`; `note`: a decision. */
  readonly phase: "before" | "after" | "note";
  /** Numbers the requests of one operator: what `before` and `after` have in common. A note's is its own. */
  readonly call: number;
  /** `after` only. */
  readonly outcome?: PointOutcome;
  /** Of the answer, the refusal or the decision: what the lists of names say for each point. */
  readonly details: PointDetails;
  /** What the request asked for. */
  readonly asks: PointDetails;
  readonly workId?: string;
  readonly pod?: string;
  /** `namespace/name`. */
  readonly environment: string;
  /** The operator's identity: another one for each process. */
  readonly operator: string;
  /** Wall clock, in milliseconds since the epoch: the one that several operators have in common. */
  readonly atMs: number;
  /** The same on the operator's monotonic clock. */
  readonly monotonicMs: number;
}

/** Told every event when it happens. A `before` that it returns a promise for is sent when that resolves. */
export type PointObserver = (event: PointEvent) => void | Promise<void>;

/** Points that nobody observes. */
export const NO_POINTS: Points = {
  run: (_name, _subject, request) => request(),
  note: () => {},
};

const NOTHING: PointDetails = {};

/** The points of one operator's Environments, by `namespace/name`. Without an observer there is nothing to be seen. */
export function pointsOf(
  observer: PointObserver | undefined,
  options: { readonly operator: string; readonly clock: Clock },
): (environment: string) => Points {
  if (!observer) return () => NO_POINTS;
  let calls = 0;
  return (environment) => new ObservedPoints({ ...options, observer, environment, nextCall: () => ++calls });
}

interface ObservedOptions {
  readonly observer: PointObserver;
  readonly clock: Clock;
  readonly operator: string;
  readonly environment: string;
  readonly nextCall: () => number;
}

class ObservedPoints implements Points {
  readonly #options: ObservedOptions;

  constructor(options: ObservedOptions) {
    this.#options = options;
  }

  async run<T>(
    name: string,
    subject: PointSubject,
    request: () => Promise<T>,
    told: (answer: T) => PointDetails & { readonly outcome?: PointOutcome } = () => NOTHING,
  ): Promise<T> {
    const call = this.#options.nextCall();
    const held = this.#tell({ point: name, phase: "before", call, details: NOTHING }, subject);
    if (held) await held;
    let answer: T;
    try {
      answer = await request();
    } catch (error) {
      const { outcome, ...details } = failureOf(error);
      await this.#tell({ point: name, phase: "after", call, outcome, details }, subject);
      throw error;
    }
    const { outcome = "ok", ...details } = told(answer);
    await this.#tell({ point: name, phase: "after", call, outcome, details }, subject);
    return answer;
  }

  note(name: string, subject: PointSubject, details: PointDetails = NOTHING): void {
    void this.#tell({ point: name, phase: "note", call: this.#options.nextCall(), details }, subject);
  }

  #tell(
    event: Pick<PointEvent, "point" | "phase" | "call" | "outcome" | "details">,
    { asks = NOTHING, ...subject }: PointSubject,
  ): void | Promise<void> {
    const { observer, clock, operator, environment } = this.#options;
    const at = { atMs: clock.now(), monotonicMs: clock.monotonic() };
    return observer({ ...event, ...subject, asks, environment, operator, ...at });
  }
}

/** Errors of both APIs, which this room does not know, say the same of a request in the same words. */
interface RequestError {
  readonly status?: number;
  /** Of the Work API. */
  readonly kind?: string;
  /** Of Kubernetes. */
  readonly reason?: string;
  readonly maybeApplied?: boolean;
}

function failureOf(error: unknown): PointDetails & { readonly outcome: PointOutcome } {
  if (!(error instanceof OperatorError)) return { outcome: "failed", error: nameOf(error) };
  const { status = 0, kind, reason, maybeApplied = false }: OperatorError & RequestError = error;
  const isNo = status >= 400 && status < 500 && status !== TOO_MANY_REQUESTS;
  const why = kind ?? reason ?? "";
  return { outcome: maybeApplied ? "unanswered" : isNo ? "refused" : "failed", error: error.code, status, why };
}

/** An answer that says nothing of what the request was about. */
const TOO_MANY_REQUESTS = 429;

function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : typeof error;
}
