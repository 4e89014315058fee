import { AsyncLocalStorage } from "node:async_hooks";
import { subscribe } from "node:diagnostics_channel";
import type { PointDetails, PointEvent, PointObserver } from "../../src/core/points.ts";
import { KubeApiError } from "../../src/kube/errors.ts";
import { WorkApiError } from "../../src/work/errors.ts";

/** When a process dies at a point (src/core/points.ts). */
export interface Death {
  readonly point: string;
  /**
   * `before`: nothing was sent. `sent`: the request is on the wire, and nobody will hear its answer. `after`: it was answered,
   * and nothing has come of that yet.
   */
  readonly phase: "before" | "sent" | "after";
  /** At the how-manieth of these; the first unless given. */
  readonly occurrence?: number;
  /** Only where the request asks for this. */
  readonly asks?: PointDetails;
  /** What befalls the process before: the way to some points. */
  readonly unanswered?: readonly Unanswered[];
}

/** Requests whose answers are lost. */
export interface Unanswered {
  readonly point: string;
  readonly api: "work" | "kube";
  /** `after` it took effect, or `before`: then it never arrives either. */
  readonly phase: "before" | "after";
  /** So many; all unless given. */
  readonly times?: number;
}

/** Kills this process (kill -9) at a point, as `death` says. */
export function dieAt(death: Death): PointObserver {
  const comes = countdown(death.occurrence ?? 1);
  const losses = (death.unanswered ?? []).map((loss) => ({ loss, isLeft: countdownOf(loss) }));
  const at = death.phase === "sent" ? "before" : death.phase;
  return (event) => {
    if (isMeant(event, death) && event.phase === at && comes()) {
      if (death.phase === "sent") dieWhenSent();
      else die();
    }
    for (const { loss, isLeft } of losses) {
      if (event.point === loss.point && event.phase === loss.phase && isLeft()) throw unanswered(loss);
    }
  };
}

function isMeant(event: PointEvent, { point, asks = {} }: Death): boolean {
  return event.point === point && Object.entries(asks).every(([name, value]) => event.asks[name] === value);
}

/** True the `count`th time, and never again. */
function countdown(count: number): () => boolean {
  let left = count;
  return () => {
    left -= 1;
    return left === 0;
  };
}

function countdownOf({ times = Number.POSITIVE_INFINITY }: Unanswered): () => boolean {
  let left = times;
  return () => {
    left -= 1;
    return left >= 0;
  };
}

function unanswered({ api, point }: Unanswered): Error {
  const message = `the answer of ${point} is lost`;
  if (api === "kube") return new KubeApiError(message, { status: 0, maybeApplied: true });
  return new WorkApiError({ kind: "network", call: "ack", message, maybeApplied: true });
}

/** The next request that this turn of events sends: the one that the point is about. */
function dieWhenSent(): void {
  const doomed = new AsyncLocalStorage<true>();
  let request: unknown;
  doomed.enterWith(true);
  subscribe("undici:request:create", (message) => {
    if (doomed.getStore()) request ??= (message as { request: unknown }).request;
  });
  subscribe("undici:request:bodySent", (message) => {
    // The bytes are with the kernel when this turn is over, and no answer is read before that.
    if ((message as { request: unknown }).request === request) setImmediate(die);
  });
}

function die(): void {
  process.kill(process.pid, "SIGKILL");
  // Not one more step while the signal is on its way.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}
