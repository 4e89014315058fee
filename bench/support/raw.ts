import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import type { Pod } from "../../src/kube/resource.ts";

/** What the process of raw-writes.ts is told, as JSON. */
export interface RawInput {
  readonly kubeconfig: string;
  readonly namespace: string;
  readonly podNames: readonly string[];
  /** What new Pods are made from. */
  readonly pod: Pod;
  /** Sessions to be served. */
  readonly count: number;
  readonly lanes: number;
  /** Patches of a session's Pod, the touch included. */
  readonly podPatches: number;
  /** Events of a session. */
  readonly events: number;
  /** After so long from the touch, what is left of a session is deleted. */
  readonly sessionMs: number;
}

/** Sends the writes and resolves with how long that took, in milliseconds. */
export async function sendRawWrites(input: RawInput): Promise<number> {
  const main = new URL("./raw-writes.ts", import.meta.url).pathname;
  const child = spawn(process.execPath, [main, JSON.stringify(input)], { stdio: ["pipe", "pipe", "inherit"] });
  const ended = once(child, "exit").then(([code]) => {
    if (code !== 0) throw new Error(`the raw writes ended with ${code}`);
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  await Promise.race([lines.next(), ended]);
  child.stdin.end("go\n");
  const { value } = await lines.next();
  await ended;
  return Number(value);
}
