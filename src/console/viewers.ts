import type { ServerResponse } from "node:http";
import { isIP } from "node:net";
import type { Clock, Timer } from "../core/clock.ts";
import type { Changes, Look } from "./changes.ts";

/**
 * Changes are sent at this interval. Faster updates would not help a reader, and a burst of sessions becomes one event.
 */
export const LOOK_EVERY_MS = 1_000;
/** The interval of keep-alive events, so that both sides notice a lost connection. */
export const ALIVE_EVERY_MS = 15_000;
/** A viewer that reads nothing for this long is gone, or too slow. The page reconnects automatically. */
export const STUCK_MS = 30_000;
/** A few people with a few windows each. */
export const MAX_VIEWERS = 16;

interface Viewer {
  readonly response: ServerResponse;
  /** The viewer has no data yet, or missed a change: send everything. */
  needsAll: boolean;
  /** Since when (monotonic) the socket is full; null if it is not. */
  fullSinceMs: number | null;
  sentMs: number;
}

export interface ViewersOptions {
  readonly clock: Clock;
  readonly changes: Changes;
  readonly look: () => Look;
  readonly onError: (error: unknown) => void;
}

/**
 * The open pages, fed by server-sent events. Without viewers no snapshot is taken. Data for a viewer waits in its
 * socket. A slow viewer gets nothing more until its socket is empty, and then everything at once, so that no changes
 * pile up.
 */
export class Viewers {
  readonly #options: ViewersOptions;
  readonly #viewers = new Set<Viewer>();
  #timer: Timer | null = null;

  constructor(options: ViewersOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#viewers.size;
  }

  get isFull(): boolean {
    return this.#viewers.size >= MAX_VIEWERS;
  }

  /** Sends events over this response until its connection ends. The caller writes the head. */
  add(response: ServerResponse): void {
    const viewer: Viewer = { response, needsAll: true, fullSinceMs: null, sentMs: this.#options.clock.monotonic() };
    this.#viewers.add(viewer);
    response.on("drain", () => {
      viewer.fullSinceMs = null;
    });
    response.on("close", () => this.#remove(viewer));
    response.on("error", () => this.#remove(viewer));
    this.#tick();
  }

  close(): void {
    this.#timer?.cancel();
    for (const { response } of this.#viewers) response.destroy();
    this.#viewers.clear();
  }

  #remove(viewer: Viewer): void {
    this.#viewers.delete(viewer);
    if (this.#viewers.size > 0) return;
    this.#timer?.cancel();
    this.#timer = null;
  }

  #tick(): void {
    this.#timer?.cancel();
    try {
      this.#sendAll(this.#options.changes.take(this.#options.look()));
    } catch (error) {
      this.#options.onError(error);
    }
    this.#timer = this.#viewers.size === 0 ? null : this.#options.clock.setTimer(() => this.#tick(), LOOK_EVERY_MS);
  }

  #sendAll(change: string | null): void {
    const nowMs = this.#options.clock.monotonic();
    let whole: string | null = null;
    for (const viewer of this.#viewers) {
      if (viewer.fullSinceMs !== null) {
        if (nowMs - viewer.fullSinceMs >= STUCK_MS) viewer.response.destroy();
        else viewer.needsAll ||= change !== null;
      } else if (viewer.needsAll) {
        whole ??= this.#options.changes.whole();
        viewer.needsAll = false;
        send(viewer, whole, nowMs);
      } else if (change !== null) {
        send(viewer, change, nowMs);
      } else if (nowMs - viewer.sentMs >= ALIVE_EVERY_MS) {
        send(viewer, `{"nowMs":${this.#options.clock.now()}}`, nowMs);
      }
    }
  }
}

function send(viewer: Viewer, json: string, nowMs: number): void {
  viewer.sentMs = nowMs;
  // JSON has no line breaks, so one line is one event.
  if (!viewer.response.write(`data: ${json}\n\n`)) viewer.fullSinceMs = nowMs;
}

/**
 * Whether a request names this server by an IP address or as localhost. With DNS rebinding, another site's name
 * resolves to this address, and its page could read the console through a browser that can reach it. Such a request
 * sends that site's name.
 */
export function isOwnHost(header: string | undefined): boolean {
  const host = header?.replace(/:\d{1,5}$/, "").toLowerCase();
  if (host === undefined) return false;
  const bare = /^\[(.*)\]$/.exec(host)?.[1];
  return bare === undefined ? host === "localhost" || isIP(host) === 4 : isIP(bare) === 6;
}
