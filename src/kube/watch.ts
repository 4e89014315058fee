import { deadlineSignal, type Timer } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { isRecord } from "../core/json.ts";
import { KubeApiError, MALFORMED } from "./errors.ts";
import type { Call, Exchange } from "./exchange.ts";
import type { KubeObject } from "./objects.ts";
import { errorOfEvent, objectProblem } from "./status.ts";
import { type RawWatchEvent, WatchDecoder } from "./watch-decoder.ts";

/** Timeout for opening a watch: the API server sends the headers at once, or an error within a few seconds. */
const OPEN_TIMEOUT_MS = 30_000;

/**
 * The API server sends a bookmark about every minute, also without changes (k8s.io/apiserver, storage/cacher,
 * bookmarkFrequency). A connection that is silent for one and a half of these periods counts as dead. Otherwise we
 * would miss changes after a peer vanished without a FIN, until the kernel's timeouts.
 */
export const WATCH_INACTIVITY_MS = 90_000;

export interface WatchEvent<T extends KubeObject> {
  /** A bookmark's object contains only its resourceVersion (and kind). */
  readonly type: "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK";
  readonly object: T;
}

/** Reads the events of one watch; see KubeClient.watch. */
export async function* readWatch<T extends KubeObject>(
  exchange: Exchange,
  call: Call,
): AsyncGenerator<WatchEvent<T>, void, undefined> {
  const { clock } = exchange;
  const silence = new AbortController();
  const lifetime = call.signal ? AbortSignal.any([call.signal, silence.signal]) : silence.signal;
  const opening = deadlineSignal(clock, OPEN_TIMEOUT_MS, lifetime);
  let timer: Timer | undefined;
  const heard = () => {
    timer?.cancel();
    timer = clock.setTimer(() => silence.abort(new Error(silenceText)), WATCH_INACTIVITY_MS);
  };
  let stream: Awaited<ReturnType<Exchange["open"]>> | undefined;
  const onEnd = () => stream?.destroy();
  try {
    stream = await exchange.open(call, opening.signal);
    opening.cancel();
    // The opening is done, so its signal is unused now. Destroying the stream ends the loop below.
    lifetime.addEventListener("abort", onEnd, { once: true });
    heard();
    const decoder = new WatchDecoder();
    for await (const chunk of stream.body) {
      heard();
      for (const event of decoder.push(chunk)) {
        if (lifetime.aborted) break;
        yield typed<T>(call, event);
      }
    }
    if (decoder.pendingBytes > 0) throw new Error("the stream ended within an event");
  } catch (error) {
    if (call.signal?.aborted) return;
    throw asKubeApiError(call, silence.signal.aborted ? silence.signal.reason : error);
  } finally {
    opening.cancel();
    timer?.cancel();
    // Node keeps a combined signal with listeners until one of its sources aborts, and the caller's may never abort.
    lifetime.removeEventListener("abort", onEnd);
    stream?.destroy();
  }
  if (silence.signal.aborted) throw asKubeApiError(call, silence.signal.reason);
}

const silenceText = `no data for ${WATCH_INACTIVITY_MS / 1000} s, so the connection is dead`;

function typed<T extends KubeObject>(call: Call, { type, object }: RawWatchEvent): WatchEvent<T> {
  switch (type) {
    case "ADDED":
    case "MODIFIED":
    case "DELETED": {
      const found = objectProblem(object);
      if (found) throw new TypeError(`a watch event has no object: ${found}`);
      return { type, object: object as T };
    }
    case "BOOKMARK":
      if (typeof bookmarkVersion(object) !== "string") throw new TypeError("a bookmark without a resourceVersion");
      return { type, object: object as T };
    case "ERROR":
      throw errorOfEvent(call.about, object);
    default:
      throw new TypeError(`an unknown kind of watch event: ${type.slice(0, 40)}`);
  }
}

function bookmarkVersion({ metadata }: { readonly metadata?: unknown }): unknown {
  return isRecord(metadata) ? metadata["resourceVersion"] : undefined;
}

function asKubeApiError(call: Call, error: unknown): KubeApiError {
  if (error instanceof KubeApiError) return error;
  if (error instanceof SyntaxError || error instanceof TypeError) {
    const text = `${call.about}: the stream is not the API server's: ${errorText(error)}`;
    return new KubeApiError(text, { status: 0, reason: MALFORMED, cause: error });
  }
  return new KubeApiError(`${call.about}: the watch was interrupted: ${errorText(error)}`, { status: 0, cause: error });
}
