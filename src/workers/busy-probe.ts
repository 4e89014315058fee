import { Agent, type RequestOptions, request } from "node:http";
import { type Clock, deadlineSignal } from "../core/clock.ts";

/** A worker's answer to a probe; anything but a clear answer is unknown and counts as busy. */
export type BusyAnswer = "busy" | "idle" | "unknown";

const OK = 200;
const NO_CONTENT = 204;

/** A worker answers from memory, so one second is enough, as for the kubelet's probes. */
export const PROBE_TIMEOUT_MS = 1_000;

/** The address to probe. */
export interface ProbeTarget {
  readonly ip: string;
  readonly port: number;
  readonly path: string;
}

/** Probes a worker. Never throws. */
export type BusyProber = (target: ProbeTarget, signal: AbortSignal) => Promise<BusyAnswer>;

/** Probes over plain HTTP, directly to the Pod: without a proxy, kept connections or redirects. */
export function createBusyProber(clock: Clock): BusyProber {
  const agent = new Agent({ keepAlive: false });
  return async ({ ip, port, path }, signal) => {
    const bound = deadlineSignal(clock, PROBE_TIMEOUT_MS, signal);
    try {
      return answerOf(await statusOf({ agent, host: ip, port, path, method: "GET", signal: bound.signal }));
    } catch {
      return "unknown";
    } finally {
      bound.cancel();
    }
  };
}

/** Reads a status: 200 is busy, 204 idle. */
export function answerOf(status: number | undefined): BusyAnswer {
  if (status === OK) return "busy";
  return status === NO_CONTENT ? "idle" : "unknown";
}

function statusOf(options: RequestOptions): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const sent = request(options, (response) => {
      resolve(response.statusCode);
      // The rest of the response is not read; an endless body must not hold the connection.
      response.destroy();
    });
    sent.on("error", reject);
    sent.end();
  });
}
