import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import type { Simulator } from "../../simulator/simulator.ts";
import type { Pod } from "../../src/kube/resource.ts";

/** What the process of raw-writes.ts is told, as JSON. */
export interface RawInput {
  readonly kubeconfig: string;
  readonly namespace: string;
  readonly podNames: readonly string[];
  /** What new Pods are made from. */
  readonly pod: Pod;
  readonly lanes: number;
  /** Patches of a session's Pod on average, the touch included. */
  readonly podPatches: number;
  /** Events of a session on average. */
  readonly events: number;
  /** After so long from the touch, what is left of a session is deleted. */
  readonly sessionMs: number;
}

/** An item that is acknowledged already, and what its program needs to know. */
export interface Acknowledged {
  readonly workId: string;
  readonly sessionId: string;
  readonly workSecret: string;
}

/** Queues so many items and acknowledges them at once: they are to be started within the time that an item may wait for that. */
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
    // Its end is told to whoever waits for an answer.
    this.#ended.catch(() => {});
  }

  /** Sends the writes of these items' sessions. Resolves with how long that took, in milliseconds. */
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
