import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import type { Pod } from "../../src/kube/resource.ts";
import type { Way } from "./plain-pods.ts";

/** The input of the process of bare-starts.ts, as JSON. */
export interface BareInput {
  readonly kubeconfig: string;
}

/** One start that the process serves. */
export interface BareStart {
  readonly way: Way;
  /** Open the connection to the Pod before the item arrives. */
  readonly isAhead: boolean;
  readonly namespace: string;
  /** A waiting Pod. For a cold start, the Pod to create. */
  readonly pod: Pod;
  readonly baseUrl: string;
  readonly environmentId: string;
  readonly key: string;
}

/** What the process says when it has started a session. */
export interface BareMessage {
  readonly served: true;
}

/** The process of the bare loop. */
export class BareStarter implements Disposable {
  readonly #child: ChildProcess;
  readonly #ended = Promise.withResolvers<never>();

  constructor(input: BareInput) {
    const main = new URL("./bare-starts.ts", import.meta.url).pathname;
    this.#child = fork(main, [JSON.stringify(input)]);
    this.#child.once("exit", (code) => this.#ended.reject(new Error(`the bare loop ended with ${code}`)));
    this.#ended.promise.catch(() => {});
  }

  /** Makes the process poll for an item. Resolves when it has delivered the session. */
  async serve(start: BareStart): Promise<void> {
    const answer = once(this.#child, "message");
    this.#child.send(start);
    await Promise.race([answer, this.#ended.promise]);
  }

  [Symbol.dispose](): void {
    this.#child.kill();
  }
}
