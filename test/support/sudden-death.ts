/** Makes a process die at a named point, or lose the answers of requests. */
import { AsyncLocalStorage } from "node:async_hooks";
import { subscribe } from "node:diagnostics_channel";
import type { PointDetails, PointEvent, PointObserver } from "../../src/core/points.ts";
import { KubeApiError } from "../../src/kube/errors.ts";
import { WorkApiError } from "../../src/work/errors.ts";

/** When a process dies at a point (src/core/points.ts). */
export interface Death {
  readonly point: string;
  /**
   * `before`: nothing was sent. `sent`: the request is in flight, and its answer will be lost. `after`: it was
   * answered, and the process has not acted on the answer yet.
   */
  readonly phase: "before" | "sent" | "after";
  /** Only for the n-th work item that the process deals with; any by default. */
  readonly item?: number;
  /** Only for a request with these details. */
  readonly asks?: PointDetails;
  /** Lost answers before the death, to make the process reach certain points. */
  readonly unanswered?: readonly Unanswered[];
}

/** Requests whose answers are lost. */
export interface Unanswered {
  readonly point: string;
  readonly api: "work" | "kube";
  /** `after`: lost after the effect; `before`: the request does not arrive either. */
  readonly phase: "before" | "after";
  /** How many; all by default. */
  readonly times?: number;
}

/** Kills this process (SIGKILL) at a point, according to `death`. */
export function dieAt(death: Death): PointObserver {
  let isDue = true;
  const items = new Set<string>();
  const losses = (death.unanswered ?? []).map((loss) => ({ loss, isLeft: countdownOf(loss) }));
  const at = death.phase === "sent" ? "before" : death.phase;
  return (event) => {
    if (event.workId !== undefined) items.add(event.workId);
    const isItem = death.item === undefined || [...items].indexOf(event.workId ?? "") === death.item - 1;
    if (isDue && isMeant(event, death) && event.phase === at && isItem) {
      isDue = false;
      if (death.phase === "sent") (FRAMES.has(death.point) ? dieAfterTurn : dieWhenSent)();
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

/** Points that write a frame to a connection that is usually open already, instead of sending a request. */
const FRAMES: ReadonlySet<string> = new Set(["session.deliver"]);

/** At the end of this turn the kernel has the frame, and no answer has been read yet. */
function dieAfterTurn(): void {
  setImmediate(die);
}

/** The point's request is the next one that this async context sends. */
function dieWhenSent(): void {
  const doomed = new AsyncLocalStorage<true>();
  let request: unknown;
  doomed.enterWith(true);
  subscribe("undici:request:create", (message) => {
    if (doomed.getStore()) request ??= (message as { request: unknown }).request;
  });
  subscribe("undici:request:bodySent", (message) => {
    // At the end of this turn the kernel has the bytes, and no answer has been read yet.
    if ((message as { request: unknown }).request === request) setImmediate(die);
  });
}

function die(): void {
  process.kill(process.pid, "SIGKILL");
  // Do nothing more until the signal arrives.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}
