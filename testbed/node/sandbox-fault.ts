import { createHash } from "node:crypto";
import type { Pod } from "../../src/kube/objects.ts";
import type { Fate } from "./fate.ts";

/** The message of a real containerd. The sandbox has a different id at each try. */
const groupWithoutUser = (group: number, uid: string, failures: number) => {
  const id = createHash("sha256").update(`${uid} ${failures}`).digest("hex");
  return `failed to start sandbox "${id}": failed to generate sandbox container spec options: failed to generate user string: user group "${group}" is specified without user`;
};

const NETWORK =
  'failed to setup network for sandbox: plugin type="bridge" failed (add): failed to allocate for range 0: no IP addresses available in range set';

/**
 * Returns the kubelet's message if the sandbox can't be created, or undefined if it can.
 * @param fate the fate of the session container, which applies to the whole Pod here
 * @param failures the number of previous failures
 */
export function sandboxFault({ metadata, spec }: Pod, fate: Fate | undefined, failures: number): string | undefined {
  const security = (spec["securityContext"] ?? {}) as { runAsUser?: number; runAsGroup?: number };
  const { runAsUser, runAsGroup } = security;
  const ownFault =
    runAsGroup !== undefined && runAsUser === undefined
      ? groupWithoutUser(runAsGroup, metadata.uid ?? "", failures)
      : null;
  const scripted = fate?.kind === "sandbox" && failures < (fate.times ?? Number.POSITIVE_INFINITY);
  const cause = scripted ? (fate.message ?? NETWORK) : ownFault;
  return cause === null ? undefined : `Failed to create pod sandbox: rpc error: code = Unknown desc = ${cause}`;
}
