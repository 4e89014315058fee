import { realClock } from "../../src/core/clock.ts";
import type { AttachStream } from "../../src/kube/attach.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import { CONTAINER } from "./worker.ts";

/**
 * A process that holds connections to waiting containers as the operator does: with its client, which pings each of
 * them, and closes one without an answer. Each message says how many to hold. It ends with its parent.
 */
export interface AttachClientInput {
  readonly kubeconfig: string;
  readonly namespace: string;
  readonly pods: readonly string[];
}

/** How many connections to hold from now on. */
export interface HoldMessage {
  readonly connections: number;
}

/** The answer, when they are open. */
export interface HeldMessage {
  /** How long each new connection took to open, in milliseconds. */
  readonly openedMs: readonly number[];
  /** Connections that did not stay open, since the start of the process. */
  readonly lost: readonly string[];
}

/** Connections that are opened at the same time. */
const AT_ONCE = 4;

const { kubeconfig, namespace, pods } = JSON.parse(process.argv[2] ?? "{}") as AttachClientInput;
const kube = new KubeClient({ access: loadKubeConfig(kubeconfig), clock: realClock });
const held: AttachStream[] = [];
const lost: string[] = [];
process.on("message", (message: HoldMessage) => void hold(message));
process.once("disconnect", () => process.exit(0));

async function hold({ connections }: HoldMessage): Promise<void> {
  for (const stream of held.splice(connections)) stream.close();
  const openedMs: number[] = [];
  let next = held.length;
  const open = async () => {
    while (next < connections) {
      const name = pods[next % pods.length] ?? "";
      next += 1;
      const startedAt = performance.now();
      const stream = await kube.attach({ namespace, name }, { container: CONTAINER });
      openedMs.push(performance.now() - startedAt);
      held.push(stream);
      void stream.closed.then((why) => {
        if (held.includes(stream)) lost.push(`${name}: ${why}`);
      });
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, open));
  process.send?.({ openedMs, lost } satisfies HeldMessage);
}
