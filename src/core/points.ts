import type { Clock } from "./clock.ts";
import { OperatorError } from "./errors.ts";

/**
 * Named points: every request that the loops send, and every decision without a request, has a name. An observer can
 * trace a run of the operator at the points; a test can end, pause or fail the run at each. Without an observer a point
 * is a plain call.
 *
 * The closed lists of names are in src/protocol/points.ts, src/workers/context.ts and
 * src/reconcile/reconciler-options.ts.
 */
export interface Points<Name extends string = string> {
  /**
   * Sends one request. `told` picks the relevant parts of the answer. If it returns an `outcome`, that outcome replaces
   * "ok", for answers that refuse without an error.
   */
  run<T>(
    name: Name,
    subject: PointSubject,
    request: () => Promise<T>,
    told?: (answer: T) => PointDetails & { readonly outcome?: PointOutcome },
  ): Promise<T>;
  /** Records a decision that needs no request. */
  note(name: Name, subject: PointSubject, details?: PointDetails): void;
}

/** The objects that a point concerns, if any. */
export interface PointSubject {
  /** The work item. */
  readonly workId?: string;
  /** The session Pod, and so the claim's Secret, which has the same name. In `workers` mode, the worker. */
  readonly pod?: string;
  /** Parameters of the request, such as `expected` of a heartbeat or `force` of a stop. */
  readonly asks?: PointDetails;
}

/** Plain values only, so that an event can be written as JSON. Never a secret. */
export type PointDetails = Readonly<Record<string, string | number | boolean | null>>;

/** The outcome of a request. */
export type PointOutcome =
  /** The request took effect, or the read was answered. */
  | "ok"
  /** The server refused the request, which took no effect. */
  | "refused"
  /** No usable answer: the request may have taken effect, or may still take effect. */
  | "unanswered"
  /** The request was not sent, or the answer says that it took no effect and nothing about its subject. */
  | "failed";

/** One entry of a trace. The entries of one operator are in order of time. */
export interface PointEvent {
  readonly point: string;
  /** `before` and `after` belong to one request and share its `call`. `note` is a decision. */
  readonly phase: "before" | "after" | "note";
  /** The number of the request or note, counted over all Environments of one operator. */
  readonly call: number;
  /** `after` only. */
  readonly outcome?: PointOutcome;
  /** Details of the answer, the refusal or the decision. The lists of names define them for each point. */
  readonly details: PointDetails;
  /** Parameters of the request. */
  readonly asks: PointDetails;
  readonly workId?: string;
  readonly pod?: string;
  /** `namespace/name`. */
  readonly environment: string;
  /** The operator's identity, which differs for each process. */
  readonly operator: string;
  /** Wall clock in milliseconds since the epoch, to compare several operators. */
  readonly atMs: number;
  /** The same time on the operator's monotonic clock. */
  readonly monotonicMs: number;
}

/**
 * Receives every event when it happens. A promise returned for a `before` event delays the request until it resolves.
 */
export type PointObserver = (event: PointEvent) => void | Promise<void>;

/** Points without an observer. */
export const NO_POINTS: Points = {
  run: (_name, _subject, request) => request(),
  note: () => {},
};

const NOTHING: PointDetails = {};

/** Returns the points of one operator's Environments, by `namespace/name`. Without an observer, nothing is recorded. */
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

/** The fields that the errors of both APIs share. This room cannot import their classes. */
interface RequestError {
  readonly status?: number;
  /** Set by Work API errors. */
  readonly kind?: string;
  /** Set by Kubernetes errors. */
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

/** HTTP 429 says nothing about the subject of the request, so it is no refusal. */
const TOO_MANY_REQUESTS = 429;

function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : typeof error;
}
