import { Agent, type RequestOptions, request } from "node:http";
import { type Clock, deadlineSignal } from "../core/clock.ts";

/** What a worker says when it is asked; everything but a clear word is unknown, and treated as busy. */
export type BusyAnswer = "busy" | "idle" | "unknown";

const OK = 200;
const NO_CONTENT = 204;

/** A worker answers from memory: what takes longer is no answer. As a kubelet's probes, one second. */
export const PROBE_TIMEOUT_MS = 1_000;

/** Where to ask. */
export interface ProbeTarget {
  readonly ip: string;
  readonly port: number;
  readonly path: string;
}

/** Asks a worker. Never throws. */
export type BusyProber = (target: ProbeTarget, signal: AbortSignal) => Promise<BusyAnswer>;

/**
 * Asks by plain HTTP, straight to the Pod: no proxy of the environment, no connection kept, no redirect followed.
 */
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

/** What a status says: 200 is busy, 204 idle. */
export function answerOf(status: number | undefined): BusyAnswer {
  if (status === OK) return "busy";
  return status === NO_CONTENT ? "idle" : "unknown";
}

function statusOf(options: RequestOptions): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const sent = request(options, (response) => {
      resolve(response.statusCode);
      // Nobody reads what else it says; a body without end must not hold the connection.
      response.destroy();
    });
    sent.on("error", reject);
    sent.end();
  });
}
