import { fork } from "node:child_process";
import type { Pod } from "../../src/kube/resource.ts";

/** What the process of raw-writes.ts is told, as JSON. */
export interface RawInput {
  readonly kubeconfig: string;
  readonly namespace: string;
  readonly podNames: readonly string[];
  /** What new Pods are made from. */
  readonly pod: Pod;
  /** Sessions that are served before any counts. */
  readonly warmUp: number;
  /** Sessions that count. */
  readonly count: number;
  readonly lanes: number;
  /** Patches of a session's Pod, the touch included. */
  readonly podPatches: number;
  /** Events of a session. */
  readonly events: number;
  /** After so long from the touch, what is left of a session is deleted. */
  readonly sessionMs: number;
}

/** `ready` asks for the word to begin with what counts. */
export type FromWriter = "ready" | { readonly tookMs: number };

/**
 * Sends the writes and resolves with how long those that count took, in milliseconds.
 * @param warm resolves when those may begin, after the others
 */
export async function sendRawWrites(input: RawInput, warm: () => Promise<void>): Promise<number> {
  const main = new URL("./raw-writes.ts", import.meta.url).pathname;
  const child = fork(main, [JSON.stringify(input)]);
  const warmed = Promise.withResolvers<void>();
  const took = Promise.withResolvers<number>();
  const failed = Promise.withResolvers<never>();
  child.on("exit", (code) => failed.reject(new Error(`the raw writes ended with ${code}`)));
  child.on("message", (told: FromWriter) => {
    if (told === "ready") warmed.resolve();
    else took.resolve(told.tookMs);
  });
  const sent = async () => {
    await warmed.promise;
    await warm();
    child.send("go");
    return await took.promise;
  };
  try {
    return await Promise.race([sent(), failed.promise]);
  } finally {
    child.kill();
  }
}
