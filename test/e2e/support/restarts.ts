/** Restarts of the programs that a connection to a waiting Pod passes through. */
import { PODS } from "../../../src/kube/resource.ts";
import { leaderIdentity, untilLed, untilLedByAnother } from "./leader.ts";
import { nodeControl } from "./operator-process.ts";
import { counted } from "./pods.ts";
import { OPERATOR_NAMESPACE } from "./provided.ts";
import type { E2eWorld } from "./world.ts";

/** Each resolves when the program runs again. The operator's successor is another process, which may still start. */
export const RESTARTS: readonly [program: string, restart: (world: E2eWorld) => Promise<void>][] = [
  [
    "the operator",
    async (world) => {
      const identity = await leaderIdentity(world);
      const leader = await untilLed(world);
      await world.kube.delete(PODS, { namespace: OPERATOR_NAMESPACE, name: leader.metadata.name ?? "" });
      await untilLedByAnother(world, identity);
    },
  ],
  [
    "the API server",
    async (world) => {
      await nodeControl(world).stopApiServer("SIGKILL");
      await nodeControl(world).startApiServer();
    },
  ],
  [
    "the kubelet",
    async (world) => {
      await using _ = startAfterwards(world);
      await nodeControl(world).stopKubelet("SIGKILL");
      await untilAttached(world, 0);
    },
  ],
  [
    "containerd",
    async (world) => {
      await using _ = startAfterwards(world);
      await nodeControl(world).stopContainerd("SIGKILL");
      await untilAttached(world, 0);
    },
  ],
];

/** Waits until the operator holds this number of connections to waiting Pods. */
export function untilAttached(world: E2eWorld, count: number): Promise<boolean> {
  return world.until(`${count} attached Pods`, async () => (await counted(world, "berth_attach_streams")) === count);
}

/** Starts the node's programs at the end of the block, if they don't run. */
export function startAfterwards(world: E2eWorld): AsyncDisposable {
  const control = nodeControl(world);
  return {
    [Symbol.asyncDispose]: async () => {
      await control.startContainerd();
      await control.startKubelet();
    },
  };
}
