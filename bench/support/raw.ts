import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import type { Simulator } from "../../simulator/simulator.ts";
import type { Pod } from "../../src/kube/resource.ts";

/** The input of the process of raw-writes.ts, as JSON. */
export interface RawInput {
  readonly kubeconfig: string;
  readonly namespace: string;
  readonly podNames: readonly string[];
  /** The template for new Pods. */
  readonly pod: Pod;
  readonly lanes: number;
  /** The average number of patches of a session's Pod, including the touch. */
  readonly podPatches: number;
  /** The average number of Events of a session. */
  readonly events: number;
  /** The time from the touch until the rest of the session is deleted. */
  readonly sessionMs: number;
}

/** An acknowledged item, and what its program needs to know. */
export interface Acknowledged {
  readonly workId: string;
  readonly sessionId: string;
  readonly workSecret: string;
}

/** Queues items and acknowledges them at once. They must start within the time that an acknowledged item may wait. */
export async function acknowledgeMany(simulator: Simulator, environmentId: string, count: number) {
  await simulator.arrivals(environmentId, { kind: "burst", size: count }).done;
  const all: Acknowledged[] = [];
  while (all.length < count) {
    const env = await simulator.claim(environmentId);
    const { ANTHROPIC_WORK_ID: workId, ANTHROPIC_SESSION_ID: sessionId, ANTHROPIC_WORK_SECRET: workSecret } = env ?? {};
    if (!workId || !sessionId || !workSecret)
      throw new Error(`item ${all.length + 1} of ${count} could not be claimed`);
    all.push({ workId, sessionId, workSecret });
  }
  return all;
}

/** The process that sends raw writes. */
export class RawWriter implements Disposable {
  readonly #child: ChildProcess;
  readonly #ended: Promise<never>;

  constructor(input: RawInput) {
    const main = new URL("./raw-writes.ts", import.meta.url).pathname;
    this.#child = fork(main, [JSON.stringify(input)]);
    const ended = Promise.withResolvers<never>();
    this.#child.on("exit", (code) => ended.reject(new Error(`the raw writes ended with ${code}`)));
    this.#ended = ended.promise;
    // `serve` reports the rejection to its caller.
    this.#ended.catch(() => {});
  }

  /** Sends the writes of these items' sessions. Resolves with the duration in milliseconds. */
  async serve(items: readonly Acknowledged[]): Promise<number> {
    const answer = once(this.#child, "message") as Promise<[number]>;
    this.#child.send(items);
    const [tookMs] = await Promise.race([answer, this.#ended]);
    return tookMs;
  }

  [Symbol.dispose](): void {
    this.#child.kill();
  }
}
